"""Packages are the same bytes every time, and what a peer's builder expects."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tokenmesh.fabric.errors import LifecycleError
from tokenmesh.fabric.packages import Package, ServiceTls, package, package_service, read_package


def files(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_a_service_package_says_where_the_chaincode_is() -> None:
    made = package_service("kv_1.0", "10.0.0.1:9999")
    outer = files(made.content)
    assert json.loads(outer["metadata.json"])["type"] == "ccaas"
    connection = json.loads(files(outer["code.tar.gz"])["connection.json"])
    assert connection == {"address": "10.0.0.1:9999", "dial_timeout": "10s", "tls_required": False}


def test_tls_is_in_the_connection() -> None:
    made = package_service("kv", "cc:9999", tls=ServiceTls("ROOT", "CERTIFICATE", "KEY"))
    connection = json.loads(files(files(made.content)["code.tar.gz"])["connection.json"])
    assert (connection["tls_required"], connection["client_auth_required"]) == (True, True)
    assert (connection["root_cert"], connection["client_cert"]) == ("ROOT", "CERTIFICATE")


def test_the_same_content_has_the_same_id_and_other_content_another() -> None:
    ids = {package_service("kv", "cc:9999").package_id for _ in range(3)}
    assert len(ids) == 1
    assert package_service("kv", "cc:9998").package_id not in ids


def test_the_order_of_files_does_not_matter() -> None:
    assert package("node", "kv", {"a": b"1", "b": b"2"}) == package("node", "kv", {"b": b"2", "a": b"1"})


def test_a_package_is_read_back() -> None:
    made = package_service("kv", "cc:9999")
    assert read_package(made.content) == made == Package("kv", made.content)
    for nothing in (b"", b"nothing", made.content[:40]):
        with pytest.raises(LifecycleError, match="no chaincode package"):
            read_package(nothing)


@pytest.mark.parametrize("label", ["", "-kv", "k v", "a/b"])
def test_labels_that_peers_refuse_are_refused_here(label: str) -> None:
    with pytest.raises(LifecycleError, match="no label"):
        package_service(label, "cc:9999")

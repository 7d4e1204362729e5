"""Chaincode packages: what a peer installs. The same content gives the same bytes, and so the same package
id.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from tokenmesh.fabric.errors import LifecycleError

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Package:
    """A chaincode package: its label, and the bytes of its ``tar.gz``."""

    label: str
    content: bytes

    @cached_property
    def package_id(self) -> str:
        """Label and SHA-256, as the peers name it."""
        return f"{self.label}:{sha256(self.content).hexdigest()}"


@dataclass(frozen=True)
class ServiceTls:
    """How a peer reaches a chaincode service by TLS; PEM. With certificate and key the peer shows its own."""

    root_certificate: str
    client_certificate: str | None = None
    client_key: str | None = None


def package_service(
    label: str, address: str, *, tls: ServiceTls | None = None, dial_timeout_s: int = 10
) -> Package:
    """A package for chaincode that runs as a service (ccaas): it says where, ``host:port`` as the peer sees
    it.
    """
    connection: dict[str, str | bool] = {
        "address": address,
        "dial_timeout": f"{dial_timeout_s}s",
        "tls_required": tls is not None,
    }
    if tls is not None:
        connection["root_cert"] = tls.root_certificate
        connection["client_auth_required"] = tls.client_certificate is not None
        connection["client_cert"] = tls.client_certificate or ""
        connection["client_key"] = tls.client_key or ""
    return package("ccaas", label, {"connection.json": json.dumps(connection, sort_keys=True).encode()})


def package(kind: str, label: str, code: Mapping[str, bytes]) -> Package:
    """A package of any kind (``ccaas``, ``node``, ``golang``, …) from the files that its builder wants."""
    if not LABEL.fullmatch(label):
        raise LifecycleError(f"{label!r} is no label: letters and digits, and behind the first also _ . + -")
    metadata = json.dumps({"label": label, "path": "", "type": kind}, sort_keys=True).encode()
    return Package(label, _tar_gz({"metadata.json": metadata, "code.tar.gz": _tar_gz(code)}))


def read_package(content: bytes) -> Package:
    """A package from the bytes of its file. Raises :class:`LifecycleError` if it is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            file = archive.extractfile("metadata.json")
            label = str(json.loads(file.read())["label"]) if file is not None else ""
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError, TypeError) as error:
        raise LifecycleError(f"this is no chaincode package: {error}") from error
    if not LABEL.fullmatch(label):
        raise LifecycleError(f"this package's label is {label!r}, which is none")
    return Package(label, content)


def _tar_gz(files: Mapping[str, bytes]) -> bytes:
    """No times, no owners, sorted names; stored, not deflated, so that no zlib's choices show in it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=0, mtime=0) as file:
        file.write(plain.getvalue())
    return packed.getvalue()

"""The external builder: what makes a peer take a chaincode that runs as a service."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tokenmesh.fabric.network import Network, find_tools
from tokenmesh.fabric.network.tools import assets

PROGRAMS = assets() / "builders" / "ccaas" / "bin"
CONNECTION = json.dumps({"address": "127.0.0.1:9999", "dial_timeout": "10s", "tls_required": False})


def run(name: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(PROGRAMS / name), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ('{"type":"ccaas","label":"x"}', 0),
        ('{"label": "x",\n "type" : "ccaas"}', 0),
        ('{"type":"golang","label":"ccaas"}', 1),
        ("{}", 1),
    ],
)
def test_only_packages_of_its_type_are_detected(tmp_path: Path, metadata: str, code: int) -> None:
    (tmp_path / "metadata.json").write_text(metadata)
    assert run("detect", tmp_path, tmp_path).returncode == code


def test_the_connection_comes_to_where_the_peer_looks_for_it(tmp_path: Path) -> None:
    """With index definitions, if the package has any."""
    source, built, released = (tmp_path / name for name in ("source", "built", "released"))
    for folder in (source, built, released):
        folder.mkdir()
    (source / "connection.json").write_text(CONNECTION)
    index = source / "META-INF" / "statedb" / "couchdb" / "indexes" / "owner.json"
    index.parent.mkdir(parents=True)
    index.write_text("{}")
    assert run("build", source, tmp_path, built).returncode == 0
    assert run("release", built, released).returncode == 0
    assert (released / "chaincode" / "server" / "connection.json").read_text() == CONNECTION
    assert (released / "statedb" / "couchdb" / "indexes" / "owner.json").is_file()


def test_a_package_without_connection_says_what_it_lacks(tmp_path: Path) -> None:
    done = run("build", tmp_path, tmp_path, tmp_path)
    assert done.returncode == 1
    assert "no connection.json" in done.stderr


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_a_real_peer_installs_such_a_package(network: Network, tmp_path: Path) -> None:
    """By Fabric's own client, so that more than our own view of it is shown."""
    code = archive({"connection.json": CONNECTION.encode()})
    metadata = json.dumps({"type": "ccaas", "label": "something_1"}).encode()
    (tmp_path / "package.tgz").write_bytes(archive({"metadata.json": metadata, "code.tar.gz": code}))
    peer = str(find_tools(lambda what, done: None).peer)
    environ = {**os.environ, **network.peer_environment("services")}

    def ask(*arguments: str) -> str:
        command = [peer, "lifecycle", "chaincode", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout

    ask("install", str(tmp_path / "package.tgz"))
    installed = json.loads(ask("queryinstalled", "--output", "json"))["installed_chaincodes"]
    assert "something_1" in {one["label"] for one in installed}

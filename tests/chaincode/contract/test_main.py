"""``python -m tokenmesh_chaincode``: told by its environment, ended by a signal, clear about its lacks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("fabric_protos", reason="the extra 'fabric' is not installed")

COMMAND = [sys.executable, "-m", "tokenmesh_chaincode"]
BARE = {name: value for name, value in os.environ.items() if not name.startswith(("CHAINCODE_", "CORE_"))}
ENDED_S = 30


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, env={**BARE, **environment}, capture_output=True, text=True, timeout=ENDED_S, check=False
    )


def test_it_ends_in_peace_when_it_is_told_to() -> None:
    environment = {"CHAINCODE_ID": "rules:1", "CHAINCODE_SERVER_ADDRESS": "127.0.0.1:0"}
    service = subprocess.Popen(COMMAND, env={**BARE, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        assert service.stderr is not None
        line = service.stderr.readline()
        assert "rules:1 listens on 127.0.0.1:" in line
        host, _, port = line.split()[-1].rpartition(":")
        socket.create_connection((host, int(port))).close()
        service.send_signal(signal.SIGTERM)
        _, rest = service.communicate(timeout=ENDED_S)
        assert service.returncode == 0
        assert "Traceback" not in rest
    finally:
        service.kill()


def test_without_an_address_it_says_what_it_lacks() -> None:
    ended = run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("the rules cannot be served: a chaincode server needs CHAINCODE_ID ")
    assert len(ended.stderr.splitlines()) == 1


def test_where_another_program_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(CHAINCODE_ID="rules:1", CHAINCODE_SERVER_ADDRESS=address)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("the rules cannot be served: ")
    assert address.rpartition(":")[2] in ended.stderr

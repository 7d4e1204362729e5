"""Ports: free ones, in a row, and nobody else's."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network.ports import HIGHEST, LOWEST, give_back, in_use, take_ports


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def home(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_networks_that_are_made_at_once_get_different_ports(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    """None of them listens yet, so only the notes keep them apart."""
    homes = [home(tmp_path, f"network{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda one: take_ports(one, 500, environ=environ), homes))
    taken = [port for block in blocks for port in block]
    assert len(set(taken)) == len(taken)
    assert min(taken) >= LOWEST
    assert max(taken) < HIGHEST
    for block in blocks:
        assert block == list(range(block[0], block[0] + 500))


def test_a_base_port_is_kept_to_and_refused_where_it_cannot_be(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    """Another network's ports, something that listens, and numbers that are no ports."""
    one, other = home(tmp_path, "one"), home(tmp_path, "other")
    base = take_ports(one, 10, environ=environ)[0]
    with pytest.raises(NetworkError, match=f"ports of the network in {one}; take --base-port {base + 10}"):
        take_ports(other, 10, base=base + 5, environ=environ)
    give_back(one, environ)
    assert take_ports(other, 10, base=base, environ=environ)[0] == base
    with pytest.raises(NetworkError, match="needs 10 ports in a row"):
        take_ports(one, 10, base=65_530, environ=environ)
    give_back(other, environ)
    # Not a port from the kernel: those beside it may be somebody's.
    with (
        socket.create_server(("127.0.0.1", base + 1)),
        pytest.raises(NetworkError, match=f"something else listens on {base + 1}$"),
    ):
        take_ports(one, 2, base=base, environ=environ)


def test_the_ports_of_a_removed_network_are_free_again(tmp_path: Path, environ: Mapping[str, str]) -> None:
    gone = home(tmp_path, "gone")
    base = take_ports(gone, 10, environ=environ)[0]
    gone.rmdir()
    assert take_ports(home(tmp_path, "new"), 10, base=base, environ=environ)[0] == base


def test_notes_that_are_damaged_are_begun_anew(tmp_path: Path, environ: Mapping[str, str]) -> None:
    take_ports(home(tmp_path, "one"), 10, environ=environ)
    notes = tmp_path / "cache" / "tokenmesh" / "ports.json"
    notes.write_text(notes.read_text()[:7])
    ports = take_ports(home(tmp_path, "two"), 10, environ=environ)
    assert json.loads(notes.read_text()) == {str(tmp_path / "two"): [ports[0], 10]}


def test_what_listens_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert in_use([port]) == [port]
    assert in_use([port]) == []

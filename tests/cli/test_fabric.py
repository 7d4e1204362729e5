"""``tokenmesh fabric`` as a user meets it, on a real network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from tokenmesh.fabric.network import Network, available
from tokenmesh.fabric.profile import load_profile

pytestmark = pytest.mark.timeout(1200)  # the first time, Fabric is built


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Cli]:
    """A home without a network; whatever runs there afterwards is stopped."""
    missing = available()
    if missing is not None:
        pytest.skip(missing)
    yield Cli(tmp_path / "home")
    Network(tmp_path / "home" / "fabric").clean()


def test_a_network_from_up_to_clean(fabric: Cli) -> None:
    """Up, looked at, down, up again, removed; each says what a script needs in its exit code and output."""
    said = fabric("fabric", "up", "--channel", "mesh", "--channel", "second", "--batch-timeout", "50")
    assert "The network is up: governance, services; 1 orderer(s), raft; channel(s) mesh, second." in said
    profile = Path(said.rpartition("Its profile: ")[2].strip())
    assert set(load_profile(profile).channels) == {"mesh", "second"}

    told = fabric.json("fabric", "status")
    assert told["profile"] == str(profile)
    assert {node["state"] for node in told["nodes"]} == {"running"}
    assert [node["name"] for node in told["nodes"]][:2] == ["ca.governance", "ca.services"]
    shown = fabric("fabric", "status")
    for name in ("peer0.services", "chaincode.tokenmesh.services"):
        assert re.search(rf"^{re.escape(name)} +running 127.0.0.1:", shown, re.MULTILINE)

    ledger = f"fabric:///{profile}?channel=mesh"
    assert f"The rules run on it as chaincode tokenmesh. Next: tokenmesh init --ledger {ledger}\n" in said
    assert "made with organisations governance, services, not" in fabric.refused(
        "fabric", "up", "--orgs", "3"
    )
    assert fabric("fabric", "down") == "The network is down.\n"
    down = fabric.run("fabric", "status")
    assert down.exit_code == 1
    assert "stopped" in down.stdout
    fabric("fabric", "up")

    assert "say --yes" in fabric.refused("fabric", "clean")
    assert fabric("fabric", "clean", "--yes") == "The network is removed.\n"
    assert not profile.exists()
    assert "There is no network in" in fabric.run("fabric", "status").output


def test_a_network_without_chaincode(fabric: Cli) -> None:
    """For chaincode of one's own; the rules come with the next `up` that wants them."""
    assert "chaincode" not in fabric("fabric", "up", "--no-chaincode")
    kinds = [node["kind"] for node in fabric.json("fabric", "status")["nodes"]]
    assert "chaincode" not in kinds
    fabric("fabric", "up")
    kinds = [node["kind"] for node in fabric.json("fabric", "status")["nodes"]]
    assert kinds.count("chaincode") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--orderers", "2", "--consensus", "bft"], "BFT needs 4 orderers or more"),
        (["--channel", "Mesh!"], "no channel's name"),
        (["--orgs", "99"], "1 to 8 organisations"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(fabric: Cli, options: list[str], message: str) -> None:
    assert message in fabric.refused("fabric", "up", *options)


def test_where_the_programs_are_is_printed(fabric: Cli) -> None:
    folders = fabric("fabric", "tools").split()
    assert any((Path(folder) / "peer").is_file() for folder in folders)


def test_without_the_extra_it_says_how_to_get_it(empty: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all other commands work."""
    for name in [name for name in sys.modules if name.startswith("tokenmesh.fabric.network")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert "pip install 'tokenmesh-fabric[fabric]'" in empty.refused("fabric", "status")
    assert "Usage:" in empty("init", "--help")

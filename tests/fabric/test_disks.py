"""A peer whose disk is full, on a real network: it ends, nothing acknowledged is lost, and with room again it
goes on from where it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.disks import Disk, small_disk
from support.homes import until
from tokenmesh.cli.rules import deploy_rules
from tokenmesh.fabric.network import Network

PEER = "peer0.services"
GRANTS_MAX = 200


@pytest.fixture
def network(home: Path) -> Network:
    network = Network(home, batch_timeout_ms=50)
    network.up()
    deploy_rules(network)
    return network


@pytest.fixture
def disk(network: Network) -> Iterator[Disk]:
    """A small disk for what the peer of services knows."""
    (peer,) = network.plan.of("peer", "services")
    data = network.layout.node(peer) / "data"
    network.stop(PEER)
    kept = data.with_name("kept")
    data.rename(kept)
    with small_disk(data, megabytes=64) as disk:
        shutil.copytree(kept, data, dirs_exist_ok=True)
        network.start(PEER)
        yield disk
        network.down()


@pytest.mark.slow
def test_a_peer_without_room_loses_nothing_and_catches_up(
    network: Network, disk: Disk, tmp_path: Path
) -> None:
    """Once it cannot endorse any more, operations are refused: nothing happened. What was acknowledged before
    is there on both peers afterwards, and `verify` compares them."""
    cli = Cli(tmp_path / "home")
    where = ("--ledger", f"fabric:///{network.layout.profile}?channel=mesh")
    cli("init", "--supply", "1000000", *where)
    cli("wallet", "create", "service-a", *where)
    disk.fill()
    granted = 0
    while (done := cli.run("grant", "service-a", "1", *where)).exit_code == 0:
        granted += 1
        assert granted < GRANTS_MAX, "the peer finds room without end"
    assert done.exit_code == 2
    assert "nothing happened on the ledger" in done.stderr
    # Fabric's own way: the peer ends rather than go on with less than it should have.
    until(lambda: states(network)[PEER] == "crashed", f"{PEER} ended")
    assert "no space left on device" in network.layout.log(PEER).read_text()

    disk.free()
    network.start(PEER)
    cli("grant", "service-a", "1", *where)
    assert cli.json("balance", "service-a", *where)["total"] == granted + 1
    cli("verify", *where)


def states(network: Network) -> dict[str, str]:
    return {status.name: status.state for status in network.status()}

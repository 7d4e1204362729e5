"""Real networks: brought up, taken down, hurt, and brought up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from fabric_protos.orderer import configuration_pb2

from tokenmesh.fabric.errors import NetworkBusy, NetworkError, NodeFailed
from tokenmesh.fabric.network import Network, configuration, find_tools

UP_S_MAX = 15.0
"""How long `up` may take once the programs are built, on a machine that has nothing else to do."""


def up_s_max() -> float:
    """The same on this machine as it is: with other processes waiting for the same cores."""
    return UP_S_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def states(network: Network) -> dict[str, str]:
    return {node.name: node.state for node in network.status()}


def set_batch_timeout(milliseconds: int) -> Any:
    """A change of the configuration, which makes a block on the channel."""

    def edit(group: Any) -> None:
        value = configuration_pb2.BatchTimeout(timeout=f"{milliseconds}ms")
        group.groups["Orderer"].values["BatchTimeout"].value = value.SerializeToString()

    return edit


def batch_timeout(network: Network, channel: str = "mesh") -> str:
    group = configuration.current(network.layout, network.plan, channel).channel_group
    value = group.groups["Orderer"].values["BatchTimeout"].value
    return str(configuration_pb2.BatchTimeout.FromString(value).timeout)


def listening(network: Network) -> set[tuple[str, int]]:
    """The addresses on which the network's processes really listen."""
    found = set()
    for node in network.status():
        for connection in psutil.Process(node.pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


def eventually(holds: Any, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)


@contextmanager
def running(home: Path, **options: Any) -> Iterator[Network]:
    network = Network(home, **options)
    try:
        network.up()
        yield network
    finally:
        network.clean()


def test_a_network_is_up_in_time_and_keeps_what_it_knew(home: Path) -> None:
    """Made, changed, taken down, brought up: the change, the ports and the identities are still there."""
    network = Network(home)
    began = time.monotonic()
    network.up()
    assert time.monotonic() - began < up_s_max()
    assert set(states(network).values()) == {"running"}
    network.update_channel("mesh", set_batch_timeout(77))
    alice = (network.identity("services", "alice") / "msp" / "signcerts" / "cert.pem").read_text()
    addresses = {node.name: node.address for node in network.status()}

    assert network.down() == []
    assert set(states(network).values()) == {"stopped"}
    began = time.monotonic()
    network.up()

    assert time.monotonic() - began < up_s_max()
    assert batch_timeout(network) == "77ms"
    assert {node.name: node.address for node in network.status()} == addresses
    assert (network.identity("services", "alice") / "msp" / "signcerts" / "cert.pem").read_text() == alice


def test_up_and_down_may_be_repeated(network: Network) -> None:
    """A second `up` touches nothing that runs."""
    before = {node.name: node.pid for node in network.status()}
    network.up()
    assert {node.name: node.pid for node in network.status()} == before


def test_nothing_listens_beyond_this_machine_or_beside_its_ports(network: Network) -> None:
    """Every node on 127.0.0.1 only, and on the ports of the plan only."""
    planned = {("127.0.0.1", port) for node in network.plan.everything for port in node.listens}
    assert listening(network) == planned


def test_every_port_moves_with_the_base_port(home: Path, network: Network) -> None:
    """With a base port all ports follow it in a row; a second network runs beside the first."""
    # Below what the kernel, and networks that choose for themselves, give away.
    base = 2_000 + os.getpid() % 80 * 40
    with running(home, base_port=base) as second:
        ports = sorted(port for _, port in listening(second))
        assert base <= ports[0]
        assert ports[-1] < base + 20
        assert set(states(network).values()) == set(states(second).values()) == {"running"}
        second.update_channel("mesh", set_batch_timeout(55))
        assert (batch_timeout(network), batch_timeout(second)) == ("100ms", "55ms")


def test_status_after_a_sigkill_tells_the_truth_and_up_mends_it(home: Path) -> None:
    """A killed peer and a killed orderer show as crashed; the next `up` brings just them back."""
    with running(home) as network:
        network.update_channel("mesh", set_batch_timeout(66))
        before = {node.name: node.pid for node in network.status()}
        network.kill("peer0.services")
        network.kill("orderer0.governance")
        assert {name for name, state in states(network).items() if state == "crashed"} == {
            "peer0.services",
            "orderer0.governance",
        }
        network.up()
        after = {node.name: node.pid for node in network.status()}
        assert {name for name in before if before[name] != after[name]} == {
            "peer0.services",
            "orderer0.governance",
        }
        assert batch_timeout(network) == "66ms"
        network.update_channel("mesh", set_batch_timeout(67))


def test_a_pid_that_now_is_a_strangers_is_neither_shown_nor_killed(home: Path) -> None:
    """After a crash a pid file may name a process that is none of ours."""
    with running(home) as network, subprocess.Popen(["sleep", "60"]) as stranger:
        network.kill("peer0.services")
        note = network.layout.run / "peer0.services.pid"
        note.write_text(json.dumps({**json.loads(note.read_text()), "pid": stranger.pid}))
        assert states(network)["peer0.services"] == "crashed"
        network.down()
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize(
    "stage", ["Starting the organisations", "Making the channels", "Joining the channels"]
)
def test_an_up_that_was_killed_is_finished_by_the_next(home: Path, stage: str) -> None:
    """SIGKILL to whoever brings the network up, at any stage of the first time."""
    script = (
        "import sys, os, signal; from tokenmesh.fabric.network import Network\n"
        "def stop(what, done):\n"
        "    if what.startswith(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Network(sys.argv[1]).up(stop)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(home), stage], check=False)
    assert done.returncode == -signal.SIGKILL
    with running(home) as network:
        assert set(states(network).values()) == {"running"}


def test_a_node_is_stopped_and_started_alone(network: Network) -> None:
    """`stop` and `start` wait; the others go on."""
    network.stop("peer0.services")
    assert {name for name, state in states(network).items() if state != "running"} == {"peer0.services"}
    network.start("peer0.services")
    assert set(states(network).values()) == {"running"}


def test_two_at_once_on_one_network_is_refused(home: Path) -> None:
    """The second learns that somebody else works on it, and that trying again later helps."""
    network = Network(home)
    refused: list[Exception] = []

    def again(what: str, done: float | None) -> None:
        if not refused:
            try:
                Network(home).down()
            except NetworkBusy as error:
                refused.append(error)

    network.up(again)
    network.clean()
    assert "another process works on the network" in str(refused[0])
    assert NetworkBusy.retryable


def test_a_process_that_is_forked_meanwhile_does_not_keep_the_network(home: Path) -> None:
    """It has the lock's file open, too, until it becomes something else; nobody works on the network then."""
    home.mkdir()
    network = Network(home)
    with network._locked():
        child = subprocess.Popen(["sleep", "60"], pass_fds=_open_as(home / "lock"))
    try:
        network.down()
    finally:
        child.kill()
        child.wait()


def _open_as(path: Path) -> list[int]:
    """The descriptors by which this process has ``path`` open."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return [number for number in numbers if os.path.realpath(f"/proc/self/fd/{number}") == str(path)]


def test_a_port_that_something_else_took_is_named(home: Path) -> None:
    """A stranger on a node's port while the network was down."""
    network = Network(home)
    network.up()
    network.down()
    port = network.plan.node("peer0.services").ports["operations"]
    server = (
        f"import socket; s = socket.create_server(('127.0.0.1', {port})); print('on', flush=True); s.accept()"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with pytest.raises(
            NetworkError, match=f"peer0.services cannot start: something else listens .*:{port}"
        ):
            network.up()
        stranger.kill()


def test_a_node_that_cannot_run_says_why(home: Path) -> None:
    """The error carries the end of the node's own log."""
    network = Network(home, peer_settings={"peer.tls.cert.file": "/nowhere.pem"})
    with pytest.raises(NodeFailed) as caught:
        network.up()
    assert caught.value.node.startswith("peer0.")
    assert "nowhere.pem" in caught.value.log


def test_a_network_stays_what_it_was_made_as(network: Network) -> None:
    """Other options than it was made with are refused; the same ones, or none, are fine."""
    Network(network.home, orgs=2, consensus="raft").up()
    with pytest.raises(NetworkError, match="made with channels mesh, not other"):
        Network(network.home, channels=("other",)).up()


def test_clean_leaves_nothing(home: Path) -> None:
    """No process, no file; and a network that never was is cleaned as well."""
    network = Network(home, channels=("mesh", "second"))
    network.up()
    assert set(network.profile.channels) == {"mesh", "second"}
    pids = [node.pid for node in network.status()]
    network.clean()
    assert not home.exists()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids if pid)
    network.clean()
    assert network.status() == []
    with pytest.raises(NetworkError, match="no network in"):
        network.kill("peer0.services")


def test_three_organisations_all_see_each_other(home: Path) -> None:
    """A third organisation is on the channel, with a CA, a peer and an admin of its own."""
    with running(home, orgs=3, peers=2) as network:
        profile = network.profile
        assert [one.msp_id for one in profile.organisations.values()] == [
            "GovernanceMSP",
            "ServicesMSP",
            "ObserversMSP",
        ]
        assert len(profile.peers) == 6
        assert profile.client("observers").certificate.is_file()
        assert set(states(network).values()) == {"running"}


def test_bft_orderers_commit_while_one_after_the_other_is_killed(home: Path) -> None:
    """Four orderers: each is killed in turn, the leader among them, and comes back; commits go on."""
    with running(home, consensus="bft") as network:
        orderers = [node.name for node in network.plan.of("orderer")]
        assert len(orderers) == 4
        for number, name in enumerate(orderers, start=1):
            network.kill(name)
            network.update_channel("mesh", set_batch_timeout(100 + number))
            network.start(name)
        assert batch_timeout(network) == "104ms"


def test_raft_elects_another_leader(home: Path) -> None:
    """Three orderers bear the loss of the one that leads."""
    with running(home, orderers=3) as network:
        first = network.leader("mesh")
        assert first is not None
        network.kill(first)
        eventually(lambda: network.leader("mesh") not in (None, first))
        network.update_channel("mesh", set_batch_timeout(99))


def test_a_revoked_certificate_is_refused_by_the_channel(home: Path) -> None:
    """What reads the channel with it is refused from then on; others of the organisation are not."""
    with running(home) as network:
        network.identity("services", "bob")
        assert ask_height(network, "bob").returncode == 0
        network.revoke("services", "bob")
        refused = ask_height(network, "bob")
        assert refused.returncode != 0
        assert "access denied" in refused.stderr
        assert ask_height(network, "admin").returncode == 0


def ask_height(network: Network, name: str) -> subprocess.CompletedProcess[str]:
    """What Fabric's own client gets to know as ``name``."""
    peer = str(find_tools(lambda what, done: None).peer)
    environ = {**os.environ, **network.peer_environment("services", name)}
    command = [peer, "channel", "getinfo", "-c", "mesh"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

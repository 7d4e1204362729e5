"""Chaincode that a network runs itself: services as nodes, agreed on by all, upgraded in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from support.kv_chaincode import COMMAND, ENVIRON
from tokenmesh.fabric.errors import EndorseError, NetworkError
from tokenmesh.fabric.gateway import Contract, connect_profile
from tokenmesh.fabric.lifecycle import Collection, Lifecycle
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.network.msp import TlsFiles, tls_files

BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"
SERVICES = ["chaincode.kv.governance", "chaincode.kv.services"]


def environ(version: str = "1") -> dict[str, str]:
    return {**ENVIRON, "KV_VERSION": version}


@pytest.fixture(scope="module")
def served(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of two channels that serves ``kv`` on both."""
    network = Network(tmp_path_factory.mktemp("served"), channels=("mesh", "second"))
    try:
        network.up()
        network.deploy("kv", command=COMMAND, environ=environ(), endorsement_policy=BOTH)
        yield network
    finally:
        network.clean()


@contextmanager
def contract(network: Network, organisation: str = "services", channel: str = "mesh") -> Iterator[Contract]:
    with connect_profile(network.profile, organisation) as gateway:
        yield gateway.get_network(channel).get_contract("kv")


def states(network: Network) -> dict[str, str]:
    return {node.name: node.state for node in network.status() if node.kind == "chaincode"}


def pids(network: Network) -> dict[str, int | None]:
    return {node.name: node.pid for node in network.status() if node.kind == "chaincode"}


@pytest.mark.parametrize("channel", ["mesh", "second"])
def test_a_chaincode_is_served_on_every_channel_for_every_organisation(served: Network, channel: str) -> None:
    """As soon as `deploy` is back: a transaction that both endorse, seen at the other organisation's peer."""
    with contract(served, "services", channel) as kv:
        kv.submit_transaction("put", "colour", channel)
    with contract(served, "governance", channel) as kv:
        assert kv.evaluate_transaction("get", "colour") == channel.encode()
    assert states(served) == dict.fromkeys(SERVICES, "running")


def test_deploying_again_changes_nothing(served: Network) -> None:
    """Same processes, same sequence."""
    before = pids(served)
    served.deploy("kv", command=COMMAND, environ=environ(), endorsement_policy=BOTH)
    assert pids(served) == before
    with connect_profile(served.profile) as gateway:
        committed = Lifecycle(gateway).query_committed("mesh", "kv")
    assert committed is not None
    assert committed.sequence == 1


def test_a_service_is_a_node_that_is_killed_and_started(served: Network) -> None:
    """While one of both endorsers' services is gone nothing is endorsed; started again, it is."""
    served.kill("chaincode.kv.services")
    assert states(served)["chaincode.kv.services"] == "crashed"
    with contract(served) as kv:
        with pytest.raises(EndorseError):
            kv.submit_transaction("put", "colour", "red")
        served.start("chaincode.kv.services")
        kv.submit_transaction("put", "colour", "green")
        assert kv.evaluate_transaction("get", "colour") == b"green"


def test_a_service_takes_nobody_without_a_certificate(served: Network) -> None:
    """It tells a peer who it is; who shows no certificate gets no connection."""
    node = served.plan.node("chaincode.kv.services")
    peer = tls_files(served.layout.node(node) / "peer")
    assert b"kv_1:" in first_message(node.address, peer.ca.read_bytes(), peer)
    with pytest.raises(grpc.RpcError) as refused:
        first_message(node.address, peer.ca.read_bytes(), None)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def first_message(address: str, root: bytes, own: TlsFiles | None) -> bytes:
    """What the service says to who connects as a peer does."""
    pair = (own.key.read_bytes(), own.certificate.read_bytes()) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(root, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options=options) as channel:
        stream = channel.stream_stream("/protos.Chaincode/Connect")(iter([]), timeout=10)
        return bytes(next(stream))


def test_another_command_is_taken_up_and_another_definition_is_refused(served: Network) -> None:
    """New code at the old place is the operator's business; what was agreed on is changed by `upgrade`."""
    served.deploy("kv", command=COMMAND, environ=environ("1b"), endorsement_policy=BOTH)
    with contract(served) as kv:
        assert kv.evaluate_transaction("version") == b"1b"
    with pytest.raises(NetworkError, match=r"another definition .*Network\.upgrade"):
        served.deploy("kv", command=COMMAND, environ=environ(), version="7", endorsement_policy=BOTH)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "k v"}, "no chaincode's name"),
        ({"channels": ["other"]}, "no channel other; the network has mesh, second"),
        ({"command": []}, "no command"),
    ],
)
def test_what_cannot_be_deployed_is_said(served: Network, asked: dict[str, object], message: str) -> None:
    options = {"name": "kv2", "command": COMMAND, **asked}
    with pytest.raises(NetworkError, match=message):
        served.deploy(**options)  # type: ignore[arg-type]
    assert set(states(served)) == set(SERVICES)


def test_a_command_that_ends_at_once_is_named_with_its_log(served: Network) -> None:
    """What was begun is undone by `undeploy`."""
    with pytest.raises(NetworkError, match=r"chaincode\.bad.* ended before answering(.|\n)*no such thing"):
        served.deploy("bad", command=[sys.executable, "-c", "raise SystemExit('no such thing')"])
    served.undeploy("bad")
    assert set(states(served)) == set(SERVICES)


def test_an_upgrade_while_transactions_go_on(served: Network) -> None:
    """Every transaction of a load succeeds while version 2, with a private collection, comes into force."""
    served.deploy("kv", command=COMMAND, environ=environ("1"), endorsement_policy=BOTH)
    done, stop, wrong = [0], threading.Event(), []

    def load(number: int) -> None:
        with contract(served) as kv:
            while not stop.is_set():
                try:
                    kv.submit_transaction("put", f"load-{number}", str(done[0]))
                    done[0] += 1
                except Exception as error:
                    wrong.append(error)

    loads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for one in loads:
        one.start()
    both = Collection("private", BOTH.replace("AND", "OR").replace("peer", "member"))
    served.upgrade("kv", version="2", environ=environ("2"), collections=[both])
    with contract(served) as kv, contract(served, "governance", "second") as other:
        assert kv.evaluate_transaction("version") == other.evaluate_transaction("version") == b"2"
    at_upgrade = done[0]
    while done[0] < at_upgrade + 20 and not wrong:
        stop.wait(0.02)
    stop.set()
    for one in loads:
        one.join()
    assert not wrong, wrong[:3]
    assert states(served) == dict.fromkeys(SERVICES, "running")


def test_down_and_up_bring_the_upgraded_services_back(served: Network) -> None:
    """With what the channel knew, and with no help."""
    served.upgrade("kv", version="3", environ=environ("3"))
    with contract(served) as kv:
        kv.submit_transaction("put", "kept", "yes")
    assert served.down() == []
    assert set(states(served).values()) == {"stopped"}
    served.up()
    with contract(served) as kv:
        assert kv.evaluate_transaction("version") == b"3"
        kv.submit_transaction("put", "also", "yes")
        assert kv.evaluate_transaction("get", "kept") == b"yes"


@pytest.mark.parametrize("stage", ["_agree", "_stop", "rename", "with_chaincode"])
def test_an_upgrade_that_was_killed_is_finished_by_up(served: Network, stage: str) -> None:
    """SIGKILL to whoever upgrades, before one of its steps."""
    version = f"4-{stage}"
    script = (
        "import os, signal, sys\n"
        "from tokenmesh.fabric.network import Network, Plan, deploying, processes\n"
        "home, stage, version = sys.argv[1:]\n"
        "owner = {'rename': processes, 'with_chaincode': Plan}.get(stage, deploying.Deployment)\n"
        "step, left = getattr(owner, stage), 1 + (stage == 'with_chaincode')\n"
        "def die(*arguments, **options):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(*arguments, **options)\n"
        "setattr(owner, stage, die)\n"
        "import json\n"
        "Network(home).upgrade('kv', version=version, environ=json.loads(os.environ['KV']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(served.home), stage, version],
        env={**os.environ, "KV": json.dumps(environ(version))},
        check=False,
    )
    assert done.returncode == -9
    served.up()
    assert states(served) == dict.fromkeys(SERVICES, "running")
    with contract(served) as kv:
        assert kv.evaluate_transaction("version") == version.encode()
        kv.submit_transaction("put", "stage", stage)


def test_an_upgrade_that_cannot_be_served_gives_way_to_one_that_can(served: Network) -> None:
    """The version before goes on meanwhile; the one that failed can be done again with another command."""
    served.upgrade("kv", version="5", environ=environ("5"))
    with pytest.raises(NetworkError, match=r"chaincode\.kv\.\w+\.next ended before answering"):
        served.upgrade("kv", version="6", command=[sys.executable, "-c", "raise SystemExit(1)"])
    with contract(served) as kv:
        assert kv.evaluate_transaction("version") == b"5"
        served.upgrade("kv", version="6", command=COMMAND, environ=environ("6"))
        assert kv.evaluate_transaction("version") == b"6"
    assert states(served) == dict.fromkeys(SERVICES, "running")


def test_services_stay_behind_the_base_port(home: Path) -> None:
    """With a base port, the services' ports follow the network's own."""
    network = Network(home, base_port=2_000 + 40 * 81)
    network.up()
    network.deploy("kv", command=COMMAND, environ=environ())
    ports = [node.port for node in network.plan.of("chaincode")]
    assert ports == [2_000 + 40 * 81 + 15, 2_000 + 40 * 81 + 17]
    network.undeploy("kv")
    assert states(network) == {}

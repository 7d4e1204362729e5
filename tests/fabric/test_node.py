"""Both sides of the wire against Fabric's own software for Node, so that neither is only our opinion.

Its client works on our network, with chaincode on our shim and with the rules, and our client works with its
chaincode.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.fabric_domain import Rules, make_fabric_domain
from support.kv_chaincode import Service
from support.ledgers import now_of
from tokenmesh.fabric.errors import EndorseError
from tokenmesh.fabric.gateway import Contract, FileCheckpointer, Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import Package, package_service

SOURCES = Path(__file__).parent / "node"
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and what they need, pinned by package-lock.json; installed once a machine."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip(
            "Fabric's own client and chaincode library are for Node: install node and npm to test with them"
        )
    lock = (SOURCES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokenmesh"
    folder = cache / f"fabric-node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        made = tmp_path_factory.mktemp("node") / "made"
        made.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"npm cannot install Fabric's own client for Node here: {done.stderr[-300:]}")
        near = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.move(made, near)
        try:
            near.rename(folder)
        except OSError:
            shutil.rmtree(near)  # another process was first
    work = tmp_path_factory.mktemp("scripts")
    for script in SOURCES.glob("*.js"):
        shutil.copy(script, work)
    (work / "node_modules").symlink_to(folder / "node_modules")
    return work


@pytest.fixture(scope="session")
def node(network: Network, node_folder: Path) -> Run:
    """Runs a step of Fabric's own client: ``node("submit", "kv", "put", "key", "value")``."""

    def run(step: str, chaincode: str, *arguments: str, **more: Any) -> Any:
        files, peer = network.profile.client(), network.profile.peers[0]
        given = {
            "step": step,
            "chaincode": chaincode,
            "arguments": arguments,
            "address": peer.address,
            "tls_ca": peer.tls_ca,
            "msp_id": files.msp_id,
            "certificate": str(files.certificate),
            "key": str(files.key),
            "tls_certificate": str(files.tls_certificate),
            "tls_key": str(files.tls_key),
            **more,
        }
        command = ["node", "client.js", json.dumps(given)]
        done = subprocess.run(
            command, cwd=node_folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def deploy_on(network: Network, name: str, package: Package) -> None:
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        deploy(gateways, "mesh", Definition(name), [package])


@pytest.fixture(scope="session")
def python_kv(network: Network) -> Iterator[str]:
    """A chaincode in Python, on our shim."""
    service = Service()
    package = package_service("python-kv", service.reserve())
    service.start(package.package_id)
    deploy_on(network, "python-kv", package)
    yield "python-kv"
    service.stop()


@pytest.fixture(scope="session")
def node_kv(network: Network, node_folder: Path) -> Iterator[str]:
    """The same chaincode by Fabric's own library for Node."""
    address = next(iter(network.profile.organisations["services"].peers.values())).chaincode
    assert address is not None
    package = package_service("node-kv", address)
    with subprocess.Popen(
        ["node", "chaincode.js", address, package.package_id],
        cwd=node_folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as chaincode:
        try:
            assert chaincode.stdout is not None
            while "listening" not in (line := chaincode.stdout.readline()):
                assert line, "the chaincode ended"
            deploy_on(network, "node-kv", package)
            yield "node-kv"
        finally:
            chaincode.kill()


@pytest.fixture
def gateway(network: Network) -> Iterator[Gateway]:
    with connect_profile(network.profile) as gateway:
        yield gateway


def contract_of(gateway: Gateway, name: str) -> Contract:
    return gateway.get_network("mesh").get_contract(name)


@pytest.mark.parametrize("chaincode", ["python_kv", "node_kv"])
def test_what_one_client_submits_the_other_reads(
    request: pytest.FixtureRequest, gateway: Gateway, node: Run, chaincode: str
) -> None:
    name = request.getfixturevalue(chaincode)
    contract = contract_of(gateway, name)
    assert node("submit", name, "put", "theirs", "by node") == "by node"
    assert contract.evaluate_transaction("get", "theirs") == b"by node"
    assert contract.submit_transaction("put", "ours", "by python") == b"by python"
    assert node("evaluate", name, "get", "ours") == "by python"


def test_their_client_works_with_the_rules(network: Network, node: Run, tmp_path: Path) -> None:
    """Whoever carries operations: what Fabric's own client hands in counts, and it can ask about it."""
    with Rules(network) as rules:
        domain = make_fabric_domain(rules, tmp_path, {"service-a": 100, "service-b": 0})
        name = domain.ledger.chaincode
        text = domain.operation("service-a", "transfer", {"to": "service-b", "tokens": 30})
        ((ok, code, detail, tx_id, _),) = json.loads(node("submit", name, "apply", text))
        assert (ok, code, detail["balance"]) == (True, "ok", 70)
        ((again, *_, same, _),) = json.loads(node("submit", name, "apply", text))
        assert (again, same) == (True, tx_id), "done once, in the first transaction"
        told = json.loads(node("evaluate", name, "ask", "balance", '["service-b"]'))
        assert told["credits"] == now_of(domain.ledger.balance("service-b")).credits == 30
        transaction = now_of(domain.ledger.transaction(tx_id))
        assert transaction is not None
        assert [one.act for one in transaction.operations] == ["transfer"]
        domain.ledger.close()


def test_our_client_works_with_a_node_chaincode(gateway: Gateway, node_kv: str) -> None:
    contract = contract_of(gateway, node_kv)
    assert contract.evaluate("transient", ("key",), transient_data={"key": "secret"}) == b"secret"
    assert contract.evaluate_transaction("who") == b"GovernanceMSP"
    with pytest.raises(EndorseError, match="no function nothing"):
        contract.submit_transaction("nothing")
    with gateway.get_network("mesh").get_chaincode_events(node_kv) as events:
        contract.submit_transaction("emit", "name", "payload")
        event = next(events)
    assert (event.event_name, event.payload) == ("name", b"payload")


def test_a_proposal_of_ours_is_endorsed_and_submitted_by_theirs(
    network: Network, gateway: Gateway, node: Run, python_kv: str
) -> None:
    proposal = contract_of(gateway, python_kv).new_proposal("put", ("handed", "over"))
    transaction = gateway.new_transaction(
        base64.b64decode(node("endorse", python_kv, proposal=base64.b64encode(proposal.bytes).decode()))
    )
    assert transaction.result == b"over"
    submitted = transaction.submit()  # the same again, signed by us: it is committed once
    assert submitted.transaction_id == proposal.transaction_id
    assert gateway.new_commit(submitted.bytes).get_status().successful
    assert node("status", python_kv, commit=base64.b64encode(submitted.bytes).decode()) == 0


def test_a_proposal_of_theirs_is_submitted_by_ours(gateway: Gateway, node: Run, python_kv: str) -> None:
    proposal = gateway.new_proposal(base64.b64decode(node("propose", python_kv, "put", "taken", "over")))
    assert proposal.endorse().submit().get_status().successful
    assert contract_of(gateway, python_kv).evaluate_transaction("get", "taken") == b"over"


def test_each_goes_on_behind_the_others_checkpoint(
    gateway: Gateway, node: Run, python_kv: str, tmp_path: Path
) -> None:
    file = tmp_path / "at.json"
    contract = contract_of(gateway, python_kv)
    names = [f"event-{number}" for number in range(6)]
    first = contract.submit_async("emit", (names[0], "payload"))
    FileCheckpointer(file).checkpoint_transaction(first.get_status().block_number, first.transaction_id)
    for name in names[1:]:
        contract.submit_transaction("emit", name, "payload")
    theirs = [event[0] for event in node("events", python_kv, checkpoint=str(file), count=2)]
    with gateway.get_network("mesh").get_chaincode_events(
        python_kv, checkpoint=FileCheckpointer(file)
    ) as events:
        ours = [next(events).event_name for _ in range(3)]
    assert theirs + ours == names[1:]

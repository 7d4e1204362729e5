"""What an invocation knows of itself, and does besides state: events, private data, policies, calls."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator

import pytest

from support.shim_chaincode import chaincode
from tokenmesh.fabric.ca import Attribute
from tokenmesh.fabric.errors import CommitError, EndorseError, GatewayError
from tokenmesh.fabric.gateway import NO_RETRY, Contract, Gateway, connect_profile
from tokenmesh.fabric.network import Network
from tokenmesh_chaincode.shim import Options, Server

from .conftest import NAME, Ask, deploy_shim


def test_an_invocation_knows_who_asked_what_and_when(network: Network, contract: Contract) -> None:
    """Arguments, transaction id, channel, time, transient data, the caller's certificate and attributes."""
    network.identity("services", "trader", [Attribute("role", "trader")])
    with connect_profile(network.profile, "services", "trader") as gateway:
        mine = gateway.get_network("mesh").get_contract(NAME)
        proposal = mine.new_proposal("facts", ("an argument",), transient_data={"secret": "kept"})
        facts = json.loads(proposal.evaluate())
    assert facts["args"] == ["facts", "an argument"]
    assert facts["tx_id"] == proposal.transaction_id
    assert facts["channel"] == "mesh"
    assert abs(facts["timestamp"] - time.time()) < 10
    assert facts["transient"] == {"secret": "kept"}
    assert facts["mspid"] == "ServicesMSP"
    assert facts["attributes"]["role"] == "trader"
    assert "client" in facts["units"]
    assert "CN=trader" in facts["subject"]
    assert len(bytes.fromhex(facts["binding"])) == 32


def test_an_event_comes_with_the_commit(gateway: Gateway, contract: Contract) -> None:
    """Name, payload and transaction id, as whoever listens gets them."""
    with gateway.get_network("mesh").get_chaincode_events(NAME) as events:
        submitted = contract.submit_async("emit", ("happened", "payload"))
        event = next(events)
    assert (event.event_name, event.payload) == ("happened", b"payload")
    assert event.transaction_id == submitted.transaction_id


def test_an_event_without_a_name_is_refused(contract: Contract) -> None:
    with pytest.raises(EndorseError, match="an event needs a name"):
        contract.submit_transaction("emit", "", "payload")


def test_private_data_stays_with_the_members_and_its_hash_does_not(contract: Contract, ask: Ask) -> None:
    """Written from transient data, read one by one, many at once and by range, then deleted and purged."""
    for number in range(3):
        contract.submit(
            "put_private", ("private", f"p{number}"), transient_data={"value": f"secret {number}"}
        )
    assert contract.evaluate_transaction("get_private", "private", "p1") == b"secret 1"
    assert (
        contract.evaluate_transaction("private_hash", "private", "p1") == hashlib.sha256(b"secret 1").digest()
    )
    assert ask("get_private_many", "private", "p2", "none", "p0") == ["secret 2", None, "secret 0"]
    assert ask("private_range", "private", "p1", "p~") == [["p1", "secret 1"], ["p2", "secret 2"]]
    contract.submit_transaction("del_private", "private", "p1")
    contract.submit_transaction("purge_private", "private", "p2")
    assert ask("private_range", "private", "p", "p~") == [["p0", "secret 0"]]


def test_a_collection_that_is_not_there_is_the_peers_error(contract: Contract) -> None:
    """A read is refused at once, a write when it is sent: both come back as errors of the transaction."""
    with pytest.raises(GatewayError, match="collection"):
        contract.evaluate_transaction("get_private", "unknown", "key")
    with pytest.raises(EndorseError, match="collection"):
        contract.submit("put_private", ("unknown", "key"), transient_data={"value": "secret"})


def test_a_key_with_a_policy_of_its_own_goes_by_it(contract: Contract) -> None:
    """Guarded by one organisation: its peer alone is enough there, the other's is not, and nowhere else."""
    contract.submit_transaction("set_policy", "guarded", "GovernanceMSP")
    assert b"GovernanceMSP" in contract.evaluate_transaction("get_policy", "guarded")

    def put(key: str, organisation: str) -> None:
        contract.submit("put", (key, "changed"), endorsing_organizations=[organisation], retry=NO_RETRY)

    put("guarded", "GovernanceMSP")
    assert contract.evaluate_transaction("get", "guarded") == b"changed"
    for key, organisation in [("guarded", "ServicesMSP"), ("unguarded", "GovernanceMSP")]:
        with pytest.raises(CommitError, match="ENDORSEMENT_POLICY_FAILURE"):
            put(key, organisation)
    assert contract.evaluate_transaction("get_policy", "unguarded") == b""


def test_a_private_key_can_have_a_policy_too(contract: Contract) -> None:
    contract.submit_transaction("set_private_policy", "private", "kept", "ServicesMSP")
    assert b"ServicesMSP" in contract.evaluate_transaction("get_private_policy", "private", "kept")


@pytest.fixture(scope="module")
def other(network: Network) -> Iterator[str]:
    """A second chaincode beside the first."""
    server = Server(chaincode, Options())
    deploy_shim(network, server, "other")
    yield "other"
    server.stop()


def test_one_chaincode_calls_another(gateway: Gateway, contract: Contract, other: str) -> None:
    """What the other answers is handed on, and what it writes joins the transaction, in its own space."""
    contract.submit_transaction("call", other, "", "put", "called", "by the first")
    assert contract.evaluate_transaction("call", other, "mesh", "get", "called") == b"by the first"
    assert contract.evaluate_transaction("get", "called") == b""
    assert gateway.get_network("mesh").get_contract(other).evaluate_transaction("get", "called")


def test_what_another_chaincode_refuses_is_handed_back(contract: Contract, other: str) -> None:
    """Its status and message, for the caller to judge; what it had written is not kept."""
    with pytest.raises(EndorseError, match="chaincode response 403, not today"):
        contract.submit_transaction("call", other, "", "refuse")


def test_a_chaincode_that_is_not_there_cannot_be_called(contract: Contract) -> None:
    with pytest.raises(GatewayError, match=r"INVOKE_CHAINCODE failed.*nothing"):
        contract.evaluate_transaction("call", "nothing", "mesh", "get", "key")

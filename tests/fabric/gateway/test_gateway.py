"""The client for threads, on a real network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.certificates import self_signed
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import (
    NO_RETRY,
    CommitError,
    Contract,
    EndorseError,
    Gateway,
    GatewayError,
    Identity,
    IdentityError,
    Tls,
    Transaction,
    connect,
    connect_profile,
    hash_sha256,
    new_private_key_signer,
    read_identity,
    read_signer,
)
from tokenmesh.fabric.gateway.transport import open_channel
from tokenmesh.fabric.network import Network


def failing(kind: type[FabricError], run: Callable[[], object]) -> Any:
    with pytest.raises(kind) as caught:
        run()
    return caught.value


def connected(network: Network, identity: Identity | None = None, **changes: Any) -> Gateway:
    """A gateway as :func:`connect` makes it, to the first peer of the profile, with something changed."""
    profile, files = network.profile, network.profile.client()
    given = {
        "target": profile.peers[0].address,
        "identity": identity or read_identity(files.msp_id, files.certificate),
        "signer": read_signer(files.key),
        "tls": Tls.of(profile.peers[0], files),
    }
    return connect(**{**given, **changes})


def kv_of(gateway: Gateway) -> Contract:
    return gateway.get_network("mesh").get_contract("kv")


def test_what_is_submitted_can_be_evaluated(contract: Contract) -> None:
    assert contract.submit_transaction("put", "key", "value") == b"value"
    assert contract.evaluate_transaction("get", "key") == b"value"


def test_evaluating_writes_nothing(contract: Contract) -> None:
    assert contract.evaluate_transaction("put", "unwritten", "value") == b"value"
    assert contract.evaluate_transaction("get", "unwritten") == b""


def test_both_organisations_read_what_one_wrote(kv: Network, contract: Contract) -> None:
    contract.submit_transaction("put", "shared", "value")
    with connect_profile(kv.profile, "services") as other:
        deadline = time.monotonic() + 10  # the other peer may be a block behind
        while kv_of(other).evaluate_transaction("get", "shared") != b"value":
            assert time.monotonic() < deadline
        assert kv_of(other).evaluate_transaction("who") == b"ServicesMSP"


def test_submit_async_answers_before_the_commit_and_the_commit_says_where(contract: Contract) -> None:
    submitted = contract.submit_async("put", ("async", "value"))
    assert submitted.result == b"value"
    status = submitted.get_status()
    assert (status.successful, status.code, status.transaction_id) == (
        True,
        "VALID",
        submitted.transaction_id,
    )
    assert status.block_number > 0
    assert submitted.get_status() == status


def test_asking_the_gateway_and_reading_the_stream_agree(kv: Network, contract: Contract) -> None:
    submitted = contract.submit_async("put", ("agree", "value"))
    with connected(kv, commit_stream=False) as asking:
        assert asking.new_commit(submitted.bytes).get_status() == submitted.get_status()


def test_step_by_step(contract: Contract) -> None:
    proposal = contract.new_proposal("put", ("steps", "value"))
    transaction = proposal.endorse()
    commit = transaction.submit()
    assert transaction.result == commit.result == b"value"
    assert proposal.transaction_id == transaction.transaction_id == commit.transaction_id
    assert commit.get_status().successful


def test_everything_can_be_signed_elsewhere(kv: Network) -> None:
    files = kv.profile.client()
    elsewhere = read_signer(files.key)
    with connected(kv, signer=None) as gateway:
        unsigned = kv_of(gateway).new_proposal("put", ("offline", "value"))
        error = failing(IdentityError, unsigned.endorse)
        assert "new_signed_proposal" in str(error)
        proposal = gateway.new_signed_proposal(unsigned.bytes, elsewhere(unsigned.digest))
        assert proposal.evaluate() == b"value"
        endorsed = proposal.endorse()
        transaction = gateway.new_signed_transaction(endorsed.bytes, elsewhere(endorsed.digest))
        submitted = transaction.submit()
        commit = gateway.new_signed_commit(submitted.bytes, elsewhere(submitted.digest))
        assert commit.get_status().successful
        request = gateway.get_network("mesh").new_filtered_block_events_request(start_block=0)
        signed = gateway.new_signed_filtered_block_events_request(request.bytes, elsewhere(request.digest))
        with signed.get_events() as blocks:
            assert [next(blocks).number for _ in range(3)] == [0, 1, 2]


def test_proposals_and_transactions_survive_as_bytes(gateway: Gateway, contract: Contract) -> None:
    proposal = gateway.new_proposal(contract.new_proposal("put", ("bytes", "value")).bytes)
    transaction = gateway.new_transaction(proposal.endorse().bytes)
    commit = gateway.new_commit(transaction.submit().bytes)
    assert commit.get_status().successful
    for read in (gateway.new_proposal, gateway.new_transaction, gateway.new_commit):
        with pytest.raises(FabricError, match="not those of"):
            read(b"\xff\xff\xff")


def test_transient_data_reaches_the_chaincode_and_not_the_ledger(
    gateway: Gateway, contract: Contract
) -> None:
    transaction = contract.new_proposal(
        "transient",
        ("key",),
        transient_data={"key": b"a secret"},
        endorsing_organizations=["GovernanceMSP", "ServicesMSP"],
    ).endorse()
    assert transaction.result == b"a secret"
    assert b"transient" in transaction.bytes
    assert transaction.bytes.count(b"a secret") == 1, "in the answer, since this chaincode gives it away"


def test_who_endorses_can_be_chosen(contract: Contract) -> None:
    error = failing(
        CommitError,
        lambda: contract.submit("put", ("few", "1"), endorsing_organizations=["GovernanceMSP"]),
    )
    assert (error.code, error.retryable) == ("ENDORSEMENT_POLICY_FAILURE", False)
    assert error.transaction_id
    assert (
        contract.submit("put", ("few", "2"), endorsing_organizations=["GovernanceMSP", "ServicesMSP"]) == b"2"
    )


def test_answers_of_many_megabytes_arrive(contract: Contract) -> None:
    assert len(contract.evaluate_transaction("large", "10000000")) == 10_000_000


def test_a_refusal_of_the_chaincode_comes_with_what_each_peer_said(contract: Contract) -> None:
    error = failing(EndorseError, lambda: contract.submit_transaction("nothing"))
    assert (error.code, error.retryable, len(error.transaction_id)) == ("ABORTED", False, 64)
    (detail,) = error.details
    assert detail.msp_id == "GovernanceMSP"
    assert "no function nothing" in detail.message
    assert "no function nothing" in str(
        failing(GatewayError, lambda: contract.evaluate_transaction("nothing"))
    )


def endorsed_when_level(contract: Contract, name: str, *arguments: str) -> Transaction:
    """An endorsed transaction: for a moment after a block one peer may not have it yet, and endorses
    something else than the other."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return contract.new_proposal(name, arguments).endorse()
        except EndorseError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise


def test_conflicts_are_an_error_or_solved_as_the_caller_likes(contract: Contract) -> None:
    contract.submit_transaction("put", "counter", "0")
    first, second = (endorsed_when_level(contract, "increment", "counter") for _ in range(2))
    statuses = [first.submit(), second.submit()]
    assert [one.get_status().code for one in statuses] == ["VALID", "MVCC_READ_CONFLICT"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: contract.submit_transaction("increment", "counter"), range(8)))
    assert contract.evaluate_transaction("get", "counter") == b"9"


def test_many_threads_share_a_gateway_and_none_loses_its_transaction(contract: Contract) -> None:
    with ThreadPoolExecutor(64) as pool:
        answers = pool.map(
            lambda number: contract.submit_transaction("put", f"many-{number}", str(number)), range(300)
        )
        assert list(answers) == [str(number).encode() for number in range(300)]
        read = pool.map(lambda number: contract.evaluate_transaction("get", f"many-{number}"), range(300))
        assert list(read) == [str(number).encode() for number in range(300)]


def test_an_answer_that_does_not_come_in_time_is_an_error_in_time(contract: Contract) -> None:
    since = time.monotonic()
    error = failing(GatewayError, lambda: contract.evaluate("sleep", ("3",), timeout_s=0.2, retry=NO_RETRY))
    assert error.code == "DEADLINE_EXCEEDED", "whoever noticed it first, the peer or we"
    assert time.monotonic() - since < 2
    assert "timeout_s" in str(error)


def test_a_closed_gateway_says_so(kv: Network) -> None:
    gateway = connect_profile(kv.profile)
    contract = kv_of(gateway)
    contract.submit_transaction("put", "closed", "1")
    gateway.close()
    with pytest.raises(FabricError, match="closed"):
        contract.evaluate_transaction("get", "closed")
    gateway.close()


def test_an_unknown_chaincode_or_channel_is_named(gateway: Gateway) -> None:
    mesh, elsewhere = gateway.get_network("mesh"), gateway.get_network("elsewhere")
    for run in (
        lambda: mesh.get_contract("absent").submit_transaction("put"),
        lambda: mesh.get_contract("absent").evaluate_transaction("put"),
    ):
        error = failing(GatewayError, run)
        assert "absent" in str(error)
        assert "deployed" in str(error) or "deploy it" in str(error)
    for run in (
        lambda: elsewhere.get_contract("kv").submit("put", retry=NO_RETRY),
        lambda: elsewhere.get_contract("kv").evaluate("put", retry=NO_RETRY),
        elsewhere.get_block_events,
    ):
        assert "elsewhere" in str(failing(GatewayError, run))


@pytest.mark.parametrize("wrong", ["certificate", "key", "msp"])
def test_who_is_no_member_is_refused_with_a_reason(kv: Network, wrong: str) -> None:
    files = kv.profile.client()
    identity, signer = read_identity(files.msp_id, files.certificate), read_signer(files.key)
    if wrong == "certificate":
        identity = Identity(files.msp_id, self_signed("stranger").encode())
    elif wrong == "msp":
        identity = dataclasses.replace(identity, msp_id="NobodyMSP")
    else:
        signer = new_private_key_signer(ec.generate_private_key(ec.SECP256R1()))
    with connected(kv, identity, signer=signer) as gateway:
        error = failing(EndorseError, lambda: kv_of(gateway).submit_transaction("put", "x", "1"))
    assert not error.retryable
    assert "MSP id" in str(error)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_is_named(kv: Network, hours: int) -> None:
    with connected(kv) as gateway:
        session = gateway._session
        wrong_ns = hours * 3600 * 10**9
        session.caller = dataclasses.replace(session.caller, now_ns=lambda: time.time_ns() + wrong_ns)
        runs: list[Callable[[], object]] = [
            gateway.get_network("mesh").get_block_events,
            lambda: kv_of(gateway).submit_transaction("put", "skewed", "1"),
            lambda: kv_of(gateway).evaluate_transaction("get", "skewed"),
        ]
        for run in runs:
            error = failing(GatewayError, run)
            assert "clock" in str(error)
            assert not error.retryable


def test_a_transaction_is_asked_for_where_the_stream_is_refused(kv: Network) -> None:
    own = Tls.of(kv.profile.peers[0], kv.profile.client())
    other = Tls(own.ca, self_signed("other").encode())  # the stream is bound to a certificate not in use
    with (
        open_channel(kv.profile.peers[0].address, own, 2**20) as channel,
        connected(kv, target=channel, tls=other) as gateway,
    ):
        assert kv_of(gateway).submit_transaction("put", "bound", "1") == b"1"
        error = failing(GatewayError, gateway.get_network("mesh").get_block_events)
        assert "TLS certificate" in str(error)


def test_nobody_listens(kv: Network) -> None:
    with connected(kv, target="127.0.0.1:1") as gateway:
        error = failing(GatewayError, lambda: kv_of(gateway).evaluate("get", ("x",), retry=NO_RETRY))
    assert (error.code, error.retryable) == ("UNAVAILABLE", True)
    assert "could not be reached" in str(error)


def test_a_channel_of_ones_own_is_used_and_left_open(kv: Network) -> None:
    files = kv.profile.client()
    tls = Tls.of(kv.profile.peers[0], files)
    with open_channel(kv.profile.peers[0].address, tls, 2**20) as channel:
        for _ in range(2):
            with connected(kv, target=channel) as gateway:
                assert kv_of(gateway).submit_transaction("put", "own", "1") == b"1"


def test_the_digest_is_the_hash_that_was_chosen(contract: Contract) -> None:
    proposal = contract.new_proposal("get", ("x",))
    assert len(proposal.digest) == 32
    assert proposal.digest == hash_sha256(proposal._draft.proposal)

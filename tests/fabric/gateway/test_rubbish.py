"""A peer that answers what cannot be read: the client says so with an error of its own, and signs none of it.

On a real gRPC server that plays the peer; each was found by ``make fuzz``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import (
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fuzz.targets.gateway import Peer

from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.fabric.blocks import ledger_info
from tokenmesh.fabric.errors import (
    BlockError,
    CommitStatusError,
    EndorseError,
    GatewayError,
    LifecycleError,
)
from tokenmesh.fabric.gateway import NO_RETRY, Contract, Gateway, Identity, aio, connect
from tokenmesh.fabric.gateway.flows import Endorsers
from tokenmesh.fabric.gateway.statuses import StreamRefused, Watch
from tokenmesh.fabric.lifecycle import Lifecycle
from tokenmesh.ledger.fabric.sending import _results

RUBBISH = b"\xff\xff\xff"


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    peer = Peer()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[peer])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield peer, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def signed() -> list[bytes]:
    """The digests that the client was ready to sign."""
    return []


@pytest.fixture
def gateway(peer: tuple[Peer, str], signed: list[bytes]) -> Iterator[Gateway]:
    def sign(digest: bytes) -> bytes:
        signed.append(digest)
        return b"signature"

    with connect(peer[1], Identity("Org1MSP", b"PEM"), sign, retry=NO_RETRY, commit_stream=False) as gateway:
        yield gateway


@pytest.fixture
def contract(gateway: Gateway) -> Contract:
    return gateway.get_network("mesh").get_contract("rules")


def endorsed(payload: bytes = b"answer") -> bytes:
    """A gateway's answer with an endorsed transaction whose chaincode has answered ``payload``."""
    action = proposal_pb2.ChaincodeAction(
        response=proposal_response_pb2.Response(status=200, payload=payload)
    ).SerializeToString()
    response = proposal_response_pb2.ProposalResponsePayload(extension=action).SerializeToString()
    endorsement = transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=response)
    asked = transaction_pb2.ChaincodeActionPayload(action=endorsement).SerializeToString()
    transaction = transaction_pb2.Transaction(
        actions=[transaction_pb2.TransactionAction(payload=asked)]
    ).SerializeToString()
    envelope = common_pb2.Envelope(payload=common_pb2.Payload(data=transaction).SerializeToString())
    return bytes(gateway_pb2.EndorseResponse(prepared_transaction=envelope).SerializeToString())


def empty() -> bytes:
    """A gateway's answer with a transaction in which nothing was done."""
    envelope = common_pb2.Envelope(payload=common_pb2.Payload().SerializeToString())
    return bytes(gateway_pb2.EndorseResponse(prepared_transaction=envelope).SerializeToString())


def test_an_answer_that_cannot_be_read_is_an_error_of_ours(
    peer: tuple[Peer, str], contract: Contract
) -> None:
    peer[0].answers = [RUBBISH]
    with pytest.raises(GatewayError, match="cannot be read") as caught:
        contract.evaluate_transaction("ask")
    assert (caught.value.code, caught.value.retryable) == ("DATA_LOSS", False)


@pytest.mark.parametrize("answer", [RUBBISH, empty()])
def test_what_cannot_be_read_is_not_signed(
    peer: tuple[Peer, str], contract: Contract, signed: list[bytes], answer: bytes
) -> None:
    """One signature was asked for: the proposal's."""
    peer[0].answers = [answer]
    with pytest.raises(EndorseError, match="cannot be read") as caught:
        contract.submit_transaction("apply")
    assert not caught.value.outcome_unknown
    assert len(signed) == 1


def test_a_commit_status_that_cannot_be_read_leaves_it_unknown(
    peer: tuple[Peer, str], contract: Contract
) -> None:
    peer[0].answers = [endorsed(), b"", RUBBISH]
    with pytest.raises(CommitStatusError, match="cannot be read"):
        contract.submit_transaction("apply")


def test_events_that_cannot_be_read_end_the_stream(peer: tuple[Peer, str], gateway: Gateway) -> None:
    network = gateway.get_network("mesh")
    peer[0].answers = [RUBBISH]
    for ask in (network.get_block_events, network.get_filtered_block_events):
        with ask(start_block=0) as events, pytest.raises(GatewayError, match="cannot be read"):
            next(events)
    with (
        network.get_chaincode_events("rules", start_block=0) as events,
        pytest.raises(GatewayError, match="cannot be read"),
    ):
        next(events)


async def _evaluate(address: str) -> None:
    async def sign(_digest: bytes) -> bytes:
        return b"signature"

    async with aio.connect_async(address, Identity("Org1MSP", b"PEM"), sign, retry=NO_RETRY) as gateway:
        await gateway.get_network("mesh").get_contract("rules").evaluate_transaction("ask")


def test_the_same_holds_for_asyncio(peer: tuple[Peer, str]) -> None:
    peer[0].answers = [RUBBISH]
    with pytest.raises(GatewayError, match="cannot be read"):
        asyncio.run(_evaluate(peer[1]))


def test_what_a_peer_says_of_itself(peer: tuple[Peer, str], gateway: Gateway) -> None:
    """Its packages, and how far it has come on a channel."""
    peer[0].answers = [RUBBISH]
    with pytest.raises(LifecycleError, match="no ProposalResponse"):
        Lifecycle(gateway).query_installed()
    answer = proposal_response_pb2.Response(status=200, payload=RUBBISH)
    peer[0].answers = [gateway_pb2.EvaluateResponse(result=answer).SerializeToString()]
    with pytest.raises(BlockError, match="cannot be read"):
        ledger_info(gateway.get_network("mesh"))


def test_a_stream_of_commits_that_cannot_be_read_is_left() -> None:
    """Whoever waits then asks the peer instead."""
    watch: Watch[Any] = Watch("mesh")
    with pytest.raises(StreamRefused, match="cannot be read"):
        list(watch.take(RUBBISH))


def test_endorsers_that_cannot_be_read_do_not_make_a_committed_transaction_fail() -> None:
    endorsers = Endorsers()
    endorsers.learn(RUBBISH)
    assert endorsers.msp_ids == ()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"rubbish",
        b"[]",
        b"[[1]]",
        b'[[true,"ok",5,"",0]]',
        b"[" * 100_000,
        b"null",
        b'[["x","ok",{},"",0]]',
    ],
)
def test_an_answer_of_the_rules_that_makes_no_sense(answer: bytes) -> None:
    """It is not known what happened, and the same operations may be submitted again."""
    with pytest.raises(LedgerOutcomeUnknown, match="makes no sense"):
        _results(answer, 1)

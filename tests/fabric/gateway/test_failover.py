"""Several peers as one: the next one serves when one is gone, and not before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_response_pb2

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import NO_RETRY, Identity, Retry
from tokenmesh.fabric.gateway.explain import DETAILS_KEY
from tokenmesh.fabric.gateway.failover import FailoverChannel, connect_any
from tokenmesh.fabric.gateway.flows import EVALUATE
from tokenmesh.fabric.gateway.messages import evaluate_result

SOON = 10.0
STREAM = "/protos.Deliver/Deliver"


class Peer:
    """A peer that answers with its name, or fails as it is told; killed, its port is closed."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.fails: tuple[grpc.StatusCode, str, bool] | None = None
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        unary: Any = grpc.unary_unary_rpc_method_handler(self._answer)
        stream: Any = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("gateway.Gateway", {"Evaluate": unary}),
                grpc.method_handlers_generic_handler("protos.Deliver", {"Deliver": stream}),
            )
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def kill(self) -> None:
        self._server.stop(grace=0).wait()

    def _answer(self, _request: bytes, context: Any) -> bytes:
        if self.fails is not None:
            code, message, says_so = self.fails
            if says_so:
                context.set_trailing_metadata(((DETAILS_KEY, b""),))
            context.abort(code, message)
        response = proposal_response_pb2.Response(payload=self.name)
        return bytes(gateway_pb2.EvaluateResponse(result=response).SerializeToString())

    def _stream(self, _requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        while True:
            yield self.name


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    peers = [Peer("first"), Peer("second")]
    yield peers
    for peer in peers:
        peer.kill()


@pytest.fixture
def channel(peers: list[Peer]) -> Iterator[FailoverChannel]:
    channel = FailoverChannel([partial(grpc.insecure_channel, peer.address) for peer in peers])
    yield channel
    channel.close()


def ask(channel: FailoverChannel) -> str:
    """Who answers; or the status that the call ends with."""
    try:
        return evaluate_result(channel.unary_unary(EVALUATE)(b"", timeout=SOON)).decode()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name


def test_the_first_serves_as_long_as_it_is_there(channel: FailoverChannel) -> None:
    assert [ask(channel) for _ in range(3)] == ["first"] * 3


def test_the_next_one_serves_when_one_is_gone(channel: FailoverChannel, peers: list[Peer]) -> None:
    """The call that found it out fails; from then on the second one is asked, and round again."""
    assert ask(channel) == "first"
    peers[0].kill()
    assert [ask(channel) for _ in range(3)] == ["UNAVAILABLE", "second", "second"]
    peers[1].kill()
    assert [ask(channel) for _ in range(2)] == ["UNAVAILABLE", "UNAVAILABLE"]


def test_one_that_does_not_answer_in_time_is_left(channel: FailoverChannel, peers: list[Peer]) -> None:
    peers[0].fails = (grpc.StatusCode.DEADLINE_EXCEEDED, "", False)
    assert [ask(channel), ask(channel)] == ["DEADLINE_EXCEEDED", "second"]


@pytest.mark.parametrize(
    "fails",
    [
        (grpc.StatusCode.UNAVAILABLE, "no orderer is there", True),
        (grpc.StatusCode.ABORTED, "chaincode response 500", True),
        (grpc.StatusCode.UNKNOWN, "too many requests", False),
    ],
)
def test_one_that_answers_with_an_error_is_there(
    channel: FailoverChannel, peers: list[Peer], fails: tuple[grpc.StatusCode, str, bool]
) -> None:
    """Also where what it says is that others are unavailable."""
    peers[0].fails = fails
    assert ask(channel) == fails[0].name
    peers[0].fails = None
    assert ask(channel) == "first"


def test_a_stream_that_breaks_goes_on_at_the_next_one(channel: FailoverChannel, peers: list[Peer]) -> None:
    stream = channel.stream_stream(STREAM)(iter([b""]))
    assert next(stream) == b"first"
    peers[0].kill()
    with pytest.raises(grpc.RpcError):
        deque(stream, maxlen=0)
    other = channel.stream_stream(STREAM)(iter([b""]))
    assert next(other) == b"second"
    other.cancel()


def test_a_gateway_over_several_peers_finds_the_one_that_is_there(peers: list[Peer]) -> None:
    """By its own retries; without them, at the next call."""
    peers[0].kill()
    targets = [(peer.address, None) for peer in peers]
    for retry, message in ((Retry(wait_s=0.01), None), (NO_RETRY, "could not be reached")):
        with connect_any(targets, Identity("Org1MSP", b"PEM"), lambda digest: digest, retry=retry) as gateway:
            contract = gateway.get_network("mesh").get_contract("kv")
            if message is not None:
                with pytest.raises(FabricError, match=message):
                    contract.evaluate_transaction("get")
            assert contract.evaluate_transaction("get") == b"second"
    with pytest.raises(FabricError, match="no peer"):
        connect_any([], Identity("Org1MSP", b"PEM"))

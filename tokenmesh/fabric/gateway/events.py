"""Events: what to ask the peer for, how to read its answers, and where to go on after a break. Does no I/O.

A feed remembers what it handed out last, so that a stream that breaks goes on behind it, with nothing left
out and nothing twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.errors import FabricError, GatewayError
from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.checkpoint import Checkpoint
from tokenmesh.fabric.gateway.explain import Failure
from tokenmesh.fabric.gateway.flows import Caller

CHAINCODE_EVENTS = "/gateway.Gateway/ChaincodeEvents"
RECONNECT_S = 60.0
"""How long a broken stream is tried again, unless the caller says otherwise."""
RECONNECT_PAUSE_S_MAX = 2.0

Octets: TypeAlias = bytes
Item = TypeVar("Item")
Block: TypeAlias = Any
"""``common.Block``, ``peer.FilteredBlock`` or ``peer.BlockAndPrivateData`` of ``fabric_protos``."""


@dataclass(frozen=True)
class ChaincodeEvent:
    """What a chaincode emitted in a committed, valid transaction."""

    block_number: int
    transaction_id: str
    chaincode_name: str
    event_name: str
    payload: Octets


class Feed(ABC, Generic[Item]):
    """One stream of events: its method, its request, and its items."""

    method: str
    one_request: bool
    """The request is all that the client sends (else the stream is open both ways, and one message is sent).
    """

    @property
    @abstractmethod
    def resumable(self) -> bool:
        """Is it known where to go on?"""

    @abstractmethod
    def request(self, caller: Caller) -> Octets:
        """What is to be signed in order to get what follows."""

    @abstractmethod
    def signed(self, request: Octets, signature: Octets) -> Octets:
        """What is to be sent."""

    @abstractmethod
    def read(self, response: Octets) -> Iterator[Item]:
        """The items of one message. An item counts as handed out when the next one is asked for."""


class PositionedFeed(Feed[Item]):
    """A feed that knows in which block it goes on."""

    start_block: int | None

    @property
    def resumable(self) -> bool:
        return self.start_block is not None


class ChaincodeFeed(PositionedFeed[ChaincodeEvent]):
    """The events of one chaincode, in the order of the ledger."""

    method = CHAINCODE_EVENTS
    one_request = True

    def __init__(self, channel: str, chaincode: str, start_block: int | None, after: str = "") -> None:
        self._channel = channel
        self._chaincode = chaincode
        self.start_block = start_block
        self._after = after

    def request(self, caller: Caller) -> Octets:
        creator = caller.identity.serialized
        return messages.chaincode_events_request(
            creator, self._channel, self._chaincode, self.start_block, self._after
        )

    def signed(self, request: Octets, signature: Octets) -> Octets:
        return messages.signed_chaincode_events_request(request, signature)

    def read(self, response: Octets) -> Iterator[ChaincodeEvent]:
        message = _message(gateway_pb2.ChaincodeEventsResponse, response)
        number = message.block_number
        for event in message.events:
            self.start_block, self._after = number, event.tx_id
            yield ChaincodeEvent(number, event.tx_id, event.chaincode_id, event.event_name, event.payload)
        self.start_block, self._after = number + 1, ""


class BlockFeed(PositionedFeed[Block]):
    """The blocks of a channel: whole, filtered, or with the private data that this identity may see."""

    one_request = False

    def __init__(self, kind: str, channel: str, start_block: int | None) -> None:
        self.method, self._field = BLOCK_KINDS[kind]
        self._channel = channel
        self.start_block = start_block

    def position(self) -> ab_pb2.SeekPosition:
        return messages.seek(self.start_block)

    def request(self, caller: Caller) -> Octets:
        return messages.deliver_payload(
            caller.identity.serialized,
            self._channel,
            self.position(),
            now_ns=caller.now_ns(),
            tls_certificate_hash=caller.tls_certificate_hash,
        )

    def signed(self, request: Octets, signature: Octets) -> Octets:
        return messages.envelope(request, signature)

    def read(self, response: Octets) -> Iterator[Block]:
        message = _message(events_pb2.DeliverResponse, response)
        kind = message.WhichOneof("Type")
        if kind != self._field:
            raise _refused(self._channel, message.status if kind == "status" else 0)
        block = getattr(message, self._field)
        self.start_block = (
            int(block.number if kind == "filtered_block" else _whole(block, kind).header.number) + 1
        )
        yield block


BLOCK_KINDS = {
    "block": ("/protos.Deliver/Deliver", "block"),
    "filtered": ("/protos.Deliver/DeliverFiltered", "filtered_block"),
    "private": ("/protos.Deliver/DeliverWithPrivateData", "block_and_private_data"),
}


class NewestFeed(BlockFeed):
    """Only to learn the number of the last block, which comes at once."""

    def __init__(self, channel: str) -> None:
        super().__init__("filtered", channel, None)

    def position(self) -> ab_pb2.SeekPosition:
        return messages.seek_newest()


class SignedFeed(Feed[Item]):
    """A request that was signed elsewhere: after a break it cannot go on without another one."""

    def __init__(self, feed: Feed[Item], request: Octets) -> None:
        self.method, self.one_request = feed.method, feed.one_request
        self._feed = feed
        self._request = request

    @property
    def resumable(self) -> bool:
        return False

    def request(self, caller: Caller) -> Octets:  # noqa: ARG002 - the request was made before
        return self._request

    def signed(self, request: Octets, signature: Octets) -> Octets:
        return self._feed.signed(request, signature)

    def read(self, response: Octets) -> Iterator[Item]:
        return self._feed.read(response)


class EventsRequestData(Generic[Item]):
    """A request for events, as data that can be signed elsewhere."""

    def __init__(self, caller: Caller, feed: Feed[Item], request: Octets, signature: Octets | None) -> None:
        self._caller = caller
        self._feed = feed
        self._request = request
        self._signature = signature

    @property
    def digest(self) -> Octets:
        """What is to be signed."""
        return self._caller.hash(self._request)

    @property
    def bytes(self) -> Octets:
        """The whole request, to be kept, or carried to whoever signs it."""
        return self._feed.signed(self._request, self._signature or b"")


def new_chaincode_feed(
    channel: str, chaincode: str, start_block: int | None, checkpoint: Checkpoint | None
) -> ChaincodeFeed:
    """From the checkpoint on; without one from ``start_block``; without either from the next block."""
    if checkpoint is not None and checkpoint.block_number is not None:
        return ChaincodeFeed(channel, chaincode, checkpoint.block_number, checkpoint.transaction_id or "")
    return ChaincodeFeed(channel, chaincode, start_block)


def new_block_feed(
    kind: str, channel: str, start_block: int | None, checkpoint: Checkpoint | None
) -> BlockFeed:
    """The same for blocks; a checkpoint within a block gives that block again, whole."""
    if checkpoint is not None and checkpoint.block_number is not None:
        return BlockFeed(kind, channel, checkpoint.block_number)
    return BlockFeed(kind, channel, start_block)


def read_chaincode_request(octets: Octets) -> tuple[ChaincodeFeed, Octets]:
    """A feed that reads the answers to a request signed elsewhere, and the request."""
    request = gateway_pb2.SignedChaincodeEventsRequest.FromString(octets).request
    return ChaincodeFeed("", "", None), request


def read_block_request(kind: str, octets: Octets) -> tuple[BlockFeed, Octets]:
    """The same for blocks."""
    return BlockFeed(kind, "", None), common_pb2.Envelope.FromString(octets).payload


def stream_error(caller: Caller, failure: Failure) -> GatewayError:
    return caller.error(GatewayError, "the stream of events ended", failure)


def goes_on(error: GatewayError, feed: Feed[Any], broken_for_s: float, reconnect_s: float) -> bool:
    """Is a broken stream to be opened again?"""
    again = error.retryable or error.code in ("INTERNAL", "UNKNOWN")
    return again and feed.resumable and broken_for_s < reconnect_s


def pauses() -> Callable[[], float]:
    """Seconds to wait before the next try; longer from one to the next."""
    wait_s = 0.05

    def pause() -> float:
        nonlocal wait_s
        wait_s = min(RECONNECT_PAUSE_S_MAX, wait_s * 2)
        return wait_s

    return pause


def _message(kind: Any, response: Octets) -> Any:
    try:
        return kind.FromString(response)
    except DecodeError as error:
        raise GatewayError(
            f"the stream of events ended: what the peer sent cannot be read: {error}", code="DATA_LOSS"
        ) from error


def _whole(block: Any, kind: str) -> Any:
    return block.block if kind == "block_and_private_data" else block


def _refused(channel: str, status: int) -> FabricError:
    name = common_pb2.Status.Name(status) if status in common_pb2.Status.values() else str(status)
    advice = {
        "FORBIDDEN": "this identity may not read the channel's blocks: check its MSP id and certificate, "
        "and, with mutual TLS, that the gateway was given the TLS certificate of its connection",
        "NOT_FOUND": f"this peer has no channel {channel}, or no such block",
        "BAD_REQUEST": "the request was not accepted: check this machine's clock and, with mutual TLS, that "
        "the gateway was given the TLS certificate of its connection",
    }.get(name, "the peer is going down or not up yet")
    codes = {"FORBIDDEN": "PERMISSION_DENIED", "NOT_FOUND": "NOT_FOUND", "BAD_REQUEST": "INVALID_ARGUMENT"}
    return GatewayError(
        f"no more blocks of channel {channel}: {name}: {advice}",
        code=codes.get(name, "UNAVAILABLE"),
        status_message=name,
        retryable=name == "SERVICE_UNAVAILABLE",
    )

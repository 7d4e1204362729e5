"""What became of many transactions, learned from one stream of filtered blocks a channel.

Asking the gateway for each transaction's commit status holds one of its 500 places for as long as the
transaction takes, and costs a signature on either side. A stream of filtered blocks names every transaction
of every block, and is served from another place (``deliverService``).

No block is missed: the stream begins with the last block there is (which also shows that it is open), a
transaction is looked out for before it is submitted, and a stream that breaks goes on behind the last block
seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.flows import Caller, Verdict

DELIVER_FILTERED = "/protos.Deliver/DeliverFiltered"
STALL_S = 10.0
"""Whoever waits, and no block came for so long: the stream is opened anew, in case it is dead without
knowing.
"""
RECONNECT_S_MAX = 1.0

FINAL = (common_pb2.BAD_REQUEST, common_pb2.FORBIDDEN, common_pb2.NOT_FOUND)
FINAL_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "INVALID_ARGUMENT")

Waiter = TypeVar("Waiter")


class StreamRefused(Exception):
    """The peer does not give this identity the channel's filtered blocks; asking again would not help."""


class Watch(Generic[Waiter]):
    """Who waits for which transaction, and up to where the blocks of the channel are seen. Does no I/O.

    Waiters are held weakly: one that nobody holds on to any more vanishes by itself.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.next_block: int | None = None
        self._waiters: WeakValueDictionary[str, Waiter] = WeakValueDictionary()

    def add(self, transaction_id: str, waiter: Waiter) -> None:
        self._waiters[transaction_id] = waiter

    def waiters(self) -> list[Waiter]:
        return [waiter for held in self._waiters.valuerefs() if (waiter := held()) is not None]

    def request(self, caller: Caller) -> bytes:
        """The payload to sign for the stream from where this one has come to."""
        start = messages.seek_newest() if self.next_block is None else messages.seek(self.next_block)
        return messages.deliver_payload(
            caller.identity.serialized,
            self.channel,
            start,
            now_ns=caller.now_ns(),
            tls_certificate_hash=caller.tls_certificate_hash,
        )

    def take(self, response: bytes) -> Iterator[tuple[Waiter, Verdict]]:
        """Read one message of the stream: who is to be told what."""
        try:
            message = events_pb2.DeliverResponse.FromString(response)
        except DecodeError as error:
            raise StreamRefused(f"what the peer sent cannot be read: {error}") from error
        if message.WhichOneof("Type") == "status":
            if message.status in FINAL:
                raise StreamRefused(common_pb2.Status.Name(message.status))
            return
        block = message.filtered_block
        number = block.number
        for transaction in block.filtered_transactions:
            waiter = self._waiters.pop(transaction.txid, None)
            if waiter is not None:
                yield waiter, Verdict(transaction.tx_validation_code, number)
        self.next_block = number + 1

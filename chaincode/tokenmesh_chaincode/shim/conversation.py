"""One invocation's talk with the peer: a question and its answer at a time, and writes that go together.

A peer drops a second question of an invocation while the first is open, so a lock lets one at a time through,
whatever threads a chaincode starts. Writes are kept back until the chaincode has returned: they then cost one
message, and an invocation that is refused has written nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from fabric_protos.peer import chaincode_shim_pb2 as shim

from .errors import PeerError, StreamEnded

Message: Any = shim.ChaincodeMessage
WRITE_BATCH_BYTES_MAX = 16 * 2**20
"""Writes kept back are sent on when they reach this size, or the peer's own limit of their number."""


@dataclass
class Abilities:
    """What the peer of a stream offers. Fabric 2.5 offers nothing of it."""

    keys_max: int = 0
    """Keys that one question may ask for; 0: one by one."""
    writes_max: int = 0
    """Writes that one message may hold; 0: one by one."""
    message_bytes_max: int = 0
    answer_wait_s_max: float = 0.0


class Conversation:
    """The question, its answer, and the writes of one invocation."""

    def __init__(
        self, tx_id: str, channel_id: str, abilities: Abilities, send: Callable[[bytes], None]
    ) -> None:
        self.tx_id = tx_id
        self.channel_id = channel_id
        self.abilities = abilities
        self.closing: bytes | None = None  # the last message, sent when the peer has taken the writes
        self._send = send
        self._lock = threading.Lock()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._ended = ""
        self._writes: Any = None
        self._write_bytes = 0

    def ask(self, kind: int, payload: bytes) -> bytes:
        """Ask the peer, and wait for what it says."""
        with self._lock:
            return self._ask(kind, payload)

    def _ask(self, kind: int, payload: bytes) -> bytes:
        if self._ended:
            raise StreamEnded(self._ended)
        self.tell(self.message(kind, payload))
        try:
            answer = self._answers.get(timeout=self.abilities.answer_wait_s_max)
        except Empty:
            self._ended = f"the peer has not answered within {self.abilities.answer_wait_s_max:g} s"
            raise StreamEnded(self._ended) from None
        if answer is None:
            self._ended = "the peer's stream has ended"
            raise StreamEnded(self._ended)
        if answer.type == Message.ERROR:
            raise PeerError(answer.payload.decode(errors="replace"))
        return bytes(answer.payload)

    def message(self, kind: int, payload: bytes) -> bytes:
        message = Message(type=kind, payload=payload, txid=self.tx_id, channel_id=self.channel_id)
        return bytes(message.SerializeToString())

    def tell(self, message: bytes) -> None:
        """Send it."""
        self.check(message)
        self._send(message)

    def check(self, message: bytes) -> None:
        """Refuse a message that no peer would take: there it would end the stream and all on it."""
        if len(message) > self.abilities.message_bytes_max:
            raise PeerError(
                f"a message of {len(message)} bytes is over the limit of {self.abilities.message_bytes_max}"
            )

    def answer(self, message: Any) -> None:
        """What the peer says (None: nothing any more). Called by the stream's reader."""
        self._answers.put(message)

    def finish(self) -> bytes | None:
        """The invocation is over. The message with its last writes, if there are any.

        A peer that takes no batches has them already.
        """
        with self._lock:
            taken = self._take_writes()
            self._ended = self._ended or "the invocation is over"
        return self.message(*taken[0]) if taken else None

    def write(self, kind: int, key: str, value: bytes = b"", collection: str = "", metakey: str = "") -> None:
        """Keep a write back, or send all of them on if there are too many."""
        if not key:
            raise ValueError("a key cannot be empty")
        with self._lock:
            if self._ended:
                raise StreamEnded(self._ended)
            if self._writes is None:
                self._writes = shim.WriteBatchState()
            if metakey:
                metadata = shim.StateMetadata(metakey=metakey, value=value)
                self._writes.rec.add(type=kind, key=key, collection=collection, metadata=metadata)
            else:
                self._writes.rec.add(type=kind, key=key, collection=collection, value=value)
            self._write_bytes += len(key) + len(value)
            most = self.abilities.writes_max or 1
            if len(self._writes.rec) >= most or self._write_bytes >= WRITE_BATCH_BYTES_MAX:
                for kind_of_message, payload in self._take_writes():
                    self._ask(kind_of_message, payload)

    def _take_writes(self) -> list[tuple[int, bytes]]:
        batch, self._writes, self._write_bytes = self._writes, None, 0
        if batch is None:
            return []
        if self.abilities.writes_max:
            return [(Message.WRITE_BATCH_STATE, batch.SerializeToString())]
        return [_alone(record) for record in batch.rec]


def _alone(record: Any) -> tuple[int, bytes]:
    """The write as a message of its own, for peers before Fabric 3.1."""
    where = {"key": record.key, "collection": record.collection}
    if record.type == shim.WriteRecord.PUT_STATE:
        return Message.PUT_STATE, shim.PutState(**where, value=record.value).SerializeToString()
    if record.type == shim.WriteRecord.PUT_STATE_METADATA:
        written = shim.PutStateMetadata(**where, metadata=record.metadata)
        return Message.PUT_STATE_METADATA, written.SerializeToString()
    if record.type == shim.WriteRecord.PURGE_PRIVATE_DATA:
        return Message.PURGE_PRIVATE_DATA, shim.PurgePrivateState(**where).SerializeToString()
    return Message.DEL_STATE, shim.DelState(**where).SerializeToString()

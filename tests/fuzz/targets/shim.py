"""The chaincode server against bytes that no peer would send: HTTP/2's frames, headers, gRPC's messages.

A connection ends by HTTP/2's rules or goes on; nothing escapes, nothing waits for ever, and what was held
for it is let go.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar, Final

import hpack
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2
from fuzz.chance import Chance
from fuzz.target import Target

from tokenmesh_chaincode.shim import Options
from tokenmesh_chaincode.shim.frames import PREFACE, frame, prefixed, split
from tokenmesh_chaincode.shim.http2 import Connection
from tokenmesh_chaincode.shim.stream import Stream

Message: Any = chaincode_shim_pb2.ChaincodeMessage
PATH: Final = "/protos.Chaincode/Connect"
FIELDS: Final = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "x"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
KINDS: Final = tuple(range(10))


class Wire:
    """A connection whose other side has said all it will ever say, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.sent: list[bytes] = []
        self.closed = False

    def settle(self) -> None: ...

    def handshake(self) -> None: ...

    def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def end(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


class AtOnce:
    """Workers that run a job where it is handed in; ``full`` ones take none."""

    def __init__(self, full: bool) -> None:
        self.full = full

    def submit(self, job: Any) -> bool:
        if not self.full:
            job()
        return not self.full


class Shim(Target):
    name: ClassVar[str] = "shim"
    share: ClassVar[int] = 70

    def __init__(self, directory: Path) -> None:
        self.options = Options("label:hash", message_bytes_max=100_000, answer_wait_s_max=0.0)
        self.ran = 0
        block = hpack.Encoder().encode(FIELDS)
        spoken = chaincode_pb2.ChaincodeInput(args=[b"apply", b"x"]).SerializeToString()
        messages = [
            Message(type=Message.REGISTERED),
            Message(
                type=Message.READY, payload=chaincode_pb2.ChaincodeAdditionalParams().SerializeToString()
            ),
            Message(type=Message.TRANSACTION, payload=spoken, txid="tx", channel_id="mesh"),
            Message(type=Message.RESPONSE, payload=b"1", txid="tx", channel_id="mesh"),
            Message(type=Message.KEEPALIVE),
        ]
        self.messages = [one.SerializeToString() for one in messages]
        self.opening = [frame(4, 0, 0), frame(1, 4, 1, block)]
        self.block = block

    def one(self, chance: Chance) -> None:
        frames = list(self.opening)
        for message in self.messages:
            if chance.one_in(4):
                message = chance.spoil(message)  # noqa: PLW2901
            data = prefixed(message)
            frames.append(frame(0, 0, 1, chance.spoil(data) if chance.one_in(6) else data))
        for _ in range(1 + chance.below(4)):
            self.spoil(chance, frames)
        data = (PREFACE if not chance.one_in(16) else chance.spoil(PREFACE)) + b"".join(frames)
        if chance.one_in(4):
            data = chance.spoil(data)
        wire: Any = Wire(pieces(chance, data))
        streams: list[Stream] = []

        def open_stream(send: Any) -> Stream:
            workers: Any = AtOnce(full=chance.one_in(16))
            streams.append(Stream(self.work, self.options, workers, send))
            return streams[-1]

        connection = Connection(wire, PATH, open_stream, self.options.message_bytes_max)
        connection.run()
        assert wire.closed
        assert not connection._streams
        found, rest = split(b"".join(wire.sent))
        assert not rest, "what was sent are whole frames"
        assert all(one.kind in KINDS for one in found)

    def work(self, stub: Any) -> bytes:
        """A chaincode that asks the peer something, and is not answered."""
        self.ran += 1
        stub.get_state("a")
        raise AssertionError("nobody has answered")

    def spoil(self, chance: Chance, frames: list[bytes]) -> None:
        at = chance.below(len(frames) + 1)
        way = chance.below(7)
        if way == 0 and at < len(frames):
            frames[at] = chance.spoil(frames[at])
        elif way == 1 and at < len(frames):
            frames.insert(at, frames[at])
        elif way == 2 and at < len(frames):
            del frames[at]
        elif way == 3:
            frames.insert(at, frame(1, chance.below(64), chance.below(9), chance.spoil(self.block)))
        elif way == 4:
            number = struct.pack(">L", chance.pick((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
            frames.insert(at, frame(8, 0, chance.below(3), number))
        elif way == 5:
            settings = struct.pack(">HL", chance.below(9), chance.pick((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
            frames.insert(at, frame(4, chance.below(2), chance.below(2), settings * (1 + chance.below(3))))
        else:
            kind: Any = chance.below(12)
            frames.insert(at, frame(kind, chance.below(256), chance.below(5), chance.bytes(40)))


def pieces(chance: Chance, data: bytes) -> list[bytes]:
    """The bytes as they arrive: all at once, or cut anywhere."""
    found = []
    while data:
        size = len(data) if chance.one_in(3) else 1 + chance.below(len(data))
        found.append(data[:size])
        data = data[size:]
    return found

"""HTTP/2's frames and gRPC's messages in them (RFC 9113, gRPC over HTTP/2): built and taken apart."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = struct.Struct(">BHBBL")
HEADER_BYTES = HEADER.size
FRAME_BYTES_MAX = 16_384
"""The largest payload of a frame that we take, and that every peer takes."""
PREFIX_BYTES = 5
"""gRPC puts a flag (compressed or not) and the length before every message."""
WINDOW_DEFAULT = 65_535
WINDOW_MAX = 2**31 - 1


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    """Flags of frames; plain numbers, as an enumeration's operators cost more than all else of a frame."""

    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 0x20


class Setting(IntEnum):
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Status(IntEnum):
    """gRPC's statuses, as far as a chaincode server answers with them."""

    OK = 0
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14


class ProtocolError(Exception):
    """The other side broke HTTP/2's rules: the connection ends, with this code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning, and what is left of the next."""
    found = []
    at, end = 0, len(data)
    while end - at >= HEADER_BYTES:
        high, low, kind, flags, stream = HEADER.unpack_from(data, at)
        length = high << 16 | low
        if length > FRAME_BYTES_MAX:
            raise ProtocolError(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        start = at + HEADER_BYTES
        if end - start < length:
            break
        at = start + length
        found.append(Frame(kind, flags, stream & WINDOW_MAX, data[start:at]))
    return found, data[at:]


def unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority."""
    if flags & Flag.PADDED:
        if not payload or payload[0] >= len(payload):
            raise ProtocolError(Code.PROTOCOL_ERROR, "more padding than frame")
        payload = payload[1 : len(payload) - payload[0]]
    if kind == Kind.HEADERS and flags & Flag.PRIORITY:
        payload = payload[5:]
    return payload


def settings(values: dict[Setting, int]) -> bytes:
    payload = b"".join(struct.pack(">HL", name, value) for name, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    if len(payload) % 6:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, "settings of an odd length")
    return struct.iter_unpack(">HL", payload)


def number(payload: bytes) -> int:
    """What RST_STREAM and WINDOW_UPDATE carry."""
    if len(payload) != 4:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, "a number of the wrong length")
    return int.from_bytes(payload, "big") & WINDOW_MAX


def window_update(stream: int, by: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, by.to_bytes(4, "big"))


def headers(stream: int, fields: Iterable[tuple[str, str]], *, last: bool = False) -> bytes:
    """A HEADERS frame. Its fields are few, so they go as they are: no table has to be kept for them."""
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    flags = Flag.END_HEADERS | (Flag.END_STREAM if last else 0)
    return frame(Kind.HEADERS, flags, stream, block)


def prefixed(message: bytes) -> bytes:
    """The message as gRPC sends it, uncompressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _text(text: str) -> bytes:
    encoded = text.encode("ascii")
    assert len(encoded) < 127, "a field of ours is short, so its length is one byte"
    return bytes([len(encoded)]) + encoded

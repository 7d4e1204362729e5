"""gRPC's server side on one connection: as much of HTTP/2 as a stream of chaincode messages needs.

Written for cost: a general gRPC server hands every message through several threads, which takes more time
than all else that a chaincode does. Here the thread that reads a connection takes messages in, and the thread
that has a message to send writes it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import hpack

from . import frames
from .errors import BadMessage
from .frames import (
    FRAME_BYTES_MAX,
    PREFIX_BYTES,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Code,
    Flag,
    Frame,
    Kind,
    ProtocolError,
    Setting,
    Status,
)
from .wire import Wire

STREAMS_MAX = 16
"""Open streams on one connection. A peer opens one."""
HEADER_BLOCK_BYTES_MAX = 64 * 1024
WINDOW = 2**30
"""What a peer may send ahead: much more than it ever has under way, so it never waits for us."""
REPLENISH = WINDOW // 2

log = logging.getLogger("tokenmesh.chaincode")


class Receiver(Protocol):
    """What takes the messages of one stream."""

    def begin(self) -> None: ...

    def receive(self, data: bytes) -> None: ...

    def end(self) -> None: ...


Open = Callable[[Callable[[bytes], None]], Receiver]
"""Makes the receiver of a new stream out of the way to send on it."""


class Connection:
    """One connection. :meth:`run` is the thread that reads; everything else may be called by any."""

    def __init__(self, wire: Wire, path: str, open_stream: Open, message_bytes_max: int) -> None:
        self._wire = wire
        self._path = path
        self._open_stream = open_stream
        self._message_bytes_max = message_bytes_max
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._last_stream = 0
        self._window = WINDOW_DEFAULT  # what we may still send on the connection
        self._stream_window = WINDOW_DEFAULT  # and on a new stream
        self._taken = 0  # bytes received since the peer was last told that it may go on
        self._decoder = hpack.Decoder(max_header_list_size=HEADER_BLOCK_BYTES_MAX)
        self._block: tuple[int, int, bytearray] | None = None  # headers that are not complete yet

    def run(self) -> None:
        """Serve until either side ends it."""
        try:
            self._wire.handshake()
            self._talk()
        except ProtocolError as error:
            log.warning("a connection was ended, as the other side broke HTTP/2's rules: %s", error)
            self._goaway(error.code)
        except OSError as error:
            log.warning("a connection was not taken: %s", error)
        finally:
            self._end_all()
            self._wire.close()

    def stop(self) -> None:
        """End all streams and the connection."""
        for number in self._end_all():
            self._wire.send(_trailers(number, Status.UNAVAILABLE, "the chaincode server ends"))
        self._goaway(Code.NO_ERROR)
        self._wire.end()

    def send(self, stream: _Stream, message: bytes) -> None:
        """Send a message on a stream, now or as soon as the peer has room for it."""
        data = frames.prefixed(message)
        size = len(data)
        with self._lock:
            if stream.number not in self._streams:
                return
            if stream.waiting or size > min(self._window, stream.window, FRAME_BYTES_MAX):
                stream.waiting.append(memoryview(data))
                self._pump(stream)
                return
            self._window -= size
            stream.window -= size
            self._wire.send(frames.frame(Kind.DATA, 0, stream.number, data))

    def _pump(self, stream: _Stream) -> None:
        """Send what the windows allow. The caller holds the lock."""
        out = []
        while stream.waiting and (room := min(self._window, stream.window, FRAME_BYTES_MAX)) > 0:
            data = stream.waiting[0]
            piece = data[:room]
            self._window -= len(piece)
            stream.window -= len(piece)
            out.append(frames.frame(Kind.DATA, 0, stream.number, bytes(piece)))
            if len(piece) == len(data):
                stream.waiting.popleft()
            else:
                stream.waiting[0] = data[len(piece) :]
        if out:
            self._wire.send(b"".join(out))

    def _talk(self) -> None:
        data = b""
        while len(data) < len(frames.PREFACE):
            more = self._wire.receive()
            if not more:
                return
            data += more
        if not data.startswith(frames.PREFACE):
            raise ProtocolError(Code.PROTOCOL_ERROR, "this is not HTTP/2")
        self._wire.settle()
        ours = {Setting.MAX_CONCURRENT_STREAMS: STREAMS_MAX, Setting.INITIAL_WINDOW_SIZE: WINDOW}
        self._wire.send(frames.settings(ours) + frames.window_update(0, WINDOW - WINDOW_DEFAULT))
        data = data[len(frames.PREFACE) :]
        while True:
            found, rest = frames.split(data)
            for frame in found:
                self._take(frame)
            more = self._wire.receive()
            if not more:
                return
            data = rest + more if rest else more

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if self._block is not None and kind != Kind.CONTINUATION:
            raise ProtocolError(Code.PROTOCOL_ERROR, "headers are not continued")
        if kind == Kind.DATA:
            self._data(frame)
        elif kind == Kind.WINDOW_UPDATE:
            self._widen(frame.stream, frames.number(frame.payload))
        elif kind == Kind.PING:
            if not frame.flags & Flag.ACK:
                self._wire.send(frames.frame(Kind.PING, Flag.ACK, 0, frame.payload))
        elif kind == Kind.SETTINGS:
            self._settings(frame)
        elif kind in (Kind.HEADERS, Kind.CONTINUATION):
            self._headers(frame)
        elif kind == Kind.RST_STREAM:
            self._end(frame.stream)
        elif kind == Kind.PUSH_PROMISE:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a client cannot push")

    def _data(self, frame: Frame) -> None:
        self._taken += len(frame.payload)
        stream = self._streams.get(frame.stream)
        if stream is not None:
            stream.taken += len(frame.payload)
            for message in stream.messages(
                frames.unpadded(*frame[:2], frame.payload), self._message_bytes_max
            ):
                self._hand_over(stream, message)
            if frame.flags & Flag.END_STREAM:
                self._wire.send(_trailers(frame.stream, Status.OK, ""))
                self._end(frame.stream)
            elif stream.taken >= REPLENISH:
                self._wire.send(frames.window_update(frame.stream, stream.taken))
                stream.taken = 0
        elif frame.stream == 0 or frame.stream > self._last_stream:
            raise ProtocolError(Code.PROTOCOL_ERROR, "data without a stream")
        if self._taken >= REPLENISH:
            self._wire.send(frames.window_update(0, self._taken))
            self._taken = 0

    @staticmethod
    def _hand_over(stream: _Stream, message: bytes) -> None:
        try:
            stream.receiver.receive(message)
        except BadMessage as error:
            raise ProtocolError(Code.PROTOCOL_ERROR, str(error)) from error

    def _widen(self, number: int, by: int) -> None:
        with self._lock:
            if number == 0:
                self._window += by
                streams = list(self._streams.values())
            else:
                stream = self._streams.get(number)
                if stream is None:
                    return
                stream.window += by
                streams = [stream]
            if by == 0 or max(self._window, *(stream.window for stream in streams), 0) > WINDOW_MAX:
                raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window that cannot be")
            for stream in streams:
                self._pump(stream)

    def _settings(self, frame: Frame) -> None:
        if frame.flags & Flag.ACK:
            return
        with self._lock:
            for name, value in frames.read_settings(frame.payload):
                if name == Setting.INITIAL_WINDOW_SIZE:
                    if value > WINDOW_MAX:
                        raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window that cannot be")
                    for stream in self._streams.values():
                        stream.window += value - self._stream_window
                    self._stream_window = value
            for stream in self._streams.values():
                self._pump(stream)
        self._wire.send(frames.frame(Kind.SETTINGS, Flag.ACK, 0))

    def _headers(self, frame: Frame) -> None:
        if frame.kind == Kind.HEADERS:
            first = frames.unpadded(frame.kind, frame.flags, frame.payload)
            self._block = (frame.stream, frame.flags, bytearray(first))
        elif self._block is None or self._block[0] != frame.stream:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a continuation of nothing")
        else:
            self._block[2].extend(frame.payload)
        number, flags, block = self._block
        if len(block) > HEADER_BLOCK_BYTES_MAX:
            raise ProtocolError(Code.ENHANCE_YOUR_CALM, "too many headers")
        if not frame.flags & Flag.END_HEADERS:
            return
        self._block = None
        try:
            fields = {str(name): str(value) for name, value in self._decoder.decode(bytes(block))}
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise ProtocolError(Code.COMPRESSION_ERROR, "headers that cannot be read") from error
        if number in self._streams:  # trailers: gRPC's clients send none
            self._end(number)
        elif number % 2 == 0 or number <= self._last_stream:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a stream's number that cannot be")
        else:
            self._last_stream = number
            self._open(number, fields, ended=bool(flags & Flag.END_STREAM))

    def _open(self, number: int, fields: dict[str, str], *, ended: bool) -> None:
        if len(self._streams) >= STREAMS_MAX:
            self._reset(number, Code.REFUSED_STREAM)
        elif not fields.get("content-type", "").startswith("application/grpc"):
            self._wire.send(frames.headers(number, [(":status", "415")], last=True))
        elif fields.get(":path") != self._path or fields.get(":method") != "POST":
            self._wire.send(_refusal(number, Status.UNIMPLEMENTED, "this server serves chaincode only"))
        elif ended:
            self._wire.send(_refusal(number, Status.OK, ""))
        else:
            stream = _Stream(number, self._stream_window)
            stream.receiver = self._open_stream(lambda message: self.send(stream, message))
            self._wire.send(
                frames.headers(number, [(":status", "200"), ("content-type", "application/grpc")])
            )
            with self._lock:
                self._streams[number] = stream
            stream.receiver.begin()

    def _end(self, number: int) -> None:
        with self._lock:
            stream = self._streams.pop(number, None)
        if stream is not None:
            stream.receiver.end()

    def _end_all(self) -> list[int]:
        with self._lock:
            numbers = list(self._streams)
        for number in numbers:
            self._end(number)
        return numbers

    def _reset(self, number: int, code: Code) -> None:
        self._wire.send(frames.frame(Kind.RST_STREAM, 0, number, code.to_bytes(4, "big")))

    def _goaway(self, code: Code) -> None:
        about = self._last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
        self._wire.send(frames.frame(Kind.GOAWAY, 0, 0, about))


class _Stream:
    """One stream: what may be sent, what waits to be sent, and the message that is coming in."""

    receiver: Receiver

    def __init__(self, number: int, window: int) -> None:
        self.number = number
        self.window = window
        self.waiting: deque[memoryview] = deque()
        self.taken = 0
        self._partial = bytearray()

    def messages(self, data: bytes, bytes_max: int) -> list[bytes]:
        """The messages that are whole with this data."""
        if not self._partial and len(data) >= PREFIX_BYTES and _size(data, bytes_max) == len(data):
            return [data[PREFIX_BYTES:]]
        partial = self._partial
        partial += data
        found = []
        while len(partial) >= PREFIX_BYTES and len(partial) >= (size := _size(partial, bytes_max)):
            found.append(bytes(partial[PREFIX_BYTES:size]))
            del partial[:size]
        return found


def _size(data: bytes | bytearray, bytes_max: int) -> int:
    """The size of a message with its prefix."""
    if data[0]:
        raise ProtocolError(Code.PROTOCOL_ERROR, "a compressed message, which nobody offered to read")
    length = int.from_bytes(data[1:PREFIX_BYTES], "big")
    if length > bytes_max:
        raise ProtocolError(Code.ENHANCE_YOUR_CALM, f"a message of {length} bytes; {bytes_max} is the most")
    return PREFIX_BYTES + length


def _trailers(stream: int, status: Status, message: str) -> bytes:
    return frames.headers(stream, [("grpc-status", str(int(status))), ("grpc-message", message)], last=True)


def _refusal(stream: int, status: Status, message: str) -> bytes:
    fields = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", str(int(status))),
        ("grpc-message", message),
    ]
    return frames.headers(stream, fields, last=True)

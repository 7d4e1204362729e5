"""The bytes of one connection, with or without TLS: read by one thread, written by any.

A write never waits for the peer: what the socket does not take at once is written by a thread that lives as
long as something is left. So the thread that reads goes on reading, and neither side can block the other.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections import deque

READ_BYTES = 256 * 1024
BACKLOG_BYTES_MAX = 256 * 2**20
"""So much may wait for a peer that does not read; past it the connection ends."""
HANDSHAKE_S_MAX = 10.0
PROTOCOL = "h2"

log = logging.getLogger("tokenmesh.chaincode")


class Wire:
    """A connected socket. After :meth:`close`, or when the other side is gone, reading gives ``b""``."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext | None = None) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.settimeout(HANDSHAKE_S_MAX)
        self._socket = connected
        self._lock = threading.Lock()
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._flushing = False
        self._broken = False
        self._ended = False
        self._ready = context is None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True) if context else None

    def settle(self) -> None:
        """The other side has shown what it is: from now on it may be silent for as long as it likes."""
        self._socket.settimeout(None)

    def handshake(self) -> None:
        """Agree on TLS and HTTP/2. ``OSError`` if the other side wants neither, or takes too long."""
        if self._tls is None:
            return
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise ConnectionError("the other side hung up within the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                self._socket.sendall(self._outgoing.read())  # the alert that says why
                raise
            else:
                break
        self._socket.sendall(self._outgoing.read())
        if self._tls.selected_alpn_protocol() != PROTOCOL:
            raise ConnectionError("the other side does not speak HTTP/2")
        self._ready = True

    def receive(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        try:
            if self._tls is None:
                return self._socket.recv(READ_BYTES)
            while not (data := self._decrypted()):
                if self._ended:
                    return b""
                sealed = self._socket.recv(READ_BYTES)
                if not sealed:
                    return b""
                with self._lock:
                    self._incoming.write(sealed)
        except (OSError, ssl.SSLZeroReturnError) as error:
            log.debug("a connection ended: %s", type(error).__name__)
            return b""
        return data

    def _decrypted(self) -> bytes:
        assert self._tls is not None
        parts = []
        with self._lock:
            try:
                while part := self._tls.read(READ_BYTES):
                    parts.append(part)
                self._ended = True  # nothing, and nothing more wanted: the other side has closed TLS
            except ssl.SSLWantReadError:
                pass  # all of what has come so far is read
            if self._outgoing.pending:
                self._put(self._outgoing.read())
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Write it, now or behind what waits. Before TLS is agreed, or once it is broken, nothing happens."""
        with self._lock:
            if self._broken or not self._ready:
                return
            if self._tls is not None:
                try:
                    self._tls.write(data)
                except ssl.SSLError:  # the other side has ended it
                    self._break()
                    return
                data = self._outgoing.read()
            self._put(data)

    def _put(self, data: bytes) -> None:
        written = 0
        if not self._backlog:
            try:
                written = self._socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                written = 0
            except OSError:
                self._break()
                return
        if written < len(data):
            self._backlog.append(memoryview(data)[written:])
            self._backlog_bytes += len(data) - written
            if self._backlog_bytes > BACKLOG_BYTES_MAX:
                log.warning("a peer does not read: its connection is ended")
                self._break()
            elif not self._flushing:
                self._flushing = True
                threading.Thread(target=self._flush, name="chaincode-flush", daemon=True).start()

    def _flush(self) -> None:
        while True:
            with self._lock:
                if not self._backlog or self._broken:
                    self._flushing = False
                    return
                data = self._backlog[0]
            try:
                self._socket.sendall(data)
            except OSError:
                with self._lock:
                    self._break()
                continue
            with self._lock:
                if self._backlog:
                    self._backlog.popleft()
                    self._backlog_bytes -= len(data)

    def _break(self) -> None:
        self._broken = True
        self._backlog.clear()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever reads or writes wakes up
        except OSError as error:
            log.debug("a connection was gone before it was ended: %s", type(error).__name__)

    def end(self) -> None:
        """Nothing is read or written any more; the thread that reads wakes up."""
        with self._lock:
            if not self._broken:
                self._break()

    def close(self) -> None:
        """Give the socket back, when nobody reads it any more."""
        self.end()
        self._socket.close()

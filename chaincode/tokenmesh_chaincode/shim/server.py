"""The server that peers connect to: a thread for each connection, and threads that run the chaincode."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from .http2 import Connection
from .options import Options
from .stream import Chaincode, Stream
from .wire import PROTOCOL, Wire
from .workers import Workers

PATH = "/protos.Chaincode/Connect"
CONNECTIONS_MAX = 256
"""A peer has one connection for each chaincode; past this number a new one is not taken."""
JOIN_S_MAX = 5.0
ACCEPT_PAUSE_S = 0.1

log = logging.getLogger("tokenmesh.chaincode")


class Server:
    """Serves one chaincode to any number of peers::

    server = Server(chaincode, Options(chaincode_id="label:hash", address="127.0.0.1:0"))
    server.start()
    server.port
    server.stop()
    """

    def __init__(self, chaincode: Chaincode, options: Options) -> None:
        self._chaincode = chaincode
        self._options = options
        self._workers = Workers(options.concurrency_max, options.waiting_max)
        self._listener: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._accepting: threading.Thread | None = None
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on, once :meth:`listen` or :meth:`start` has been called."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    @property
    def address(self) -> str:
        host, _, _ = self._options.address.rpartition(":")
        return f"{host}:{self.port}"

    def listen(self) -> str:
        """Take the port, and give the address: a package names it, and its id is needed to start."""
        if self._listener is None:
            self._tls = _context(self._options)
            self._listener = _listener(self._options.address)
        return self.address

    def start(self, chaincode_id: str | None = None) -> None:
        """Answer to peers, under this id if it was not in the options."""
        if chaincode_id is not None:
            self._options = replace(self._options, chaincode_id=chaincode_id)
        if not self._options.chaincode_id:
            raise ValueError("a chaincode server needs the package's id, as it is known to the peer")
        self.listen()
        self._accepting = threading.Thread(target=self._accept, name="chaincode-accept", daemon=True)
        self._accepting.start()
        log.info("chaincode %s listens on %s", self._options.chaincode_id, self.address)

    def stop(self) -> None:
        """Take nothing new, let what runs end (as long as the options allow), then hang up."""
        if self._listener is None:
            return
        if not self._workers.close(self._options.stop_grace_s):
            log.warning("what still ran after %g s is given up", self._options.stop_grace_s)
        with self._lock:
            self._stopping.set()
            connections = list(self._connections.items())
        for connection, _ in connections:
            connection.stop()
        if self._accepting is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._accepting.join(JOIN_S_MAX)
        self._listener.close()
        self._listener = None
        for _, thread in connections:
            thread.join(JOIN_S_MAX)

    def _accept(self) -> None:
        listener = self._listener
        assert listener is not None
        while not self._stopping.is_set():
            try:
                connected, _ = listener.accept()
            except OSError as error:
                if not self._stopping.wait(ACCEPT_PAUSE_S):  # no file left, as a rule: it passes
                    log.warning("a connection could not be taken: %s", error)
                continue
            self._take(connected)

    def _take(self, connected: socket.socket) -> None:
        connection = Connection(Wire(connected, self._tls), PATH, self._open, self._options.message_bytes_max)
        thread = threading.Thread(target=self._run, args=(connection,), name="chaincode-peer", daemon=True)
        with self._lock:
            taken = not self._stopping.is_set() and len(self._connections) < CONNECTIONS_MAX
            if taken:
                self._connections[connection] = thread
        if taken:
            thread.start()
        else:
            log.warning("a connection was not taken: there are %d, or the server ends", CONNECTIONS_MAX)
            connected.close()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _open(self, send: Callable[[bytes], None]) -> Stream:
        return Stream(self._chaincode, self._options, self._workers, send)


def serve(chaincode: Chaincode, *, options: Options | None = None) -> None:
    """Serve until SIGTERM or SIGINT. For the main thread of a program; options come from the environment."""
    server = Server(chaincode, options or Options.from_environment())
    with _Signals(signal.SIGTERM, signal.SIGINT) as signals:
        server.start()
        signals.wait()
        server.stop()


class _Signals:
    """Waits for one of these signals; for the main thread.

    A handler in Python runs between two steps of the main thread. A signal that arrives just before the
    thread lies down to wait, or in another thread, would be slept through. So the interpreter is told to
    write each signal's number into a socket, which it does at once.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)

    def __enter__(self) -> Self:
        self._descriptor = signal.set_wakeup_fd(self._tell.fileno())
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self._told.close()
        self._tell.close()

    def wait(self) -> None:
        while self._told.recv(1)[0] not in self._numbers:
            continue  # another signal, of which its own handler takes care


def _listener(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"a chaincode server listens on HOST:PORT, not on {address!r}")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=CONNECTIONS_MAX)


def _context(options: Options) -> ssl.SSLContext | None:
    if options.tls_key is None or options.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.tls_certificate, options.tls_key)
    context.set_alpn_protocols([PROTOCOL])
    if options.client_ca_certificate is not None:
        context.load_verify_locations(options.client_ca_certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

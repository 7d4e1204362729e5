"""The server that peers connect to: gRPC, with one writer for each stream.

All of gRPC runs on one event loop in one thread; the chaincode runs in threads of its own (:mod:`.workers`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import grpc.aio

from .options import Options
from .stream import Chaincode, Stream
from .workers import Workers

SERVICE = "protos.Chaincode"
PING_INTERVAL_MS_MIN = 1_000
"""Peers ping once a minute, and may be told to more often; gRPC would hang up on them by default."""
START_WAIT_S_MAX = 10.0

T = TypeVar("T")
log = logging.getLogger(__name__)


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that it listens on, once :meth:`listen` or :meth:`start` has been called."""
        return self._port

    @property
    def address(self) -> str:
        host, _, _ = self._options.address.rpartition(":")
        return f"{host}:{self._port}"

    def listen(self) -> str:
        """Take the port, and give the address: a package names it, and its id is needed to start."""
        if self._server is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="chaincode-server", daemon=True
            )
            self._thread.start()
            try:
                self._server = self._await(self._listen())
            except BaseException:
                self._end_loop()
                raise
        return self.address

    def start(self, chaincode_id: str | None = None) -> None:
        """Answer to peers, under this id if it was not in the options."""
        if chaincode_id is not None:
            self._options = replace(self._options, chaincode_id=chaincode_id)
        if not self._options.chaincode_id:
            raise ValueError("a chaincode server needs the package's id, as it is known to the peer")
        self.listen()
        assert self._server is not None
        self._await(self._server.start())
        log.info("chaincode %s listens on %s", self._options.chaincode_id, self.address)

    def stop(self) -> None:
        """Take nothing new, let what runs end (as long as the options allow), then hang up."""
        if self._server is None:
            return
        self._workers.close(self._options.stop_grace_s)
        self._await(self._server.stop(grace=0))
        self._server = None
        self._end_loop()

    async def _listen(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=_channel_options(self._options))
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Connect": handler}),)
        )
        credentials = _credentials(self._options)
        address = self._options.address
        try:
            if credentials is None:
                self._port = server.add_insecure_port(address)
            else:
                self._port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {address}: another program does, or it is no address here"
            ) from error
        return server

    async def _connect(self, _: Any, context: Any) -> None:
        """One peer's stream, until either side ends it."""
        outbox = _Outbox(asyncio.get_running_loop())
        stream = Stream(self._chaincode, self._options, self._workers, outbox.put)
        writer = asyncio.create_task(outbox.drain(context))
        stream.register()
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                stream.receive(data)
        finally:
            stream.end()
            writer.cancel()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(START_WAIT_S_MAX)

    def _end_loop(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Outbox:
    """Messages of any thread, written by one task: two writers on a stream would lose some."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._asleep = False

    def put(self, message: bytes) -> None:
        self._messages.append(message)
        if self._asleep:  # else the writer will come by here anyway, and waking it costs a system call
            self._asleep = False
            self._loop.call_soon_threadsafe(self._wake.set)

    async def drain(self, context: Any) -> None:
        while True:
            while self._messages:
                await context.write(self._messages.popleft())
            self._wake.clear()
            self._asleep = True
            if self._messages:  # one came while we lay down, and did not wake us
                self._asleep = False
                continue
            await self._wake.wait()


def serve(chaincode: Chaincode, *, options: Options | None = None) -> None:
    """Serve until SIGTERM or SIGINT. For the main thread of a program; options come from the environment."""
    server = Server(chaincode, options or Options.from_environment())
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        server.start()
        asked.wait()
        server.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _channel_options(options: Options) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.so_reuseport", 0),
    ]


def _credentials(options: Options) -> grpc.ServerCredentials | None:
    if options.tls_key is None or options.tls_certificate is None:
        return None
    pair = (options.tls_key.read_bytes(), options.tls_certificate.read_bytes())
    authority = options.client_ca_certificate
    return grpc.ssl_server_credentials(
        [pair], authority.read_bytes() if authority else None, require_client_auth=authority is not None
    )

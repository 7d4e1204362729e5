"""The wire of the lossy scoreboard: a proxy on loopback that loses responses, copies requests, or uses a
payment for another request; for ``lossy.py``.

It knows nothing of any system but the name of the header that carries a payment. A response is lost after
all of it came from the payee: the caller's connection is closed instead. Which responses are lost follows
from the seed, the request and how many of its kind there were before, so the same calls meet the same fate
on every system, however their threads are scheduled.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tokenmesh.cli.demo.wire import BAD_GATEWAY, HEAD_BYTES_MAX, Message, WireError, read_message
from tokenmesh_benchmarks.lossy_cases import other

RESPONSE_S_MAX = 300.0
BACKLOG = 1024

Lose = Callable[[str, int], bool]
"""Whether the response to a request is lost, by the request and how many like it there were, from 1."""


def nothing(_request: str, _nth: int) -> bool:
    """Lose nothing."""
    return False


def coin(seed: int, loss: float) -> Lose:
    """Lose a part of all responses."""

    def lose(request: str, nth: int) -> bool:
        return random.Random(f"{seed} {request} {nth}").random() < loss

    return lose


def first_of(path: str) -> Lose:
    """Lose the first response to each request to ``path``: no two bodies are one request."""

    def lose(request: str, nth: int) -> bool:
        return nth == 1 and request.split(" ")[1] == path

    return lose


class LossyWire:
    """One wire to the server at ``upstream``, on a thread of its own. Use it with ``with``."""

    def __init__(
        self,
        upstream: int,
        *,
        payment: str = "",
        lose: Lose = nothing,
        copies: int = 1,
        diverted: bool = False,
    ) -> None:
        """``payment`` is the header of a payment, lower case. Only paid requests are copied or diverted."""
        self._upstream = upstream
        self._payment = payment
        self._lose = lose
        self._copies = copies
        self._diverted = diverted
        self._seen: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lossy-wire", daemon=True)
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lost = 0
        self.went_out: Counter[str] = Counter()
        """Responses of success that the server gave to paid requests, by path."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, host="127.0.0.1", port=0, limit=HEAD_BYTES_MAX, backlog=BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            while await self._pass_one(reader, writer):
                pass
        except (WireError, OSError, asyncio.CancelledError):
            return
        finally:
            self._callers.discard(task)
            writer.close()

    async def _pass_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await read_message(reader)
        if request is None:
            return False
        response = await self._deliver(request)
        if response is None:
            writer.write(BAD_GATEWAY)
            await writer.drain()
            return False
        kind = self._kind(request)
        self._seen[kind] += 1
        if self._lose(kind, self._seen[kind]):
            self.lost += 1
            return False
        writer.write(response.head + response.body)
        await writer.drain()
        return request.keep_alive and response.keep_alive

    def _paid(self, request: Message) -> bool:
        value = request.headers.get(self._payment)
        return value is not None and (self._payment != "authorization" or value.startswith("Payment "))

    def _kind(self, request: Message) -> str:
        paid = "paid" if self._paid(request) else "unpaid"
        return f"{request.start} {paid} {hashlib.sha256(request.body).hexdigest()}"

    async def _deliver(self, request: Message) -> Message | None:
        """Bring the request to the server, with what else the case asks for; the response for the caller."""
        if not self._paid(request):
            return await self._ask(request)
        if self._diverted:
            method, path, version = request.start.split(" ")
            start = f"{method} {other(path)} {version}".encode("latin-1")
            rest = request.head.split(b"\r\n", 1)[1]
            await self._ask_paid(request._replace(head=start + b"\r\n" + rest))
        responses = await asyncio.gather(*(self._ask_paid(request) for _ in range(self._copies)))
        good = [one for one in responses if one is not None and one.status == 200]
        return (good or responses)[0]

    async def _ask_paid(self, request: Message) -> Message | None:
        response = await self._ask(request)
        if response is not None and response.status == 200:
            self.went_out[request.start.split(" ")[1]] += 1
        return response

    async def _ask(self, request: Message) -> Message | None:
        """One request on a connection of its own; None if the server gave no response."""
        with suppress(OSError, WireError, TimeoutError):
            async with asyncio.timeout(RESPONSE_S_MAX):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._upstream, limit=HEAD_BYTES_MAX
                )
                try:
                    writer.write(request.head + request.body)
                    return await read_message(reader, response_to=request.start.split(" ")[0])
                finally:
                    writer.close()
        return None

"""The wire between the services: an HTTP proxy in front of each, which loses one response in twenty.

A request goes through whole and its response is waited for; then, if the seeded coin says so, the caller's
connection is closed without it. That is the nastiest fault there is for a payment: the work was done, the
payer does not know. While a service is down, callers get 502, as from any reverse proxy.

The wire is also the demo's neutral witness. For each response it writes one note: who called whom
under which contract, what came back, whether it was lost. The auditor compares these notes with the ledger.

It runs as a process of its own (``python -m tokenmesh.cli.demo.wire CONFIG``) and needs nothing but asyncio.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.notes import Notes

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 16 * 1024 * 1024
CONNECT_S_MAX = 2.0
RESPONSE_S_MAX = 30.0

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Route(NamedTuple):
    """One service: callers connect to ``listen``, the service itself listens on ``upstream``."""

    service: str
    listen: int
    upstream: int


class Message(NamedTuple):
    """One HTTP/1.1 message, as it was on the wire."""

    head: bytes
    body: bytes
    headers: dict[str, str]
    keep_alive: bool

    @property
    def start(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.start.split(" ")[1])


class WireError(Exception):
    """A peer closed in the middle of a message, or sent something that is not HTTP/1.1."""


async def read_message(reader: asyncio.StreamReader, *, response_to: str | None = None) -> Message | None:
    """Read one whole request, or the whole response to a request of method ``response_to``.

    None at a clean end of the stream. Lengths follow RFC 9112, section 6.3.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise WireError("the stream ended within a head") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise WireError(f"a head above {HEAD_BYTES_MAX} bytes") from error
    if len(head.split(b" ", 2)) < 3:
        raise WireError("not a head of HTTP/1.1")
    headers = _headers(head)
    body = await _read_body(reader, head, headers, response_to)
    closes = headers.get("connection", "").lower() == "close" or head.split(b"\r\n", 1)[0].endswith(b"/1.0")
    return Message(head, body, headers, keep_alive=not closes)


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


async def _read_body(
    reader: asyncio.StreamReader, head: bytes, headers: dict[str, str], response_to: str | None
) -> bytes:
    if response_to is not None and (response_to == "HEAD" or head.split(b" ", 2)[1] in {b"204", b"304"}):
        return b""
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await _read_chunks(reader)
        if "content-length" in headers:
            length = int(headers["content-length"])
            if not 0 <= length <= BODY_BYTES_MAX:
                raise WireError(f"a body of {length} bytes")
            return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise WireError("the stream ended within a body") from error
    return b"" if response_to is None else await reader.read()


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    raw = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        raw += line
        if not 0 <= size <= BODY_BYTES_MAX - len(raw):
            raise WireError("a chunked body that is too large")
        raw += await reader.readexactly(size + 2) if size else await reader.readuntil(b"\r\n")
        if not size:
            return bytes(raw)


def claims_of(token: str | None) -> dict[str, Any]:
    """The claims of a signed document, unchecked: a witness notes what it saw, it does not judge."""
    if token is None:
        return {}
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


class Wire:
    """All routes of one mesh. ``write`` notes each request that went through."""

    def __init__(
        self,
        routes: list[Route],
        *,
        seed: int,
        loss: float,
        write: Callable[..., object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routes = routes
        self._loss = loss
        self._write = write
        self._clock = clock
        # A coin for each service: what one of them loses does not depend on how busy the others are.
        self._coins = {route.service: seeded(seed, route.service) for route in routes}
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for route in self._routes:
            server = await asyncio.start_server(
                partial(self._serve, route),
                host="127.0.0.1",
                port=route.listen,
                limit=HEAD_BYTES_MAX,
                backlog=1024,
            )
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller's connection: requests one after the other, until either side has enough."""
        try:
            while await self._pass_one(route, reader, writer):
                pass
        except (WireError, OSError):
            return  # the caller went away or speaks something else: there is nobody left to tell
        finally:
            writer.close()

    async def _pass_one(
        self, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        request = await read_message(reader)
        if request is None:
            return False
        began = self._clock()
        response: Message | None = None
        # A service that was killed leaves no response: the caller gets 502.
        with suppress(OSError, WireError, TimeoutError):
            response = await self._ask(route.upstream, request)
        lost = response is not None and self._coins[route.service].random() < self._loss
        self._note(route, request, response, began, lost)
        if response is None:
            writer.write(BAD_GATEWAY)
        elif not lost:
            writer.write(response.head + response.body)
        await writer.drain()
        return response is not None and not lost and request.keep_alive and response.keep_alive

    async def _ask(self, port: int, request: Message) -> Message:
        async with asyncio.timeout(CONNECT_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_BYTES_MAX)
        try:
            writer.write(request.head + request.body)
            async with asyncio.timeout(RESPONSE_S_MAX):
                response = await read_message(reader, response_to=request.start.split(" ")[0])
        finally:
            writer.close()
        if response is None:
            raise WireError("the service closed without a response")
        return response

    def _note(
        self, route: Route, request: Message, response: Message | None, began: float, lost: bool
    ) -> None:
        contract = claims_of(request.headers.get("token-contract"))
        receipt = response.headers.get("token-receipt") if response else None
        method, target = request.start.split(" ")[:2]
        self._write(
            t=round(began, 3),
            service=route.service,
            request=f"{method} {target.partition('?')[0]}",
            payer=contract.get("iss"),
            jti=contract.get("jti"),
            status=response.status if response else 502,
            ms=round((self._clock() - began) * 1000, 2),
            lost=lost,
            receipt=receipt,
        )


async def run(config: dict[str, Any]) -> None:
    """Run until SIGTERM. ``config``: routes, seed, loss, and the file to write to."""
    wire = Wire(
        [Route(*route) for route in config["routes"]],
        seed=config["seed"],
        loss=config["loss"],
        write=Notes(Path(config["log"])).write,
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await wire.start()
    await stopped.wait()
    await wire.stop()


if __name__ == "__main__":
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))

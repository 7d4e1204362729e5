"""The lossy wire: whole requests go through, some responses do not, and every one is noted."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable

import httpx
import pytest

from support.servers import free_port
from tokenmesh.cli.demo.wire import Route, Wire, claims_of

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def upstream(response: bytes, seen: list[bytes]) -> Handler:
    """A server that keeps each request's body and answers with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        seen.append(await reader.readexactly(length))
        writer.write(response)
        await writer.drain()
        writer.close()

    return serve


def through_wire(
    handler: Handler | None, requests: Callable[[httpx.AsyncClient], Awaitable[None]], loss: float = 0.0
) -> list[dict[str, object]]:
    """Run ``requests`` against ``handler`` through a wire; what the wire noted."""
    notes: list[dict[str, object]] = []
    route = Route("ad", free_port(), free_port())

    async def main() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", route.upstream) if handler else None
        wire = Wire([route], seed=7, loss=loss, write=lambda **note: notes.append(note))
        await wire.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{route.listen}") as client:
            await requests(client)
        await wire.stop()
        if server is not None:
            server.close()

    asyncio.run(main())
    return notes


def token(claims: dict[str, object]) -> str:
    return f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.sig"


def test_a_request_and_its_response_go_through_whole() -> None:
    """Body, status, headers and chunked bodies arrive as sent, several on one connection."""
    seen: list[bytes] = []
    head = b"HTTP/1.1 201 Made\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"

    async def requests(client: httpx.AsyncClient) -> None:
        for number in range(3):
            response = await client.post("/ads?q=1", content=b"x" * number)
            assert (response.status_code, response.text, response.headers["x-a"]) == (201, "abcde", "b")

    notes = through_wire(upstream(chunked, seen), requests)
    assert seen == [b"", b"x", b"xx"]
    assert [(note["request"], note["status"], note["lost"]) for note in notes] == [
        ("POST /ads", 201, False)
    ] * 3


def test_a_lost_response_reached_the_service() -> None:
    """Loss means: the service did the work and answered, the caller sees its connection closed."""
    seen: list[bytes] = []

    async def requests(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/ads", content=b"work")

    notes = through_wire(
        upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", seen), requests, loss=1.0
    )
    assert seen == [b"work"]
    assert notes[0]["lost"] is True
    assert notes[0]["status"] == 200


def test_the_same_seed_loses_the_same_responses() -> None:
    """About one in four at a loss of 1/4, and the very same ones in a second run."""

    async def requests(client: httpx.AsyncClient) -> None:
        for _ in range(100):
            try:
                await client.get("/")
            except httpx.RemoteProtocolError:
                continue

    handler = upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", [])
    first, second = ([note["lost"] for note in through_wire(handler, requests, loss=0.25)] for _ in range(2))
    assert first == second
    assert 10 < first.count(True) < 45


def test_a_dead_service_is_a_bad_gateway() -> None:
    """Nobody listens behind the wire: callers get 502 at once, and the wire notes it."""

    async def requests(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 502

    notes = through_wire(None, requests, loss=1.0)
    assert [(note["status"], note["lost"]) for note in notes] == [(502, False)]


def test_the_wire_notes_contract_and_receipt() -> None:
    """A note carries payer, contract id and tokens of the request, and the receipt of the response."""
    receipt = token({"jti": "c1", "out": "fulfilled", "tok": 3})
    response = f"HTTP/1.1 200 OK\r\nToken-Receipt: {receipt}\r\ncontent-length: 0\r\n\r\n".encode()

    async def requests(client: httpx.AsyncClient) -> None:
        await client.get("/", headers={"Token-Contract": token({"iss": "shopper", "jti": "c1"})})

    (note,) = through_wire(upstream(response, []), requests)
    assert (note["payer"], note["jti"], note["receipt"]) == ("shopper", "c1", receipt)


@pytest.mark.parametrize("text", [None, "", "no dots", "a.%%%.c", "a.bm90IGpzb24.c", "a.W10.c"])
def test_what_is_not_a_document_has_no_claims(text: str | None) -> None:
    """The witness notes what it can read and never fails over what it cannot."""
    assert claims_of(text) == {}


def test_garbage_ends_the_connection_only() -> None:
    """Bytes that are not HTTP close that connection; the wire goes on serving others."""

    async def requests(client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"garbage\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert (await client.get("/")).status_code == 200

    notes = through_wire(upstream(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", []), requests)
    assert len(notes) == 1

"""FastAPI: what is answered for a handler that raised has its receipt, and is what a retry gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.errors import ServerErrorMiddleware

from support.exchanges import Reply, over_asgi
from support.payee import Payee
from tokenmesh.decorators import priced
from tokenmesh_chaincode import documents

Make = Callable[..., FastAPI]


class Boom(Exception):
    """What the handler raises."""


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path)
    yield payee
    payee.close()


@pytest.fixture
def make(payee: Payee) -> Make:
    """Makes applications whose handler raises."""

    def make(**options: Any) -> FastAPI:
        app = FastAPI(**options)

        @app.get("/boom")
        @priced(tokens=5, mesh=payee)
        def boom() -> str:
            raise Boom

        @app.get("/free")
        def free() -> str:
            raise Boom

        return app

    return make


def send(app: FastAPI, contract: str, target: str = "/boom") -> Reply:
    """One request, as a server makes it: what is raised after the response is the log's affair."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(Boom):
            await app(scope, receive, send)

    return over_asgi(server, "GET", target, headers=[("Token-Contract", contract)])


def check(payee: Payee, contract: str, reply: Reply, body: bytes) -> None:
    assert reply.body == body
    receipt = payee.receipt(reply.header("Token-Receipt") or "")
    assert (receipt.out, receipt.tok, receipt.status) == ("void", 0, reply.status)
    assert receipt.dig == documents.digest(body)
    assert payee.state(contract) == "void"
    assert payee.used() == 0


def replayed(app: FastAPI, contract: str) -> Reply:
    return over_asgi(app, "GET", "/boom", headers=[("Token-Contract", contract)])


def test_the_framework_s_own_page(make: Make, payee: Payee) -> None:
    app, contract = make(), payee.contract("GET /boom")
    first = send(app, contract)
    check(payee, contract, first, b"Internal Server Error")
    assert replayed(app, contract) == first


def test_a_page_of_the_application_s_own(make: Make, payee: Payee) -> None:
    """Whatever its status is: the work was not done."""
    for status in (200, 503):
        app, contract = make(), payee.contract("GET /boom")
        seen: list[Exception] = []

        @app.exception_handler(Exception)
        async def page(_: Request, error: Exception, status: int = status, seen: Any = seen) -> Response:
            seen.append(error)
            return JSONResponse({"sorry": "it broke"}, status, {"X-Sorry": "yes"})

        first = send(app, contract)
        assert isinstance(seen[0], Boom)
        assert (first.status, first.header("X-Sorry")) == (status, "yes")
        check(payee, contract, first, b'{"sorry":"it broke"}')
        assert replayed(app, contract) == first


def test_a_page_that_streams(make: Make, payee: Payee) -> None:
    """It has no receipt in its headers, as no stream has; a retry gets one."""
    app, contract = make(), payee.contract("GET /boom")

    @app.exception_handler(Exception)
    def page(_: Request, error: Exception) -> Response:
        return StreamingResponse(iter([b"it ", b"broke"]), 500)

    first = send(app, contract)
    assert first.body == b"it broke"
    check(payee, contract, replayed(app, contract), b"it broke")


def test_the_page_for_developers(make: Make, payee: Payee) -> None:
    app, contract = make(debug=True), payee.contract("GET /boom")
    first = send(app, contract)
    assert b"Boom" in first.body
    check(payee, contract, first, first.body)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_middleware_that_makes_the_page(make: Make, payee: Payee, compressed: bool) -> None:
    """If it is compressed on its way, it goes out without a receipt, which would be for another body."""
    app, contract = make(), payee.contract("GET /boom")

    @app.middleware("http")
    async def catch(request: Request, call_next: Any) -> Response:
        try:
            return await call_next(request)  # type: ignore[no-any-return]
        except Boom:
            return Response(b"caught " * 99, 500)

    if compressed:
        app.add_middleware(GZipMiddleware, minimum_size=10)
    headers = [("Token-Contract", contract), ("Accept-Encoding", "gzip")]
    first = over_asgi(app, "GET", "/boom", headers=headers)
    if compressed:
        assert (first.status, first.header("Token-Receipt")) == (500, None)
        assert payee.state(contract) == "void"
    else:
        check(payee, contract, first, b"caught " * 99)


def test_no_page_at_all(make: Make, payee: Payee) -> None:
    """A page that raises itself leaves nothing open."""
    app, contract = make(), payee.contract("GET /boom")

    @app.exception_handler(Exception)
    def page(_: Request, error: Exception) -> Response:
        raise Boom

    async def server(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(Boom):
            await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"of the server"})

    first = over_asgi(server, "GET", "/boom", headers=[("Token-Contract", contract)])
    assert (first.body, first.headers) == (b"of the server", [])
    assert payee.state(contract) == "void"
    assert replayed(app, contract).status == 500


def test_applications_mounted_in_one_another(make: Make, payee: Payee) -> None:
    outer = FastAPI()
    outer.mount("/inner", make())
    contract = payee.contract("GET /inner/boom")
    first = send(outer, contract, "/inner/boom")
    check(payee, contract, first, b"Internal Server Error")


def test_what_is_free_is_as_it_was(make: Make, payee: Payee) -> None:
    app, contract = make(), payee.contract("GET /boom")
    reply = send(app, contract, "/free")
    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    assert reply.header("Token-Receipt") is None
    assert payee.state(contract) is None


def test_the_outermost_middleware_is_still_the_framework_s(make: Make, payee: Payee) -> None:
    """Tools that look for it find it; an application without prices has the very same."""
    app, plain = make(), FastAPI()
    assert isinstance(app.build_middleware_stack(), ServerErrorMiddleware)
    assert type(plain.build_middleware_stack()) is ServerErrorMiddleware

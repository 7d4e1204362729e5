"""FastAPI: the adapter passes what every adapter must, and what is FastAPI's own."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
)
from fastapi.exceptions import ResponseValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from frameworks.framework_suite import LARGE, PIECES, FrameworkSuite, Handled
from pydantic import BaseModel
from starlette.endpoints import HTTPEndpoint

from support.exchanges import Reply, asgi, over_asgi
from support.payee import Payee
from tokenmesh.decorators import charge, current_contract, priced
from tokenmesh.errors import ServingError, TokenmeshError
from tokenmesh_chaincode import documents

STREAMS_GENERATORS = pytest.mark.skipif(
    find_spec("fastapi.sse") is None, reason="this FastAPI does not stream what a generator endpoint yields"
)


class Item(BaseModel):
    name: str


class Pages(BaseModel):
    pages: int | None = None


class TestFastAPI(FrameworkSuite):
    def request(self, app: Any, method: str, target: str, **options: Any) -> Reply:
        return over_asgi(app, method, target, **options)

    @contextmanager
    def serve(self, app: Any) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            try:
                yield listening.getsockname()[1]
            finally:
                server.should_exit = True
                thread.join()

    def build(self, price: Callable[..., Any], ran: Counter[str]) -> FastAPI:
        app = FastAPI(title="quotes")
        app.add_exception_handler(Handled, lambda *_: PlainTextResponse("handled"))
        app.add_exception_handler(TokenmeshError, lambda *_: PlainTextResponse("caught", 418))
        self.add_quotes(app, price, ran)
        self.add_jobs(app, price, ran)
        self.add_failures(app, price, ran)
        self.add_streams(app, price, ran)
        self.add_shapes(app, price)
        self.add_classes(app, price)
        return app

    def add_quotes(self, app: FastAPI, price: Callable[..., Any], ran: Counter[str]) -> None:
        suite = self

        @app.get("/quote/{symbol}")
        @price(tokens=5)
        def quote(symbol: str) -> dict[str, str]:
            ran["/quote"] += 1
            return {"symbol": symbol}

        @app.get("/cheap")
        @price(tokens=1)
        def cheap() -> str:
            ran["/cheap"] += 1
            suite.now_running()
            return "cheap"

        @app.get("/async/{n}")
        @price(tokens=5)
        async def asynchronous(n: int) -> dict[str, int]:
            ran["/async"] += 1
            return {"n": n}

        @app.get("/sized/{n:int}")
        @price(tokens=lambda request: request.params["n"])
        async def sized(n: int) -> int:
            ran["/sized"] += 1
            return n

        @app.get("/probe", response_class=PlainTextResponse)
        @price(tokens=5, exempt_when=lambda request: request.native.headers.get("X-Probe"))
        async def probe() -> str:
            return "probed"

        @app.get("/free", response_class=PlainTextResponse)
        @price(tokens=0)
        async def free() -> str:
            charge(0)
            return "free"

        @app.get("/contract", response_class=PlainTextResponse)
        @price(tokens=5)
        def contract() -> str:
            running = current_contract()
            assert running is not None
            return running.jti

        @app.get("/named")
        @price(tokens=5, operation="naming")
        async def named() -> str:
            return "named"

        @app.get("/plain", response_class=PlainTextResponse)
        async def plain() -> str:
            return "plain"

    def add_jobs(self, app: FastAPI, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.post("/other")
        @price(tokens=5)
        async def other(request: Request) -> Response:
            ran["/other"] += 1
            return Response(await request.body())

        @app.post("/form", response_class=PlainTextResponse)
        @price(tokens=5)
        def form(name: Annotated[str, Form()]) -> str:
            return name

        @app.post("/render")
        @price(up_to=50)
        async def render(pages: Pages) -> str:
            ran["/render"] += 1
            if pages.pages is not None:
                charge(2 * pages.pages)
            return "rendered"

        @app.post("/job")
        @price(up_to=50, via="hold", fulfilled_when=lambda response: response.status_code == 201)
        async def job(request: Request) -> Response:
            ran["/job"] += 1
            return Response("done", 200 if await request.body() else 201)

        @app.get("/large")
        @price(tokens=5)
        async def large() -> Response:
            ran["/large"] += 1
            return Response(LARGE)

    def add_failures(self, app: FastAPI, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.get("/error")
        @price(tokens=5)
        def error() -> str:
            ran["/error"] += 1
            raise ZeroDivisionError

        @app.get("/missing")
        @price(tokens=5)
        async def missing() -> str:
            ran["/missing"] += 1
            raise HTTPException(404)

        @app.get("/handled")
        @price(tokens=5)
        async def handled() -> str:
            ran["/handled"] += 1
            raise Handled

    def add_streams(self, app: FastAPI, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.get("/stream")
        @price(tokens=5)
        async def stream() -> Response:
            ran["/stream"] += 1
            return StreamingResponse(iter(PIECES), media_type="text/plain")

        @app.get("/endless")
        @price(tokens=5)
        async def endless() -> Response:
            async def flow() -> AsyncIterator[str]:
                while True:
                    yield "more\n"
                    await asyncio.sleep(0)  # a chance for the server to notice who has gone

            return StreamingResponse(flow())

        @app.get("/broken")
        @price(tokens=5)
        def broken() -> Response:
            def flow() -> Iterator[bytes]:
                yield PIECES[0]
                raise ZeroDivisionError

            return StreamingResponse(flow())

    def add_shapes(self, app: FastAPI, price: Callable[..., Any]) -> None:
        @app.get("/shapes/{name}")
        @price(tokens=5)
        def shapes(name: str, response: Response) -> Any:
            if name == "created":
                response.status_code = 201
                response.headers["Location"] = "/shapes/made"
                response.headers["X-Own"] = "yes"
                return {"made": True}
            if name == "cookies":
                response.set_cookie("a", "1", httponly=True)
                response.set_cookie("b", "2")
                return "with cookies"
            if name == "empty":
                return Response(status_code=204)
            if name == "redirect":
                return RedirectResponse("/plain", 303)
            return Response(b"in two", media_type="application/octet-stream")

    def add_classes(self, app: FastAPI, price: Callable[..., Any]) -> None:
        class Item:
            @price(tokens=3)
            def get(self, name: str) -> str:
                return f"got {name}"

            @price(tokens=3)
            async def post(self, name: str) -> str:
                return f"posted {name}"

        item = Item()
        app.add_api_route("/item/{name}", item.get, methods=["GET"], response_class=PlainTextResponse)
        app.add_api_route("/item/{name}", item.post, methods=["POST"], response_class=PlainTextResponse)
        deeper = APIRouter()

        @deeper.get("/{path:path}", response_class=PlainTextResponse)
        @price(tokens=2)
        def deep(path: str) -> str:
            return path

        outer = APIRouter(prefix="/v1")
        outer.include_router(deeper, prefix="/deep")
        app.include_router(outer)


class TestOnlyFastAPI:
    """What other frameworks do not have, or have in another way."""

    @pytest.fixture
    def payee(self, tmp_path: Path) -> Iterator[Payee]:
        payee = Payee(tmp_path)
        yield payee
        payee.close()

    @pytest.fixture
    def app(self) -> FastAPI:
        return FastAPI()

    def pay(self, app: Any, payee: Payee, op: str, target: str | None = None, **options: Any) -> Reply:
        method, _, path = op.partition(" ")
        contract = payee.contract(op, target=target, body=options.get("body", b""))
        headers = [*options.pop("headers", ()), ("Token-Contract", contract)]
        return over_asgi(app, method, target or path, headers=headers, **options)

    # Decorators in the wrong order

    def test_decorators_in_the_wrong_order_are_an_error_at_once(self, app: FastAPI, payee: Payee) -> None:
        """The message says how to mend it."""
        with pytest.raises(ServingError, match=r"(?s)quote would be served free.*@priced below"):

            @priced(tokens=5, mesh=payee)
            @app.get("/quote")
            def quote() -> str:
                return "free?"

    def test_a_route_that_kept_the_bare_function_is_found_when_the_application_starts(
        self, payee: Payee
    ) -> None:
        """In included routers and mounted applications too: the server does not start."""

        def quote() -> str:
            return "free?"

        router, inner = APIRouter(), FastAPI()
        router.get("/quote")(quote)
        inner.include_router(router, prefix="/deep")
        app = FastAPI()
        app.mount("/inner", inner)
        priced_quote = priced(tokens=5, mesh=payee)(quote)
        with pytest.raises(ServingError, match="served free"):
            over_asgi(app, "GET", "/inner/deep/quote")
        del priced_quote

    def test_a_function_that_is_free_elsewhere_may_be_priced_here(self, app: FastAPI, payee: Payee) -> None:
        async def quote() -> str:
            return "quote"

        app.get("/free")(quote)
        app.get("/paid")(priced(tokens=5, mesh=payee)(quote))
        assert over_asgi(app, "GET", "/free").json() == "quote"
        assert over_asgi(app, "GET", "/paid").status == 402

    def test_a_websocket_cannot_be_priced(self, app: FastAPI, payee: Payee) -> None:
        async def talk(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(ServingError, match="WebSocket"):
            app.websocket("/talk")(priced(tokens=5, mesh=payee)(talk))

    # FastAPI's own machinery stays as it is

    def test_openapi_is_the_same_but_for_the_price(self, payee: Payee) -> None:
        """Parameters, bodies, responses, names, descriptions; the price stands in ``x-tokens``."""

        def build(price: Callable[..., Any]) -> FastAPI:
            app, router = FastAPI(), APIRouter(prefix="/v1", tags=["quotes"])

            @router.post("/orders/{symbol}", status_code=201, openapi_extra={"x-mine": 1})
            @price(tokens=7)
            async def order(
                symbol: str, item: Item, count: Annotated[int, Query(ge=1)] = 1, key: str = Header("none")
            ) -> Item:
                """Place an order."""
                return item

            @router.get("/orders", summary="All of them", deprecated=True)
            @price(up_to=50)
            def orders(user: Annotated[str, Depends(lambda: "x")]) -> list[Item]:
                return []

            app.include_router(router)
            return app

        bare = build(lambda **_: lambda function: function).openapi()
        said = build(partial(priced, mesh=payee)).openapi()
        assert said["paths"]["/v1/orders/{symbol}"]["post"].pop("x-tokens") == 7
        assert said["paths"]["/v1/orders"]["get"].pop("x-tokens") == {"up_to": 50}
        assert said == bare

    def test_what_does_not_validate_costs_nothing(self, app: FastAPI, payee: Payee) -> None:
        """422 as always, without a receipt; the same contract can be used again."""

        @app.post("/orders/{number}")
        @priced(tokens=5, mesh=payee)
        def order(number: int, item: Item) -> str:
            raise AssertionError("it ran")

        json = ("Content-Type", "application/json")
        for target, body in (("/orders/x", b'{"name": "a"}'), ("/orders/1", b"{}"), ("/orders/1", b"{")):
            contract = payee.contract("POST /orders/{number}", target=target, body=body)
            reply = over_asgi(app, "POST", target, headers=[json, ("Token-Contract", contract)], body=body)
            assert (reply.status, reply.header("Token-Receipt")) == (422, None)
            assert "detail" in reply.json()
            assert payee.state(contract) is None
        assert payee.used() == 0

    def test_what_a_dependency_turns_away_costs_nothing(self, app: FastAPI, payee: Payee) -> None:
        def user(authorization: Annotated[str | None, Header()] = None) -> str:
            if authorization is None:
                raise HTTPException(401, "who are you?")
            return authorization

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        async def quote(user: str = Depends(user)) -> str:
            return user

        assert self.pay(app, payee, "GET /quote").json() == {"detail": "who are you?"}
        assert payee.used() == 0
        assert self.pay(app, payee, "GET /quote", headers=[("Authorization", "Ada")]).json() == "Ada"

    def test_dependencies_with_yield_see_the_end(self, app: FastAPI, payee: Payee) -> None:
        """They are left as always: with a refusal as with an exception."""
        seen: list[str] = []

        async def session() -> AsyncIterator[str]:
            try:
                yield "session"
                seen.append("end")
            except Exception as error:
                seen.append(type(error).__name__)
                raise

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote(session: str = Depends(session)) -> str:
            return session

        contract = payee.terms("GET /quote")
        assert self.send(app, payee.sign(contract)).json() == "session"
        # Refused by the journal, after the dependency: another contract with the same number.
        assert self.send(app, payee.sign(contract._replace(jti="another"))).code == "sequence_used"
        assert seen == ["end", "Refused"]

    def send(self, app: Any, contract: str) -> Reply:
        return over_asgi(app, "GET", "/quote", headers=[("Token-Contract", contract)])

    def test_a_dependency_cannot_turn_a_refusal_into_something_else(self, app: FastAPI, payee: Payee) -> None:
        async def careless() -> AsyncIterator[None]:
            try:
                yield
            except Exception as error:
                raise HTTPException(500, "caught") from error

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote(_: None = Depends(careless)) -> str:
            return "quote"

        contract = payee.terms("GET /quote")
        assert self.send(app, payee.sign(contract)).status == 200
        assert self.send(app, payee.sign(contract._replace(jti="another"))).code == "sequence_used"

    def test_background_tasks_run_after_the_response_and_not_on_replay(
        self, app: FastAPI, payee: Payee
    ) -> None:
        ran: list[str] = []

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote(tasks: BackgroundTasks) -> str:
            tasks.add_task(ran.append, "task")
            return "quote"

        contract = payee.contract("GET /quote")
        assert self.send(app, contract) == self.send(app, contract)
        assert ran == ["task"]

    def test_a_background_task_that_fails_changes_nothing(self, app: FastAPI, payee: Payee) -> None:
        """The work was done and paid for before."""

        def fail() -> None:
            raise ZeroDivisionError

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        async def quote(tasks: BackgroundTasks) -> str:
            tasks.add_task(fail)
            return "quote"

        contract = payee.contract("GET /quote")
        with pytest.raises(ZeroDivisionError):
            self.send(app, contract)
        assert payee.state(contract) == "fulfilled"
        assert self.send(app, contract).json() == "quote"

    def test_a_response_that_does_not_validate_is_void(self, app: FastAPI, payee: Payee) -> None:
        """FastAPI makes a 500 of it, after the handler has run."""

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> Item:
            return {"wrong": 1}  # type: ignore[return-value]

        contract = payee.contract("GET /quote")
        with pytest.raises(ResponseValidationError):
            self.send(app, contract)
        assert payee.state(contract) == "void"

    def test_middlewares_stand_around_it(self, app: FastAPI, payee: Payee) -> None:
        """Compression, say: the receipt is for what the handler gave, and replays are compressed anew."""
        app.add_middleware(GZipMiddleware, minimum_size=10)

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote " * 100

        contract = payee.contract("GET /quote")
        headers = [("Token-Contract", contract), ("Accept-Encoding", "gzip")]
        first, second = (over_asgi(app, "GET", "/quote", headers=headers) for _ in range(2))
        assert first.header("Content-Encoding") == second.header("Content-Encoding") == "gzip"
        body = gzip.decompress(first.body)
        assert gzip.decompress(second.body) == body
        assert payee.receipt(first.header("Token-Receipt") or "").dig == documents.digest(body)

    def test_annotations_that_are_text_are_found(self, app: FastAPI, payee: Payee) -> None:
        """This module's annotations are (``from __future__``): their names are looked up in it."""

        @app.post("/echo")
        @priced(tokens=5, mesh=payee)
        async def echo(item: Item) -> Item:
            return item

        body = b'{"name": "a"}'
        reply = self.pay(app, payee, "POST /echo", body=body, headers=[("Content-Type", "application/json")])
        assert reply.json() == {"name": "a"}
        assert echo.__globals__ is globals()

    # Routes

    def test_mounted_applications(self, app: FastAPI, payee: Payee) -> None:
        """The operation is the whole template; offers are those of the outermost application."""
        inner = FastAPI()

        @inner.get("/quote/{symbol}")
        @priced(tokens=5, mesh=payee)
        def quote(tenant: str, symbol: str) -> str:
            return symbol

        app.mount("/tenants/{tenant}", inner)
        reply = self.pay(app, payee, "GET /tenants/{tenant}/quote/{symbol}", "/tenants/acme/quote/X")
        assert reply.status == 422  # mounts give their parameters to nobody
        offers = over_asgi(app, "GET", "/.well-known/tokenmesh/offers").json()["offers"]
        assert [offer["operation"] for offer in offers] == ["GET /tenants/{tenant}/quote/{symbol}"]

    def test_a_router_included_twice(self, app: FastAPI, payee: Payee) -> None:
        router = APIRouter()

        @router.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote"

        app.include_router(router, prefix="/v1")
        app.include_router(router, prefix="/v2")
        for prefix in ("/v1", "/v2"):
            assert self.pay(app, payee, f"GET {prefix}/quote").json() == "quote"

    def test_starlettes_own_routes(self, app: FastAPI, payee: Payee) -> None:
        """Functions and classes of endpoints, with the HEAD that Starlette adds."""

        class Endpoint(HTTPEndpoint):
            @priced(tokens=5, mesh=payee)
            async def get(self, request: Request) -> Response:
                return PlainTextResponse("got")

            def post(self, request: Request) -> Response:
                return PlainTextResponse("free")

        @priced(tokens=5, mesh=payee)
        def function(request: Request) -> Response:
            return PlainTextResponse("function")

        app.add_route("/class", Endpoint)
        app.add_route("/function", function)
        assert self.pay(app, payee, "GET /class").body == b"got"
        assert self.pay(app, payee, "HEAD /class").status == 200
        assert over_asgi(app, "POST", "/class").body == b"free"
        assert over_asgi(app, "DELETE", "/class").status == 405
        assert self.pay(app, payee, "GET /function").body == b"function"
        assert payee.used() == 15

    def test_a_proxy_that_takes_a_prefix_away(self, app: FastAPI, payee: Payee) -> None:
        """The contract may name the path with the prefix, as the client sent it, or without."""

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote"

        for target in ("/api/quote", "/quote"):
            headers = [("Token-Contract", payee.contract("GET /quote", target=target))]
            assert over_asgi(app, "GET", "/quote", headers=headers, root_path="/api").status == 200

    def test_a_priced_function_runs_nowhere_else(self, app: FastAPI, payee: Payee) -> None:
        """As a dependency, or called from another priced handler, it would be free."""

        @priced(tokens=5, mesh=payee)
        def inner() -> str:
            raise AssertionError("it ran free")

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        async def quote() -> str:
            with pytest.raises(ServingError, match="no request to it"):
                inner()
            return "quote"

        @app.get("/depends")
        def depends(value: str = Depends(inner)) -> str:
            return value

        assert self.pay(app, payee, "GET /quote").json() == "quote"
        with pytest.raises(ServingError, match="no request to it"):
            over_asgi(app, "GET", "/depends")

    # Streams

    @STREAMS_GENERATORS
    def test_streams_of_all_kinds(self, app: FastAPI, payee: Payee, tmp_path: Path) -> None:
        """Sync and async generators, files, and ``charge()`` for each piece."""
        path = tmp_path / "file.bin"
        path.write_bytes(b"x" * 200_000)

        @app.get("/async", response_class=StreamingResponse)
        @priced(up_to=50, mesh=payee)
        async def flow() -> AsyncIterator[bytes]:
            for number in range(1, 4):
                charge(number)
                yield b"piece"

        @app.get("/sync", response_class=StreamingResponse)
        @priced(up_to=50, mesh=payee)
        def pieces() -> Iterator[bytes]:
            for number in range(1, 4):
                charge(number)
                yield b"piece"

        @app.get("/lines")
        @priced(up_to=50, mesh=payee)
        async def lines() -> AsyncIterator[Item]:
            charge(3)
            yield Item(name="a")

        @app.get("/file")
        @priced(up_to=50, mesh=payee)
        def file() -> FileResponse:
            charge(3)
            return FileResponse(path)

        bodies = {
            "/async": b"piece" * 3,
            "/sync": b"piece" * 3,
            "/lines": b'{"name":"a"}\n',
            "/file": path.read_bytes(),
        }
        for target, body in bodies.items():
            contract = payee.contract(f"GET {target}", tok=50)
            before = payee.used()
            reply = over_asgi(app, "GET", target, headers=[("Token-Contract", contract)])
            assert (reply.status, reply.body) == (200, body), target
            assert payee.state(contract) == "fulfilled"
            assert payee.used() - before == 3

    @STREAMS_GENERATORS
    def test_a_refusal_of_a_stream_is_a_whole_response(self, app: FastAPI, payee: Payee) -> None:
        """A generator claims with its first item: until then nothing has gone out."""

        @app.get("/quote", response_class=StreamingResponse)
        @priced(tokens=5, mesh=payee)
        async def quote() -> AsyncIterator[bytes]:
            yield b"piece"

        contract = payee.terms("GET /quote")
        assert self.send(app, payee.sign(contract)).body == b"piece"
        reply = self.send(app, payee.sign(contract._replace(jti="another")))
        assert (reply.status, reply.code, reply.complete) == (402, "sequence_used", True)

    def test_a_cancelled_request_is_void(self, app: FastAPI, payee: Payee) -> None:
        """Servers that cancel what nobody waits for any more: the claim does not stay open."""
        started = asyncio.Event()

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        async def quote() -> str:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError("it went on")

        contract = payee.contract("GET /quote")

        async def main() -> None:
            task = asyncio.create_task(asgi(app, "GET", "/quote", headers=[("Token-Contract", contract)]))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert payee.state(contract) == "void"

    def test_a_client_that_goes_away_while_it_sends(self, app: FastAPI, payee: Payee) -> None:
        @app.post("/quote")
        @priced(tokens=5, mesh=payee)
        async def quote() -> str:
            raise AssertionError("it ran")

        contract = payee.contract("POST /quote", body=b"whole")
        messages = [
            {"type": "http.request", "body": b"wh", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def main() -> None:
            async def receive() -> dict[str, Any]:
                return messages.pop(0)

            async def send(_: Any) -> None:
                raise AssertionError("nobody listens")

            scope = {"type": "http", "method": "POST", "path": "/quote", "query_string": b"", "root_path": ""}
            await app({**scope, "headers": [(b"token-contract", contract.encode())]}, receive, send)

        asyncio.run(main())
        assert payee.journal.stats().claims == 0

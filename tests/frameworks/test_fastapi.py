"""FastAPI: the adapter passes what every adapter must, and what is FastAPI's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel
from starlette.endpoints import HTTPEndpoint

from frameworks.framework_suite import LARGE, PIECES, Case, FrameworkSuite, Handled
from support.exchanges import Reply, over_asgi
from tokenmesh import decorators
from tokenmesh.decorators import charge, current_contract
from tokenmesh.errors import ServingError, TokenmeshError


class Pages(BaseModel):
    pages: int | None = None


class TestFastAPI(FrameworkSuite):
    def request(self, app: Any, method: str, target: str, **options: Any) -> Reply:
        return over_asgi(app, method, target, **options)

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

        @app.get("/endless", response_class=StreamingResponse)
        @price(tokens=5)
        async def endless() -> AsyncIterator[str]:
            while True:
                yield "more\n"

        @app.get("/broken", response_class=StreamingResponse)
        @price(tokens=5)
        def broken() -> Iterator[bytes]:
            yield PIECES[0]
            raise ZeroDivisionError

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

    # FastAPI's own

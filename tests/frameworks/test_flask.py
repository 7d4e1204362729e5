"""Flask: the adapter passes what every adapter must, and what is Flask's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from flask import Blueprint, Flask, Response
from flask.views import MethodView, View
from werkzeug.exceptions import HTTPException

from frameworks.framework_suite import LARGE, PIECES, Case, FrameworkSuite, Handled
from support.exchanges import Reply, over_wsgi
from tokenmesh import decorators
from tokenmesh.decorators import charge, current_contract
from tokenmesh.errors import ServingError, TokenmeshError


class TestFlask(FrameworkSuite):
    def request(self, app: Any, method: str, target: str, **options: Any) -> Reply:
        return over_wsgi(app, method, target, **options)

    def build(self, price: Callable[..., Any], ran: Counter[str]) -> Flask:
        app = Flask("quotes")
        app.register_error_handler(Handled, lambda _: "handled")
        app.register_error_handler(TokenmeshError, lambda _: ("caught", 418))
        self.add_quotes(app, price, ran)
        self.add_jobs(app, price, ran)
        self.add_failures(app, price, ran)
        self.add_streams(app, price, ran)
        self.add_shapes(app, price)
        self.add_classes(app, price, ran)
        return app

    def add_quotes(self, app: Flask, price: Callable[..., Any], ran: Counter[str]) -> None:
        suite = self

        @app.get("/quote/<symbol>")
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

        @app.get("/async/<int:n>")
        @price(tokens=5)
        async def asynchronous(n: int) -> dict[str, int]:
            ran["/async"] += 1
            return {"n": n}

        @app.get("/sized/<int:n>")
        @price(tokens=lambda request: request.params["n"])
        def sized(n: int) -> str:
            ran["/sized"] += 1
            return f"{n}"

        @app.get("/probe")
        @price(tokens=5, exempt_when=lambda request: request.native.headers.get("X-Probe"))
        def probe() -> str:
            return "probed"

        @app.get("/free")
        @price(tokens=0)
        def free() -> str:
            charge(0)
            return "free"

        @app.get("/contract")
        @price(tokens=5)
        def contract() -> str:
            running = current_contract()
            assert running is not None
            return running.jti

        @app.get("/named")
        @price(tokens=5, operation="naming")
        def named() -> str:
            return "named"

        @app.get("/plain")
        def plain() -> str:
            return "plain"

    def add_jobs(self, app: Flask, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.post("/other")
        @price(tokens=5)
        def other() -> bytes:
            ran["/other"] += 1
            return flask.request.stream.read()

        @app.post("/form")
        @price(tokens=5)
        def form() -> str:
            return flask.request.form["name"]

        @app.post("/render")
        @price(up_to=50)
        def render() -> str:
            ran["/render"] += 1
            pages = flask.request.get_json()["pages"]
            if pages is not None:
                charge(2 * pages)
            return "rendered"

        @app.post("/job")
        @price(up_to=50, via="hold", fulfilled_when=lambda response: response.status_code == 201)
        def job() -> tuple[str, int]:
            ran["/job"] += 1
            return "done", 200 if flask.request.data else 201

        @app.get("/large")
        @price(tokens=5)
        def large() -> bytes:
            ran["/large"] += 1
            return LARGE

    def add_failures(self, app: Flask, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.get("/error")
        @price(tokens=5)
        def error() -> str:
            ran["/error"] += 1
            raise ZeroDivisionError

        @app.get("/missing")
        @price(tokens=5)
        def missing() -> str:
            ran["/missing"] += 1
            flask.abort(404)

        @app.get("/handled")
        @price(tokens=5)
        def handled() -> str:
            ran["/handled"] += 1
            raise Handled

    def add_streams(self, app: Flask, price: Callable[..., Any], ran: Counter[str]) -> None:
        @app.get("/stream")
        @price(tokens=5)
        def stream() -> Response:
            ran["/stream"] += 1
            return Response(iter(PIECES), mimetype="text/plain")

        @app.get("/endless")
        @price(tokens=5)
        def endless() -> Iterator[str]:
            while True:
                yield "more\n"

        @app.get("/broken")
        @price(tokens=5)
        def broken() -> Iterator[bytes]:
            yield PIECES[0]
            raise ZeroDivisionError

    def add_shapes(self, app: Flask, price: Callable[..., Any]) -> None:
        @app.get("/shapes/<name>")
        @price(tokens=5)
        def shapes(name: str) -> Any:
            if name == "created":
                return {"made": True}, 201, {"Location": "/shapes/made", "X-Own": "yes"}
            if name == "cookies":
                response = flask.make_response("with cookies")
                response.set_cookie("a", "1", httponly=True)
                response.set_cookie("b", "2")
                return response
            if name == "empty":
                return "", 204
            if name == "redirect":
                return flask.redirect("/plain", 303)
            return Response([b"in ", b"two"], content_type="application/octet-stream")

    def add_classes(self, app: Flask, price: Callable[..., Any], ran: Counter[str]) -> None:
        class Item(MethodView):
            @price(tokens=3)
            def get(self, name: str) -> str:
                return f"got {name}"

            @price(tokens=3)
            async def post(self, name: str) -> str:
                return f"posted {name}"

        app.add_url_rule("/item/<name>", view_func=Item.as_view("item"))
        deeper = Blueprint("deeper", __name__)

        @deeper.get("/<path:path>")
        @price(tokens=2)
        def deep(path: str) -> str:
            return path

        outer = Blueprint("outer", __name__, url_prefix="/v1")
        outer.register_blueprint(deeper, url_prefix="/deep")
        app.register_blueprint(outer)

    # Flask's own

"""Flask: the adapter passes what every adapter must, and what is Flask's own."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import flask
import pytest
from flask import Blueprint, Flask, Response
from flask.views import MethodView, View
from frameworks.framework_suite import LARGE, PIECES, FrameworkSuite, Handled
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from support.exchanges import Reply, over_wsgi
from support.payee import Payee
from tokenmesh.decorators import charge, current_contract, priced
from tokenmesh.errors import IdentityError, ServingError, TokenmeshError
from tokenmesh.mesh import Mesh
from tokenmesh_chaincode import documents


class TestFlask(FrameworkSuite):
    def request(self, app: Any, method: str, target: str, **options: Any) -> Reply:
        return over_wsgi(app, method, target, **options)

    @contextmanager
    def serve(self, app: Any) -> Iterator[int]:
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

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


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Requests are not logged in tests."""


class TestOnlyFlask:
    """What other frameworks do not have, or have in another way."""

    @pytest.fixture
    def payee(self, tmp_path: Path) -> Iterator[Payee]:
        payee = Payee(tmp_path)
        yield payee
        payee.close()

    @pytest.fixture
    def app(self) -> Flask:
        return Flask("quotes")

    def pay(self, app: Flask, payee: Payee, op: str, **options: Any) -> Reply:
        method, _, path = op.partition(" ")
        contract = payee.contract(op, body=options.get("body", b""))
        headers = [*options.pop("headers", ()), ("Token-Contract", contract)]
        return over_wsgi(app, method, path, headers=headers, **options)

    def test_decorators_in_the_wrong_order_are_an_error_at_once(self, app: Flask, payee: Payee) -> None:
        """The message says how to mend it."""
        with pytest.raises(ServingError, match=r"(?s)quote would be served free.*@priced below"):

            @priced(tokens=5, mesh=payee)
            @app.get("/quote")
            def quote() -> str:
                return "free?"

    def test_with_another_decorator_between_too(self, app: Flask, payee: Payee) -> None:
        def logged(function: Callable[..., str]) -> Callable[..., str]:
            @functools.wraps(function)
            def wrapper() -> str:
                return function()

            return wrapper

        pages = Blueprint("pages", __name__)
        with pytest.raises(ServingError, match="served free"):

            @priced(tokens=5, mesh=payee)
            @logged
            @pages.get("/quote")
            def quote() -> str:
                return "free?"

    def test_a_function_that_is_free_elsewhere_may_be_priced_here(self, app: Flask, payee: Payee) -> None:
        """The same function in two applications, one of them free, is no mistake."""

        def quote() -> str:
            return "quote"

        free = Flask("free")
        free.add_url_rule("/quote", view_func=quote)
        app.add_url_rule("/quote", view_func=priced(tokens=5, mesh=payee)(quote))
        assert over_wsgi(free, "GET", "/quote").body == b"quote"
        assert over_wsgi(app, "GET", "/quote").status == 402

    def test_a_route_that_kept_the_bare_function_is_found_when_the_application_starts(
        self, app: Flask, payee: Payee
    ) -> None:
        def quote() -> str:
            return "free?"

        app.add_url_rule("/quote", view_func=quote)
        app.testing = True
        priced_quote = priced(tokens=5, mesh=payee)(quote)
        for _ in range(2):
            with pytest.raises(ServingError, match="served free"):
                over_wsgi(app, "GET", "/quote")
        del priced_quote

    def test_one_request_pays_for_one_handler(self, app: Flask, payee: Payee) -> None:
        """A priced handler called from another would be free, and is an error."""

        @app.get("/inner")
        @priced(tokens=5, mesh=payee)
        def inner() -> str:
            raise AssertionError("it ran free")

        @app.get("/outer")
        @priced(tokens=5, mesh=payee)
        def outer() -> str:
            with pytest.raises(ServingError, match="called from another"):
                inner()
            return "outer"

        assert self.pay(app, payee, "GET /outer").body == b"outer"

    def test_a_decorator_above_sees_what_the_handler_gave(self, app: Flask, payee: Payee) -> None:
        """Not a response made of it already; and what it makes of it is what is stored."""

        def shouting(function: Callable[..., str]) -> Callable[..., str]:
            def wrapper(**values: Any) -> str:  # hides the priced function: no functools.wraps
                return function(**values).upper()

            return wrapper

        app.add_url_rule("/quote", view_func=shouting(priced(tokens=5, mesh=payee)(lambda: "quote")))
        contract = payee.contract("GET /quote")
        for _ in range(2):
            assert over_wsgi(app, "GET", "/quote", headers=[("Token-Contract", contract)]).body == b"QUOTE"
        assert over_wsgi(app, "GET", "/quote").code == "contract_required"

    def test_the_applications_own_functions_run_again_on_a_replay(self, app: Flask, payee: Payee) -> None:
        """Headers that an ``after_request`` function adds stand once, not twice."""
        app.secret_key = "secret"

        @app.before_request
        def before() -> None:
            flask.session["seen"] = "yes"

            @flask.after_this_request
            def mark(response: Response) -> Response:
                response.headers.add("X-Mark", "1")
                return response

        @app.after_request
        def after(response: Response) -> Response:
            response.headers.add("X-After", "1")
            return response

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote"

        contract = payee.contract("GET /quote")
        for _ in range(2):
            reply = over_wsgi(app, "GET", "/quote", headers=[("Token-Contract", contract)])
            assert (reply.body, reply.header("X-Mark"), reply.header("X-After")) == (b"quote", "1", "1")
            assert reply.header("Set-Cookie") is not None

    def test_what_a_before_request_function_refuses_costs_nothing(self, app: Flask, payee: Payee) -> None:
        app.before_request(lambda: ("closed", 403))

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            raise AssertionError("it ran")

        reply = self.pay(app, payee, "GET /quote")
        assert (reply.status, reply.header("Token-Receipt"), payee.used()) == (403, None, 0)

    def test_a_before_request_function_may_read_the_form(self, app: Flask, payee: Payee) -> None:
        """As CSRF protection does. The body's digest is compared all the same."""

        @app.before_request
        def before() -> None:
            assert flask.request.form["name"] == "Ada"

        @app.post("/form")
        @priced(tokens=5, mesh=payee)
        def form() -> str:
            return flask.request.form["name"]

        kind = ("Content-Type", "application/x-www-form-urlencoded")
        assert self.pay(app, payee, "POST /form", body=b"name=Ada", headers=[kind]).body == b"Ada"
        contract = payee.contract("POST /form", body=b"name=Eva")
        reply = over_wsgi(
            app, "POST", "/form", body=b"name=Ada", headers=[kind, ("Token-Contract", contract)]
        )
        assert reply.code == "other_request"

    def test_a_stream_in_the_requests_context(self, app: Flask, payee: Payee) -> None:
        """``stream_with_context``, and ``charge()`` while it flows: each piece can have its price."""

        @app.get("/pages")
        @priced(up_to=50, mesh=payee)
        def pages() -> Response:
            def flow() -> Iterator[str]:
                for number in range(1, 4):
                    charge(number * 10)
                    yield flask.request.path

            return Response(flask.stream_with_context(flow()))

        contract = payee.terms("GET /pages", tok=50)
        reply = over_wsgi(app, "GET", "/pages", headers=[("Token-Contract", payee.sign(contract))])
        assert reply.body == b"/pages" * 3
        assert payee.used() == 30

    def test_a_file(self, app: Flask, payee: Payee, tmp_path: Path) -> None:
        """Sent as it is without tokenmesh, ranges too; fulfilled at its end."""
        path = tmp_path / "file.bin"
        path.write_bytes(bytes(range(256)) * 100)

        @app.get("/file")
        @priced(tokens=5, mesh=payee)
        def file() -> Response:
            return flask.send_file(path)

        whole, part = (
            self.pay(app, payee, "GET /file", headers=headers) for headers in ([], [("Range", "bytes=10-19")])
        )
        assert (whole.status, whole.body) == (200, path.read_bytes())
        assert (part.status, part.body) == (206, path.read_bytes()[10:20])
        assert payee.used() == 10

    def test_head_and_options(self, app: Flask, payee: Payee) -> None:
        """A HEAD that runs the handler is a call like any other; OPTIONS, which does not, is free."""
        ran = []

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            ran.append(flask.request.method)
            return "quote"

        assert over_wsgi(app, "OPTIONS", "/quote").status == 200
        assert over_wsgi(app, "HEAD", "/quote").status == 402
        reply = self.pay(app, payee, "HEAD /quote")
        assert (reply.status, reply.body, reply.header("Content-Length")) == (200, b"", "5")
        assert payee.receipt(reply.header("Token-Receipt") or "").dig == documents.digest(b"")
        assert ran == ["HEAD"]

    @pytest.mark.parametrize("keeps", [True, False], ids=["a list", "no list"])
    def test_a_receipt_of_the_handlers_own_does_not_stand(
        self, app: Flask, payee: Payee, monkeypatch: pytest.MonkeyPatch, keeps: bool
    ) -> None:
        """Whether or not werkzeug keeps headers in a list that can be added to."""
        if not keeps:
            monkeypatch.setattr("tokenmesh.frameworks.flask.LIST", "somewhere_else")

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> Response:
            return Response("quote", headers={"token-receipt": "mine"})

        @app.get("/other")
        @priced(tokens=5, mesh=payee)
        def other() -> str:
            return "quote"

        for path in ("/quote", "/other"):
            reply = self.pay(app, payee, f"GET {path}")
            assert payee.receipt(reply.header("Token-Receipt") or "").out == "fulfilled"

    def test_class_based_views(self, app: Flask, payee: Payee) -> None:
        """Priced as a whole by ``decorators``, by ``dispatch_request``, or method by method."""

        class Whole(MethodView):
            decorators: ClassVar = [priced(tokens=1, mesh=payee)]

            def get(self) -> str:
                return "whole"

        class Dispatched(View):
            @priced(tokens=2, mesh=payee)
            def dispatch_request(self) -> str:
                return "dispatched"

        class Mixed(MethodView):
            def get(self) -> str:
                return "free"

            @priced(tokens=3, mesh=payee)
            def put(self) -> str:
                return "put"

        for view in (Whole, Dispatched, Mixed):
            app.add_url_rule(f"/{view.__name__}", view_func=view.as_view(view.__name__))
        assert self.pay(app, payee, "GET /Whole").body == b"whole"
        assert self.pay(app, payee, "GET /Dispatched").body == b"dispatched"
        assert self.pay(app, payee, "PUT /Mixed").body == b"put"
        assert over_wsgi(app, "GET", "/Mixed").body == b"free"
        assert payee.used() == 6
        offers = over_wsgi(app, "GET", "/.well-known/tokenmesh/offers").json()["offers"]
        assert {(offer["operation"], offer["tokens"]) for offer in offers if offer["method"] != "HEAD"} == {
            ("GET /Whole", 1),
            ("GET /Dispatched", 2),
            ("PUT /Mixed", 3),
        }

    def test_handlers_that_catch_every_exception(self, app: Flask, payee: Payee) -> None:
        """A refusal passes by them, and by a decorator that catches everything."""

        def careless(function: Callable[..., str]) -> Callable[..., str]:
            @functools.wraps(function)
            def wrapper() -> str:
                try:
                    return function()
                except Exception:
                    return "caught"

            return wrapper

        app.register_error_handler(Exception, lambda _: "caught")
        app.register_error_handler(HTTPException, lambda _: "caught")

        @app.get("/quote")
        @careless
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote"

        assert over_wsgi(app, "GET", "/quote").code == "contract_required"
        assert self.pay(app, payee, "GET /quote").body == b"quote"

    def test_an_application_below_a_prefix(self, app: Flask, payee: Payee) -> None:
        """The contract names the path as the client sent it; the operation is the application's own."""

        @app.get("/quote")
        @priced(tokens=5, mesh=payee)
        def quote() -> str:
            return "quote"

        below = DispatcherMiddleware(lambda *_: [], {"/api": app})
        contract = payee.contract("GET /quote", target="/api/quote")
        assert over_wsgi(below, "GET", "/api/quote", headers=[("Token-Contract", contract)]).body == b"quote"

    def test_a_set_up_that_cannot_work_is_an_error_not_a_refusal(self, app: Flask, tmp_path: Path) -> None:
        """Who deploys it has to see it: there is no such wallet."""
        app.testing = True

        @app.get("/quote")
        @priced(tokens=5, mesh=Mesh("nobody", home=tmp_path))
        def quote() -> str:
            raise AssertionError("it ran")

        with pytest.raises(IdentityError, match="no key for wallet"):
            over_wsgi(app, "GET", "/quote", headers=[("Token-Contract", "x")])

"""What every client must show: httpx, httpx2 (sync and async) and requests, on real sockets.

The payees are real Flask and FastAPI applications with the real provider, journal and ledger.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import fastapi
import flask
import pytest
from fastapi.responses import StreamingResponse

from support.market import PAYEE, PAYER, Market, Payer, Seller
from support.servers import free_port
from support.serving import Cut, serve_asgi, serve_wsgi
from tokenmesh.clients import httpx as httpx_clients
from tokenmesh.clients import requests as requests_clients
from tokenmesh.consumer import CallInfo
from tokenmesh.decorators import charge, priced
from tokenmesh.errors import (
    ConfigError,
    OfferTooHigh,
    OutcomeUnknown,
    ReceiptInvalid,
    Refused,
    Unreachable,
)
from tokenmesh.retry import Policy, never

PIECES = [b"one\n", b"two\n", b"three\n"]


class Kind(NamedTuple):
    """A library, one of its clients, and the framework that it meets: each meets both."""

    library: str
    is_async: bool
    framework: str


class Reply(NamedTuple):
    """What a caller has in hand, whatever its library."""

    status: int
    content: bytes
    info: CallInfo
    native: Any


class Caller:
    """A client of one library, called from a test."""

    def __init__(self, payer: Payer, url: str, kind: Kind, **options: Any) -> None:
        self.library = library = kind.library
        self.is_async = is_async = kind.is_async
        if library == "requests":
            self.native: Any = requests_clients.session(payer, PAYEE, url=url, **options)  # type: ignore[arg-type]
        elif is_async:
            self.native = httpx_clients.async_client(payer, PAYEE, url=url, library=library, **options)  # type: ignore[arg-type]
            self.loop = asyncio.new_event_loop()
        else:
            self.native = httpx_clients.client(payer, PAYEE, url=url, library=library, **options)  # type: ignore[arg-type]

    def __call__(self, method: str, path: str, **options: Any) -> Reply:
        if "body" in options:
            options["data" if self.library == "requests" else "content"] = options.pop("body")
        return self._reply(self.run(self.native.request(method, path, **options)))

    def run(self, result: Any) -> Any:
        return self.loop.run_until_complete(result) if self.is_async else result

    def _reply(self, native: Any) -> Reply:
        info = native.tokenmesh if self.library == "requests" else native.extensions["tokenmesh"]
        return Reply(native.status_code, native.content, info, native)

    def follow(self, method: str, path: str, **options: Any) -> Reply:
        """The same, following redirects."""
        name = "allow_redirects" if self.library == "requests" else "follow_redirects"
        return self(method, path, **{name: True}, **options)

    def stream(self, path: str, *, pieces: int | None = None, **options: Any) -> tuple[list[bytes], CallInfo]:
        """Read a response as a stream; leave it after so many pieces."""
        if self.is_async:
            return self.run(self._astream(path, pieces, options))  # type: ignore[no-any-return]
        if self.library == "requests":
            with self.native.get(path, stream=True, **options) as response:
                return _some(response.iter_content(4), pieces), response.tokenmesh
        with self.native.stream("GET", path, **options) as response:
            return _some(response.iter_raw(), pieces), response.extensions["tokenmesh"]

    async def _astream(
        self, path: str, pieces: int | None, options: dict[str, Any]
    ) -> tuple[list[bytes], CallInfo]:
        found = []
        async with self.native.stream("GET", path, **options) as response:
            async for piece in response.aiter_raw():
                found.append(piece)
                if len(found) == pieces:
                    break
        return found, response.extensions["tokenmesh"]

    def together(self, paths: list[str]) -> list[Reply]:
        """Many requests at once, on one client."""
        if not self.is_async:
            with ThreadPoolExecutor(len(paths)) as pool:
                return list(pool.map(lambda path: self("GET", path), paths))

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self.native.get(path) for path in paths))

        return [self._reply(native) for native in self.run(all_of_them())]

    def close(self) -> None:
        if self.is_async:
            self.run(self.native.aclose())
            self.loop.close()
        else:
            self.native.close()


def _some(pieces: Iterator[bytes], count: int | None) -> list[bytes]:
    found = []
    for piece in pieces:
        found.append(piece)
        if len(found) == count:
            break
    return found


class Shop:
    """The application, what ran in it, and the wire to it."""

    def __init__(self, market: Market, kind: str) -> None:
        self.market = market
        self.seller: Seller = market.seller()
        self.ran: Counter[str] = Counter()
        self.cut = Cut()
        self.gate = threading.Event()
        self.arrived = threading.Event()
        self.seen: list[dict[str, str]] = []
        self.app = self.flask_app() if kind == "flask" else self.fastapi_app()
        self.serve = serve_wsgi if kind == "flask" else serve_asgi

    def work(self, name: str) -> dict[str, Any]:
        self.ran[name] += 1
        return {"ran": self.ran[name], "name": name}

    def flask_app(self) -> flask.Flask:
        app = flask.Flask("shop")
        paid = self.seller

        @app.get("/quote/<symbol>")
        @priced(tokens=5, mesh=paid)
        def quote(symbol: str) -> Any:
            self.seen.append(dict(flask.request.headers))
            return self.work(symbol)

        @app.post("/order")
        @priced(up_to=50, mesh=paid)
        def order() -> Any:
            charge(7)
            return {**self.work("order"), "body": flask.request.get_data(as_text=True)}, 201

        @app.post("/job")
        @priced(tokens=9, via="hold", mesh=paid)
        def job() -> Any:
            return self.work("job")

        @app.get("/slow")
        @priced(tokens=5, mesh=paid)
        def slow() -> Any:
            self.arrived.set()
            assert self.gate.wait(30)
            return self.work("slow")

        @app.get("/broken")
        @priced(tokens=5, mesh=paid)
        def broken() -> Any:
            return self.work("broken"), 418

        @app.get("/stream")
        @priced(tokens=5, mesh=paid)
        def stream() -> Any:
            self.work("stream")
            return flask.Response(iter(PIECES), mimetype="text/plain")

        @app.get("/away")
        @priced(tokens=1, mesh=paid)
        def away() -> Any:
            self.work("away")
            return flask.redirect(flask.request.args["to"])

        @app.get("/free")
        def free() -> Any:
            self.seen.append(dict(flask.request.headers))
            return "free"

        return app

    def fastapi_app(self) -> fastapi.FastAPI:
        app = fastapi.FastAPI()
        paid = self.seller

        @app.get("/quote/{symbol}")
        @priced(tokens=5, mesh=paid)
        async def quote(symbol: str, request: fastapi.Request) -> Any:
            self.seen.append(dict(request.headers))
            return self.work(symbol)

        @app.post("/order", status_code=201)
        @priced(up_to=50, mesh=paid)
        async def order(request: fastapi.Request) -> Any:
            charge(7)
            return {**self.work("order"), "body": (await request.body()).decode()}

        @app.post("/job")
        @priced(tokens=9, via="hold", mesh=paid)
        async def job() -> Any:
            return self.work("job")

        @app.get("/slow")
        @priced(tokens=5, mesh=paid)
        def slow() -> Any:
            self.arrived.set()
            assert self.gate.wait(30)
            return self.work("slow")

        @app.get("/broken")
        @priced(tokens=5, mesh=paid)
        async def broken() -> Any:
            return fastapi.responses.JSONResponse(self.work("broken"), 418)

        @app.get("/stream")
        @priced(tokens=5, mesh=paid)
        async def stream() -> Any:
            self.work("stream")
            return StreamingResponse(iter(PIECES), media_type="text/plain")

        @app.get("/away")
        @priced(tokens=1, mesh=paid)
        async def away(to: str) -> Any:
            self.work("away")
            return fastapi.responses.RedirectResponse(to, 302)

        @app.get("/free")
        async def free(request: fastapi.Request) -> Any:
            self.seen.append(dict(request.headers))
            return "free"

        return app

    @property
    def paid(self) -> int:
        """Tokens that have reached the payee's wallet."""
        self.seller.settle()
        return self.market.domain.total(PAYEE)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


KINDS = [
    Kind("httpx", False, "flask"),
    Kind("httpx", True, "fastapi"),
    Kind("httpx2", False, "fastapi"),
    Kind("httpx2", True, "flask"),
    Kind("requests", False, "flask"),
    Kind("requests", False, "fastapi"),
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.library}{'-async' * kind.is_async}-{kind.framework}")
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def shop(market: Market, kind: Kind) -> Shop:
    return Shop(market, kind.framework)


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    with shop.serve(shop.app, shop.cut) as url:
        yield url


@pytest.fixture
def call(market: Market, url: str, kind: Kind) -> Iterator[Caller]:
    caller = Caller(market.payer(), url, kind)
    yield caller
    caller.close()


# A call


def test_a_call_is_paid(call: Caller, shop: Shop) -> None:
    """The library's own response, with what became of the payment beside it."""
    reply = call("GET", "/quote/ACME", params={"day": "today"}, headers={"X-Mine": "yes"})
    assert reply.native.json() == {"ran": 1, "name": "ACME"}
    assert (reply.info.operation, reply.info.charged) == ("GET /quote/{symbol}", 5)
    assert {name.lower(): value for name, value in shop.seen[0].items()}["x-mine"] == "yes"
    assert shop.paid == 5


def test_a_body_is_bound_and_arrives(call: Caller, shop: Shop) -> None:
    """Charged is what the handler says, below what the offer allows."""
    reply = call("POST", "/order", body=b"three of them")
    assert reply.status == 201
    assert reply.native.json()["body"] == "three of them"
    assert reply.info.charged == 7
    assert shop.paid == 7


def test_a_body_that_is_produced_piece_by_piece_is_bound_too(call: Caller, shop: Shop) -> None:
    """Read once, sent as often as it takes."""
    shop.cut.next()

    def pieces() -> Iterator[bytes]:
        yield b"three "
        yield b"of them"

    async def apieces() -> Any:
        for piece in pieces():
            yield piece

    reply = call("POST", "/order", body=apieces() if call.is_async else pieces())
    assert reply.native.json() == {"ran": 1, "name": "order", "body": "three of them"}
    assert shop.cut.lost == 1


def test_a_call_by_hold_is_paid(call: Caller, shop: Shop, market: Market) -> None:
    assert call("POST", "/job").info.charged == 9
    assert shop.paid == 9
    assert market.domain.balance(PAYER).held == 0


def test_a_handlers_own_failure_is_an_ordinary_response(call: Caller, shop: Shop) -> None:
    """The status is the handler's, nothing is owed, and the library's own way to raise it works."""
    reply = call("GET", "/broken")
    assert (reply.status, reply.info.charged) == (418, 0)
    with pytest.raises(Exception, match="418"):
        reply.native.raise_for_status()
    assert shop.paid == 0


def test_what_is_not_priced_is_called_without_a_contract(call: Caller, shop: Shop) -> None:
    reply = call("GET", "/free")
    assert reply.info.contract_id is None
    assert "token-contract" not in {name.lower() for name in shop.seen[0]}
    assert call("GET", "/nowhere").status == 404


def test_head_is_answered(call: Caller) -> None:
    """However the framework takes it: never an error of ours."""
    assert call("HEAD", "/quote/ACME").status in (200, 402, 405)


# Trouble


def test_a_lost_response_is_asked_for_again(call: Caller, shop: Shop) -> None:
    """A real socket, closed after the work: the retry gets the stored response, and it is paid once."""
    shop.cut.next(2)
    reply = call("POST", "/order", body=b"x")
    assert reply.native.json()["ran"] == 1
    assert reply.info.tries == 3
    assert shop.cut.lost == 2
    assert shop.paid == 7


def test_a_timeout_is_asked_for_again(market: Market, shop: Shop, url: str, kind: Kind) -> None:
    """The handler is still at it: 409 with Retry-After until it is done, then its response."""
    call = Caller(market.payer(), url, kind, timeout=0.4)
    timer = threading.Timer(0.8, shop.gate.set)
    timer.start()
    reply = call("GET", "/slow")
    timer.join()
    assert reply.native.json() == {"ran": 1, "name": "slow"}
    assert reply.info.tries > 1
    assert shop.paid == 5
    call.close()


def test_no_answer_in_time_is_unknown(market: Market, shop: Shop, url: str, kind: Kind) -> None:
    """With the library's own error behind it."""
    call = Caller(market.payer(), url, kind, timeout=0.2, retry=Policy(retry=never))
    with pytest.raises(OutcomeUnknown) as caught:
        call("GET", "/slow")
    assert "timed out" in str(caught.value.__cause__).lower() or "Timeout" in repr(caught.value.__cause__)
    shop.gate.set()
    call.close()


def test_a_service_that_is_not_there_is_unreachable(market: Market, kind: Kind) -> None:
    """Nothing was spent; the library's own error is behind it."""
    call = Caller(market.payer(), f"http://127.0.0.1:{free_port()}", kind, retry=Policy(retry=never))
    with pytest.raises(Unreachable) as caught:
        call("GET", "/quote/ACME")
    assert caught.value.spent == "no"
    assert "Connect" in repr(caught.value.__cause__)
    call.close()


def test_a_payee_that_restarts_gives_the_response_it_stored(market: Market, shop: Shop, kind: Kind) -> None:
    """Lost, then the server goes down and comes back on its port with its journal: the same response."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    call = Caller(market.payer(), url, kind, retry=Policy(retry=never))
    shop.cut.next()
    with shop.serve(shop.app, shop.cut, port), pytest.raises(OutcomeUnknown):
        call("POST", "/order", body=b"x", idempotency_key="order-1")
    with pytest.raises(OutcomeUnknown):  # nobody is there now, and the order was paid
        call("POST", "/order", body=b"x", idempotency_key="order-1")
    with shop.serve(shop.app, shop.cut, port):
        assert call("POST", "/order", body=b"x", idempotency_key="order-1").native.json()["ran"] == 1
    assert shop.paid == 7
    call.close()


def test_a_refused_payer_hears_why(call: Caller, market: Market) -> None:
    """Policy forbids the call: 403, with the payee's own words."""
    market.domain.do("governance", "set_policy", {"policy": _no_quotes(market)})
    with pytest.raises(Refused, match="forbidden") as caught:
        call("GET", "/quote/ACME")
    assert caught.value.status == 403


def _no_quotes(market: Market) -> dict[str, Any]:
    policy = dict(market.domain.ledger.policy().result(10))
    rule = {"payer": PAYER, "payee": PAYEE, "operation": "GET /quote/*", "effect": "deny"}
    return {name: policy[name] for name in policy if name not in ("version", "since")} | {
        "rules": [rule],
        "propagation_s": 0,
    }


def test_an_offer_above_max_tokens_is_refused(market: Market, shop: Shop, url: str, kind: Kind) -> None:
    call = Caller(market.payer(), url, kind, max_tokens=4)
    with pytest.raises(OfferTooHigh):
        call("GET", "/quote/ACME")
    assert shop.ran == {}
    call.close()


# Streams


def test_a_stream_is_paid_when_it_has_been_read(call: Caller, shop: Shop) -> None:
    """Its receipt comes after its last byte, and is checked then."""
    pieces, info = call.stream("/stream")
    assert b"".join(pieces) == b"".join(PIECES)
    assert info.charged == 5
    assert info.receipt is not None
    assert shop.paid == 5


def test_a_stream_that_is_read_whole_is_paid_too(call: Caller, shop: Shop) -> None:
    """The same response, not asked for as a stream."""
    reply = call("GET", "/stream")
    assert reply.content == b"".join(PIECES)
    assert reply.info.charged == 5


def test_a_whole_response_may_be_read_as_a_stream(call: Caller, shop: Shop) -> None:
    pieces, info = call.stream("/quote/ACME")
    assert b"ACME" in b"".join(pieces)
    assert info.charged == 5


def test_a_stream_that_is_left_is_not_known(call: Caller, shop: Shop) -> None:
    """Whether the payee saw its end is its own to say; nothing waits for it here."""
    pieces, info = call.stream("/stream", pieces=1)
    assert len(pieces) == 1
    assert info.charged is None
    assert call("GET", "/quote/ACME").info.charged == 5


def test_a_stream_that_was_changed_on_the_way_is_found_out(market: Market, kind: Kind) -> None:
    """At its end: its bytes are not those that the payee signed for."""
    shop = Shop(market, "flask")

    def changed(environ: Any, start_response: Any) -> Any:
        for piece in shop.app(environ, start_response):
            yield piece.replace(b"two", b"too")

    with serve_wsgi(changed) as url:
        call = Caller(market.payer(), url, kind)
        with pytest.raises(ReceiptInvalid):
            call.stream("/stream")
        with pytest.raises(ReceiptInvalid):
            call("GET", "/stream")
        assert call("GET", "/quote/ACME").info.charged == 5
        call.close()


def test_a_response_that_is_compressed_on_the_way_is_paid(market: Market, kind: Kind) -> None:
    """By a middleware after the payee has signed: whole and as a stream."""
    shop = Shop(market, "flask")

    def packed(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
            return start_response(status, [*kept, ("Content-Encoding", "gzip")], exc_info)

        if "HTTP_TOKEN_CONTRACT" not in environ:
            return shop.app(environ, start_response)
        return [gzip.compress(b"".join(shop.app(environ, start)))]

    with serve_wsgi(packed) as url:
        call = Caller(market.payer(), url, kind)
        assert call("GET", "/quote/ACME").native.json()["name"] == "ACME"
        _, info = call.stream("/quote/ACME")
        assert info.charged == 5
        call.close()


# The same job, the same contract


def test_a_key_is_the_same_contract(call: Caller, shop: Shop) -> None:
    """Given as an argument or as a header; another key is another job."""
    first = call("POST", "/order", body=b"x", idempotency_key="order-17")
    again = call("POST", "/order", body=b"x", idempotency_key="order-17")
    header = call("POST", "/order", body=b"x", headers={"Idempotency-Key": "order-17"})
    other = call("POST", "/order", body=b"x", idempotency_key="order-18")
    assert first.content == again.content == header.content != other.content
    assert first.info.contract_id == again.info.contract_id == header.info.contract_id
    assert shop.ran["order"] == 2
    assert shop.paid == 14


def test_a_key_used_for_another_request_is_refused(call: Caller, shop: Shop) -> None:
    call("POST", "/order", body=b"x", idempotency_key="order-17")
    with pytest.raises(Refused) as caught:
        call("POST", "/order", body=b"y", idempotency_key="order-17")
    assert caught.value.status == 422


# Redirects


def test_a_redirect_within_the_service_is_another_paid_call(call: Caller, shop: Shop) -> None:
    """Each has a contract of its own, also under one key."""
    for _ in range(2):
        reply = call.follow("GET", "/away?to=/quote/ACME", idempotency_key="k")
        assert reply.native.json() == {"ran": 1, "name": "ACME"}
    assert shop.ran == {"away": 1, "ACME": 1}
    assert shop.paid == 6


def test_a_redirect_to_elsewhere_takes_no_contract_along(call: Caller, shop: Shop, market: Market) -> None:
    """Contracts go to the service they are for, and nowhere else."""
    elsewhere = flask.Flask("elsewhere")
    seen: list[dict[str, str]] = []

    @elsewhere.get("/")
    def index() -> str:
        seen.append({name.lower(): value for name, value in flask.request.headers.items()})
        return "elsewhere"

    with serve_wsgi(elsewhere) as other:
        native = call.run(
            call.native.request(
                "GET",
                f"/away?to={other}/",
                **{"allow_redirects" if call.library == "requests" else "follow_redirects": True},
            )
        )
    assert native.text == "elsewhere"
    assert "token-contract" not in seen[0]


# Many at once


def test_many_calls_on_one_client_do_not_disturb_each_other(call: Caller, shop: Shop) -> None:
    """Forty at once, every third response lost: each gets its own answer, once and paid once."""
    count = [0]

    def lose(path: str) -> bool:
        count[0] += 1
        return count[0] % 3 == 0

    shop.cut.lose = lose
    paths = [f"/quote/S{n}" for n in range(40)]
    replies = call.together(paths)
    assert [reply.native.json() for reply in replies] == [{"ran": 1, "name": f"S{n}"} for n in range(40)]
    assert len({reply.info.contract_id for reply in replies}) == 40
    assert shop.cut.lost > 5
    assert shop.paid == 200


# Wrong use


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"via": "barter"}, "via"),
        ({"retry": 3}, "retry"),
    ],
)
def test_options_that_cannot_be_right_are_refused(
    market: Market, kind: Kind, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Caller(market.payer(), "http://127.0.0.1:1", kind, **options)


def test_a_service_nobody_can_find_is_unreachable(market: Market, kind: Kind) -> None:
    with pytest.raises(Unreachable, match="TOKENMESH_URL_QUOTES"):
        Caller(market.payer(), "", kind)

"""``mesh.auth``: a client of one's own signs and pays, as far as an ``httpx.Auth`` can see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import httpx2
import pytest

from support.market import PAYEE, Market
from support.serving import Cut, serve_wsgi
from tokenmesh.clients.httpx import auth
from tokenmesh.decorators import priced
from tokenmesh.errors import ConfigError, OfferTooHigh, ReceiptInvalid, Refused

LIBRARIES: list[Any] = [httpx, httpx2]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


class App:
    """A priced operation whose price can change, one that streams, and one that is free."""

    def __init__(self, market: Market) -> None:
        self.seller = market.seller()
        self.price = 5
        self.ran = 0
        self.app = app = flask.Flask("app")

        @app.get("/item")
        @priced(tokens=lambda request: self.price, mesh=self.seller)
        def item() -> Any:
            self.ran += 1
            return {"ran": self.ran}

        @app.post("/item")
        @priced(tokens=3, mesh=self.seller)
        def add() -> Any:
            self.ran += 1
            return {"got": flask.request.get_data(as_text=True)}

        @app.get("/stream")
        @priced(tokens=2, mesh=self.seller)
        def stream() -> Any:
            return flask.Response(iter([b"a", b"b"]))

        @app.get("/free")
        def free() -> str:
            return "free" if "Token-Contract" not in flask.request.headers else "paid?"


@pytest.fixture
def app(market: Market) -> App:
    return App(market)


@pytest.fixture
def cut() -> Cut:
    return Cut()


@pytest.fixture
def url(app: App, cut: Cut) -> Iterator[str]:
    with serve_wsgi(app.app, cut) as url:
        yield url


@pytest.fixture(params=[(library, is_async) for library in LIBRARIES for is_async in (False, True)])
def call(request: pytest.FixtureRequest, market: Market, url: str) -> Any:
    """Make one request with a client of one's own."""
    library, is_async = request.param
    payer: Any = market.payer()

    def sync(method: str, path: str, options: dict[str, Any], **request: Any) -> Any:
        made = auth(payer, PAYEE, library=library.__name__, **options)
        with library.Client(base_url=url, auth=made) as client:
            return client.request(method, path, **request)

    async def awaited(method: str, path: str, options: dict[str, Any], **request: Any) -> Any:
        made = auth(payer, PAYEE, library=library.__name__, **options)
        async with library.AsyncClient(base_url=url, auth=made) as client:
            return await client.request(method, path, **request)

    def call(method: str, path: str, *, options: dict[str, Any] | None = None, **request: Any) -> Any:
        if is_async:
            return asyncio.run(awaited(method, path, options or {}, **request))
        return sync(method, path, options or {}, **request)

    return call


def paid(app: App, market: Market) -> int:
    app.seller.settle()
    return market.domain.total(PAYEE)


def test_a_request_is_signed_and_paid(call: Any, app: App, market: Market) -> None:
    """The response is the service's, with what became of the payment."""
    response = call("POST", "/item", content=b"three")
    assert response.json() == {"got": "three"}
    assert response.extensions["tokenmesh"].charged == 3
    assert paid(app, market) == 3


def test_what_is_free_stays_free(call: Any) -> None:
    response = call("GET", "/free")
    assert response.text == "free"


def test_a_price_that_only_the_payee_knows_is_paid(call: Any, app: App, market: Market) -> None:
    """402 with an offer: signed for it, at once."""
    assert call("GET", "/item").json() == {"ran": 1}
    app.price = 8
    assert call("GET", "/item").extensions["tokenmesh"].charged == 8
    assert paid(app, market) == 13


def test_above_max_tokens_it_is_not_paid(call: Any, app: App) -> None:
    with pytest.raises(OfferTooHigh):
        call("POST", "/item", options={"max_tokens": 2})
    assert app.ran == 0


def test_the_same_key_is_the_same_contract(call: Any, app: App, market: Market) -> None:
    """So a call whose response was lost can be made again: this auth cannot see that by itself."""
    for _ in range(2):
        assert call("POST", "/item", content=b"x", extensions={"idempotency_key": "k"}).status_code == 200
    assert app.ran == 1
    assert paid(app, market) == 3


def test_a_lost_response_is_the_librarys_own_error(call: Any, app: App, cut: Cut, market: Market) -> None:
    """An auth sees responses only. With a key, the next call gets the stored response."""
    cut.next()
    with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError)):
        call("POST", "/item", content=b"x", extensions={"idempotency_key": "k"})
    assert call("POST", "/item", content=b"x", extensions={"idempotency_key": "k"}).json() == {"got": "x"}
    assert app.ran == 1
    assert paid(app, market) == 3


def test_a_refusal_is_raised(call: Any, market: Market) -> None:
    call("POST", "/item", content=b"x", extensions={"idempotency_key": "k"})
    with pytest.raises(Refused) as caught:
        call("POST", "/item", content=b"y", extensions={"idempotency_key": "k"})
    assert caught.value.status == 422


def test_a_stream_is_left_to_its_caller(call: Any) -> None:
    """It is read by whoever asked for it; what it cost is not known here."""
    response = call("GET", "/stream")
    assert response.content == b"ab"
    assert response.extensions["tokenmesh"].charged is None


def test_a_response_that_was_changed_on_the_way_is_found_out(market: Market, app: App) -> None:
    def changed(environ: Any, start_response: Any) -> Any:
        return [piece.replace(b"got", b"git") for piece in app.app(environ, start_response)]

    payer: Any = market.payer()
    with (
        serve_wsgi(changed) as url,
        httpx.Client(base_url=url, auth=auth(payer, PAYEE)) as client,
        pytest.raises(ReceiptInvalid),
    ):
        client.post("/item", content=b"x")


def test_requests_to_elsewhere_are_left_alone(market: Market, url: str) -> None:
    """With a url of its own, the auth signs for that only."""
    payer: Any = market.payer()
    made = auth(payer, PAYEE, url="http://127.0.0.1:1")
    with httpx.Client(base_url=url, auth=made) as client:
        assert client.post("/item", content=b"x").status_code == 402


def test_wrong_use_is_explained(market: Market) -> None:
    payer: Any = market.payer()
    with pytest.raises(ConfigError, match="httpx2"):
        auth(payer, PAYEE, library="urllib")  # type: ignore[arg-type]

"""``@calls``: the function gets a paying client, and nobody who looks at it from outside sees that."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import flask
import httpx
import pytest
import tenacity

from support.market import PAYEE, Market, Payer
from support.serving import serve_wsgi
from tokenmesh.calling import clients_of
from tokenmesh.decorators import calls, priced
from tokenmesh.errors import OfferTooHigh, Unreachable


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


@pytest.fixture
def url(market: Market) -> Iterator[str]:
    app = flask.Flask("quotes")
    seller = market.seller()

    @app.get("/quote/<symbol>")
    @priced(tokens=5, mesh=seller)
    def quote(symbol: str) -> dict[str, str]:
        return {"symbol": symbol}

    with serve_wsgi(app) as url:
        yield url


@pytest.fixture
def payer(market: Market, url: str) -> Payer:
    return market.payer(urls={PAYEE: url})


def test_a_function_gets_a_client(payer: Any) -> None:
    """First, before its own arguments, however those are given."""

    @calls(PAYEE, mesh=payer)
    def get_quote(service: httpx.Client, symbol: str, *, upper: bool = False) -> str:
        """A quote."""
        assert isinstance(service, httpx.Client)
        text: str = service.get(f"/quote/{symbol}").json()["symbol"]
        return text.upper() if upper else text

    assert get_quote("acme") == "acme"
    assert get_quote(symbol="acme", upper=True) == "ACME"
    assert get_quote.__name__ == "get_quote"
    assert get_quote.__doc__ == "A quote."


def test_a_coroutine_gets_an_async_client(payer: Any) -> None:
    """In whatever event loop it runs: each has its own, closed with the loop."""
    seen: list[httpx.AsyncClient] = []

    @calls(PAYEE, mesh=payer)
    async def get_quote(service: httpx.AsyncClient, symbol: str) -> str:
        seen.append(service)
        text: str = (await service.get(f"/quote/{symbol}")).json()["symbol"]
        return text

    async def two() -> list[str]:
        return await asyncio.gather(get_quote("a"), get_quote("b"))

    assert inspect.iscoroutinefunction(get_quote)
    assert asyncio.run(two()) == ["a", "b"]
    assert asyncio.run(get_quote("c")) == "c"
    assert seen[0] is seen[1] is not seen[2]
    assert all(client.is_closed for client in seen)


def test_an_async_generator_gets_one_too(payer: Any) -> None:
    @calls(PAYEE, mesh=payer)
    async def quotes(service: httpx.AsyncClient, *symbols: str) -> AsyncIterator[str]:
        for symbol in symbols:
            yield (await service.get(f"/quote/{symbol}")).json()["symbol"]

    async def collect() -> list[str]:
        return [quote async for quote in quotes("a", "b")]

    assert inspect.isasyncgenfunction(quotes)
    assert asyncio.run(collect()) == ["a", "b"]


def test_methods_of_all_kinds_get_it_after_themselves(payer: Any) -> None:
    """Instance, class and static methods, called through an object or through the class."""

    class Desk:
        name = "desk"

        @calls(PAYEE, mesh=payer)
        def get(self, service: httpx.Client, symbol: str) -> str:
            return f"{self.name} {service.get(f'/quote/{symbol}').json()['symbol']}"

        @calls(PAYEE, mesh=payer)
        async def aget(self, service: httpx.AsyncClient, symbol: str) -> str:
            return f"{self.name} {(await service.get(f'/quote/{symbol}')).json()['symbol']}"

        @classmethod
        @calls(PAYEE, mesh=payer)
        def of_class(cls, service: httpx.Client, symbol: str) -> str:
            return f"{cls.name} {service.get(f'/quote/{symbol}').json()['symbol']}"

        @calls(PAYEE, mesh=payer)
        @classmethod
        def of_class_too(cls, service: httpx.Client, symbol: str) -> str:
            return f"{cls.name} {service.get(f'/quote/{symbol}').json()['symbol']}"

        @staticmethod
        @calls(PAYEE, mesh=payer)
        def static(service: httpx.Client, symbol: str) -> str:
            return str(service.get(f"/quote/{symbol}").json()["symbol"])

        @calls(PAYEE, mesh=payer)
        @staticmethod
        def static_too(service: httpx.Client, symbol: str) -> str:
            return str(service.get(f"/quote/{symbol}").json()["symbol"])

    desk: Any = Desk()
    untyped: Any = Desk
    assert desk.get("a") == untyped.get(desk, "a") == "desk a"
    assert asyncio.run(desk.aget("b")) == "desk b"
    assert desk.of_class("c") == untyped.of_class("c") == untyped.of_class_too("c") == "desk c"
    assert desk.static("d") == untyped.static("d") == untyped.static_too("d") == "d"
    for name in ("get", "aget", "of_class", "of_class_too", "static", "static_too"):
        assert list(inspect.signature(getattr(desk, name)).parameters) == ["symbol"], name
    assert list(inspect.signature(untyped.get).parameters) == ["self", "symbol"]


def test_a_classmethod_above_binds_as_it_will_in_later_pythons(payer: Any) -> None:
    """From Python 3.13 on it binds like a method, which wrapt does not see."""

    @calls(PAYEE, mesh=payer)
    def get(cls: type, service: httpx.Client, symbol: str) -> str:
        return f"{cls.__name__} {service.get(f'/quote/{symbol}').json()['symbol']}"

    bound: Any = MethodType(get, dict)
    assert bound("a") == "dict a"
    assert list(inspect.signature(bound).parameters) == ["symbol"]


def test_the_visible_signature_has_no_service(payer: Any) -> None:
    """So frameworks, documentation and dependency injection see the function as its callers do."""

    @calls(PAYEE, mesh=payer)
    def get_quote(service: httpx.Client, symbol: str, day: int = 1, *, upper: bool = False) -> str:
        return symbol

    expected = "(symbol: 'str', day: 'int' = 1, *, upper: 'bool' = False) -> 'str'"
    assert str(inspect.signature(get_quote)) == expected


def test_a_flask_view_may_be_a_function_that_calls(payer: Any) -> None:
    """Flask calls it with the url's parameters."""
    app = flask.Flask("front")

    @app.get("/front/<symbol>")
    @calls(PAYEE, mesh=payer)
    def front(service: httpx.Client, symbol: str) -> Any:
        return service.get(f"/quote/{symbol}").json()

    assert app.test_client().get("/front/ACME").json == {"symbol": "ACME"}


def test_clients_are_shared_by_those_who_ask_for_the_same(payer: Any, market: Market, url: str) -> None:
    """By mesh, service and options."""
    seen: dict[str, httpx.Client] = {}
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))

    def made(name: str, mesh: Any, **options: Any) -> None:
        @calls(PAYEE, mesh=mesh, **options)
        def keep(service: httpx.Client) -> None:
            seen[name] = service

        keep()
        keep()

    other: Any = market.payer(urls={PAYEE: url})
    made("one", payer, max_tokens=5, retry=policy)
    made("same", payer, max_tokens=5, retry=policy)
    made("dear", payer, max_tokens=6, retry=policy)
    made("slow", payer, max_tokens=5, retry=policy, timeout=60)
    made("other", other, max_tokens=5, retry=policy)
    assert seen["one"] is seen["same"]
    assert len({id(client) for client in seen.values()}) == 4
    assert seen["slow"].timeout == httpx.Timeout(60)


def test_options_reach_the_call(payer: Any) -> None:
    @calls(PAYEE, mesh=payer, max_tokens=4)
    def dear(service: httpx.Client) -> Any:
        return service.get("/quote/ACME")

    with pytest.raises(OfferTooHigh):
        dear()


def test_clients_close_with_their_mesh(payer: Any) -> None:
    """Those of threads, and those of an event loop that still runs elsewhere."""
    seen: list[Any] = []

    @calls(PAYEE, mesh=payer)
    def keep(service: httpx.Client) -> None:
        seen.append(service)

    @calls(PAYEE, mesh=payer)
    async def akeep(service: httpx.AsyncClient) -> None:
        seen.append(service)
        await service.get("/quote/ACME")

    keep()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(akeep(), loop).result(30)
    payer.close()
    assert [client.is_closed for client in seen] == [True, True]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


def test_a_mesh_that_is_closed_within_its_loop_closes_its_clients_there(payer: Any) -> None:
    async def main() -> Any:
        @calls(PAYEE, mesh=payer)
        async def keep(service: httpx.AsyncClient) -> Any:
            return service

        client = await keep()
        payer.close()
        for _ in range(10):
            await asyncio.sleep(0)
        return client

    assert asyncio.run(main()).is_closed


def test_a_service_that_is_not_known_yet_is_looked_for_again(market: Market, url: str) -> None:
    """The first call fails; once its wallet has a url, the next one succeeds."""
    payer: Any = market.payer()

    @calls(PAYEE, mesh=payer)
    def get_quote(service: httpx.Client) -> Any:
        return service.get("/quote/ACME").json()

    @calls(PAYEE, mesh=payer)
    async def aget_quote(service: httpx.AsyncClient) -> Any:
        return (await service.get("/quote/ACME")).json()

    with pytest.raises(Unreachable):
        get_quote()
    with pytest.raises(Unreachable):
        asyncio.run(aget_quote())
    market.domain.do("governance", "update", {"name": PAYEE, "url": url})
    assert get_quote() == asyncio.run(aget_quote()) == {"symbol": "ACME"}


def test_clients_go_when_their_mesh_goes(market: Market, url: str) -> None:
    """A mesh that nobody holds any more is not kept by what it made."""
    payer: Any = market.payer(urls={PAYEE: url})
    market._open.remove(payer)
    gone = [weakref.ref(payer), weakref.ref(clients_of(payer))]
    assert clients_of(payer) is gone[1]()
    payer.close()
    del payer
    gc.collect()
    assert [ref() for ref in gone] == [None, None]

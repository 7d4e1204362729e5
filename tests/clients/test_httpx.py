"""The httpx clients: normal in all else, whatever httpx or httpx2 can do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import httpx2
import pytest

from support.market import PAYEE, PAYER, Market
from support.serving import serve_wsgi
from tokenmesh.clients import httpx as clients
from tokenmesh.decorators import priced
from tokenmesh.errors import ConfigError, OutcomeUnknown
from tokenmesh.retry import Policy, never

LIBRARIES: list[Any] = [httpx, httpx2]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


class Counter:
    """An application with one priced operation."""

    def __init__(self, market: Market) -> None:
        self.ran = 0
        self.seen: list[Any] = []
        self.gate = threading.Event()
        self.arrived = threading.Event()
        self.app = app = flask.Flask("counter")

        @app.get("/count")
        @priced(tokens=5, mesh=market.seller())
        def count() -> Any:
            self.ran += 1
            self.seen.append(flask.request._get_current_object())
            response = flask.jsonify(count=self.ran)
            response.set_cookie("seen", str(self.ran))
            return response

        @app.get("/wait")
        @priced(tokens=5, mesh=market.seller("quotes"))
        def wait() -> Any:
            self.arrived.set()
            assert self.gate.wait(30)
            return "waited"


@pytest.fixture
def counter(market: Market) -> Counter:
    return Counter(market)


@pytest.fixture
def url(counter: Counter) -> Iterator[str]:
    with serve_wsgi(counter.app) as url:
        yield url


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def make(market: Market, url: str, library: Any, **options: Any) -> Any:
    payer: Any = market.payer()
    return clients.client(payer, PAYEE, url=url, library=library.__name__, **options)


def make_async(market: Market, url: str, library: Any, **options: Any) -> Any:
    payer: Any = market.payer()
    return clients.async_client(payer, PAYEE, url=url, library=library.__name__, **options)


def test_it_is_a_client_of_its_library(market: Market, url: str, library: Any) -> None:
    """Code that asks for one, or for a response of it, gets one."""
    with make(market, url, library) as client:
        assert isinstance(client, library.Client)
        assert client.base_url == url
        response = client.get("count")
        assert isinstance(response, library.Response)
        assert response.raise_for_status().json() == {"count": 1}
        assert response.elapsed.total_seconds() > 0
        assert response.url == f"{url}/count"
        assert response.request.url == f"{url}/count"
    assert client.is_closed


def test_the_callers_request_is_not_changed(market: Market, url: str, library: Any, counter: Counter) -> None:
    """The contract goes out with a copy."""
    with make(market, url, library) as client:
        request = client.build_request("GET", "/count", headers={"X-Mine": "1"})
        response = client.send(request)
    assert "token-contract" not in request.headers
    assert "token-contract" not in response.request.headers
    assert "Token-Contract" in counter.seen[0].headers
    assert counter.seen[0].headers["X-Mine"] == "1"


def test_hooks_see_what_the_caller_sees(market: Market, url: str, library: Any) -> None:
    """One request and one response, however many tries there were; none of the mesh's own."""
    seen: list[Any] = []
    hooks = {"request": [seen.append], "response": [seen.append]}
    with make(market, url, library, event_hooks=hooks) as client:
        client.get("/count")
    assert [type(each).__name__ for each in seen] == ["Request", "Response"]
    assert seen[0].url.path == "/count"


def test_cookies_headers_params_and_auth_work(
    market: Market, url: str, library: Any, counter: Counter
) -> None:
    """What is set on the client goes along, and cookies are kept."""
    options = {"headers": {"X-App": "shop"}, "params": {"day": "1"}, "auth": ("me", "secret")}
    with make(market, url, library, **options) as client:
        client.get("/count")
        assert client.cookies["seen"] == "1"
        client.get("/count")
    request = counter.seen[1]
    assert (request.headers["X-App"], request.args["day"]) == ("shop", "1")
    assert request.authorization.username == "me"
    assert request.cookies.to_dict() == {"seen": "1"}


def test_every_verb_takes_a_key(market: Market, url: str, library: Any, counter: Counter) -> None:
    """By argument, by extensions, in a stream; the same key is the same contract."""
    with make(market, url, library) as client:
        ids = [
            client.get("/count", idempotency_key="k").extensions["tokenmesh"].contract_id,
            client.request("GET", "/count", idempotency_key="k").extensions["tokenmesh"].contract_id,
            client.get("/count", extensions={"idempotency_key": "k"}).extensions["tokenmesh"].contract_id,
        ]
        with client.stream("GET", "/count", idempotency_key="k") as response:
            ids.append(response.extensions["tokenmesh"].contract_id)
            response.read()
        for verb in ("options", "head", "post", "put", "patch", "delete"):
            assert getattr(client, verb)("/nothing", idempotency_key="x").status_code == 404
    assert len(set(ids)) == 1
    assert counter.ran == 1


def test_every_verb_takes_a_key_when_awaited(
    market: Market, url: str, library: Any, counter: Counter
) -> None:
    async def main() -> None:
        async with make_async(market, url, library) as client:
            assert isinstance(client, library.AsyncClient)
            first = await client.get("/count", idempotency_key="k")
            async with client.stream("GET", "/count", idempotency_key="k") as response:
                assert await response.aread() == first.content
            for verb in ("options", "head", "post", "put", "patch", "delete"):
                response = await getattr(client, verb)("/nothing", idempotency_key="x")
                assert response.status_code == 404

    asyncio.run(main())
    assert counter.ran == 1


def test_the_callers_own_transport_is_used(market: Market, counter: Counter, library: Any) -> None:
    """And with it its library: no need to name that."""
    payer: Any = market.payer()
    transport = library.WSGITransport(app=counter.app)
    with clients.client(payer, PAYEE, url="http://in.process", transport=transport) as client:
        assert isinstance(client, library.Client)
        assert client.get("/count").json() == {"count": 1}


def test_mounts_carry_contracts_too(market: Market, counter: Counter, library: Any) -> None:
    """A transport for some urls is one for contracts, if they go to the service."""
    mounts = {"http://in.process": library.WSGITransport(app=counter.app), "http://none": None}
    with make(market, "http://in.process", library, mounts=mounts) as client:
        assert client.get("/count").extensions["tokenmesh"].charged == 5


def test_requests_to_elsewhere_are_left_alone(
    market: Market, url: str, counter: Counter, library: Any
) -> None:
    """An absolute url of another service: as from any client."""
    with make(market, "http://127.0.0.1:1", library) as client:
        response = client.get(f"{url}/count")
    assert response.status_code == 402
    assert "tokenmesh" not in response.extensions


def test_a_cancelled_task_leaves_the_client_usable(
    market: Market, url: str, counter: Counter, library: Any
) -> None:
    """While its handler runs: the contract stays unknown, others go on, and the same key finds the answer."""

    async def main() -> None:
        async with make_async(market, url, library) as client:
            task = asyncio.create_task(client.get("/wait", idempotency_key="k"))
            assert await asyncio.to_thread(counter.arrived.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get("/count")).status_code == 200
            counter.gate.set()
            response = await client.get("/wait", idempotency_key="k")
            assert response.text == "waited"

    asyncio.run(main())


def test_timeouts_are_the_clients_or_the_requests(
    market: Market, url: str, counter: Counter, library: Any
) -> None:
    """Ten seconds as set for the mesh, else what the caller says."""
    with make(market, url, library) as client:
        assert client.timeout == library.Timeout(10)
    with make(market, url, library, timeout=3, retry=Policy(retry=never)) as client:
        assert client.timeout == library.Timeout(3)
        with pytest.raises(OutcomeUnknown) as caught:
            client.get("/wait", timeout=0.05)
    assert isinstance(caught.value.__cause__, library.TransportError)
    counter.gate.set()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"base_url": "http://x"}, "url="), ({"library": "urllib"}, "httpx2")],
)
def test_wrong_use_is_explained(market: Market, options: dict[str, Any], said: str) -> None:
    payer: Any = market.payer()
    with pytest.raises(ConfigError, match=said):
        clients.client(payer, PAYEE, **{"url": "http://x", **options})


def test_the_allowance_is_the_payers(market: Market, url: str, library: Any) -> None:
    """Clients of one mesh share what is set aside: one allowance, not one each."""
    payer: Any = market.payer()
    for _ in range(3):
        with clients.client(payer, PAYEE, url=url, library=library.__name__) as client:
            client.get("/count")
    assert len(market.domain.ledger.allowances(PAYER).result(10)) == 1

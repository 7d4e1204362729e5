"""The requests session: normal in all else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import requests

from support.market import PAYEE, Market
from support.serving import Cut, serve_wsgi
from tokenmesh.clients.requests import session
from tokenmesh.decorators import priced


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


class App:
    def __init__(self, market: Market) -> None:
        self.ran = 0
        self.seen: list[Any] = []
        self.app = app = flask.Flask("app")
        seller = market.seller()

        @app.route("/item", methods=["GET", "POST", "PUT"])
        @priced(tokens=5, mesh=seller)
        def item() -> Any:
            self.ran += 1
            self.seen.append(flask.request._get_current_object())  # type: ignore[attr-defined]
            response = flask.jsonify(got=flask.request.get_data(as_text=True), ran=self.ran)
            response.set_cookie("seen", str(self.ran))
            return response

        @app.get("/lines")
        @priced(tokens=1, mesh=seller)
        def lines() -> Any:
            return flask.Response(f"line {n}\n" for n in range(1_000))


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


@pytest.fixture
def shop(market: Market, url: str) -> Iterator[requests.Session]:
    payer: Any = market.payer()
    with session(payer, PAYEE, url=url) as made:
        yield made


def test_it_is_a_session(shop: requests.Session, url: str) -> None:
    """Relative paths go to the service, whole urls as they are; responses are the library's."""
    assert isinstance(shop, requests.Session)
    for path in ("/item", "item", f"{url}/item"):
        response = shop.get(path)
        assert isinstance(response, requests.Response)
        assert response.url == f"{url}/item"
        assert response.elapsed.total_seconds() > 0
        assert response.tokenmesh.charged == 5  # type: ignore[attr-defined]


def test_the_prepared_request_is_not_changed(shop: requests.Session, url: str, app: App) -> None:
    """The contract goes out with a copy; a request prepared by hand is paid as well."""
    prepared = shop.prepare_request(requests.Request("GET", f"{url}/item", headers={"X-Mine": "1"}))
    response = shop.send(prepared)
    assert response.json()["ran"] == 1
    assert "Token-Contract" not in prepared.headers
    assert response.request is prepared
    assert app.seen[0].headers["X-Mine"] == "1"


def test_cookies_headers_params_auth_and_hooks_work(shop: requests.Session, app: App) -> None:
    """What is set on the session goes along, and cookies are kept."""
    shop.headers["X-App"] = "shop"
    shop.auth = ("me", "secret")
    hooked: list[Any] = []
    shop.hooks["response"].append(lambda response, **options: hooked.append(response))
    first = shop.get("/item", params={"day": "1"})
    assert first.cookies["seen"] == "1"
    assert shop.cookies["seen"] == "1"
    shop.get("/item")
    request = app.seen[1]
    assert request.headers["X-App"] == "shop"
    assert request.authorization.username == "me"
    assert request.cookies.to_dict() == {"seen": "1"}
    assert app.seen[0].args["day"] == "1"
    assert len(hooked) == 2


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ({"data": {"a": "1"}}, "a=1"),
        ({"json": {"a": 1}}, '{"a": 1}'),
        ({"data": "täxt"}, "täxt"),
        ({"data": b"bytes"}, "bytes"),
        ({}, ""),
    ],
)
def test_bodies_of_all_kinds_are_bound(shop: requests.Session, cut: Cut, body: Any, got: str) -> None:
    """And sent again as they were when the response is lost."""
    cut.next()
    response = shop.post("/item", **body)
    assert response.json() == {"got": "" if got.startswith("a=") else got, "ran": 1} or got == "a=1"
    assert cut.lost == 1


@pytest.mark.parametrize("make", [lambda: io.BytesIO(b"a file"), lambda: iter([b"a ", b"file"])])
def test_a_stream_as_a_body_is_read_once_and_sent_as_often_as_needed(
    shop: requests.Session, cut: Cut, make: Any
) -> None:
    cut.next(2)
    assert shop.put("/item", data=make()).json() == {"got": "a file", "ran": 1}


def test_files_are_bound_too(shop: requests.Session) -> None:
    assert shop.post("/item", files={"f": ("name.txt", b"content")}).status_code == 200


def test_lines_of_a_stream_can_be_iterated(shop: requests.Session) -> None:
    """The library's own ways to read a stream work, and it is checked at its end."""
    with shop.get("/lines", stream=True) as response:
        assert len(list(response.iter_lines())) == 1_000
    assert response.tokenmesh.charged == 1  # type: ignore[attr-defined]
    with shop.get("/lines", stream=True) as response:
        assert response.raw.read(6) == b"line 0"
    assert response.tokenmesh.charged is None  # type: ignore[attr-defined]


def test_requests_to_elsewhere_are_left_alone(market: Market, url: str, app: App) -> None:
    """Also to a url that merely begins like the service's."""
    payer: Any = market.payer()
    with session(payer, PAYEE, url=url[:-1]) as elsewhere:
        response = elsewhere.get(f"{url}/item")
    assert response.status_code == 402
    assert not hasattr(response, "tokenmesh")


def test_the_adapters_options_can_be_given(market: Market, url: str) -> None:
    """Pool sizes, and what else the library's own adapter takes."""
    payer: Any = market.payer()
    with session(payer, PAYEE, url=url, adapter={"pool_maxsize": 3}) as made:
        assert made.get("/item").status_code == 200
        assert made.get_adapter(url)._pool_maxsize == 3  # type: ignore[attr-defined]

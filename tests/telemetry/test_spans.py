"""What a paid call looks like to a tracing backend: both frameworks, every client, with and without the stock
instrumentations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fastapi
import flask
import httpx
import pytest
from fastapi.responses import StreamingResponse
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from support.market import PAYEE, PAYER, Market, Payer, Seller
from support.serving import Cut, serve_asgi, serve_wsgi
from support.spans import Spans, attributes, events, instrumented, watched
from tokenmesh.clients import httpx as httpx_clients
from tokenmesh.clients import requests as requests_clients
from tokenmesh.decorators import priced
from tokenmesh.errors import OfferTooHigh, Unreachable
from tokenmesh.retry import Policy, never
from tokenmesh_chaincode.documents import parse_contract

FRAMEWORKS = ("flask", "fastapi")
CLIENTS = ("httpx", "httpx-async", "httpx2", "requests", "auth")
CALL, FULFIL, SETTLE = "tokenmesh call CLIENT", "tokenmesh fulfil INTERNAL", "tokenmesh settle INTERNAL"


_ONCE = Policy(retry=never)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


@pytest.fixture
def spans() -> Iterator[Spans]:
    with watched() as spans:
        yield spans


def application(framework: str, seller: Seller, tracer: Any) -> Any:
    """One that works, one that fails, one that streams, one that looks at its baggage."""

    def ok() -> dict[str, str]:
        with tracer.start_as_current_span("work"):
            return {"user": str(baggage.get_baggage("user"))}

    async def aok() -> dict[str, str]:
        with tracer.start_as_current_span("work"):
            await asyncio.sleep(0)
            return {"user": str(baggage.get_baggage("user"))}

    def fails() -> dict[str, str]:
        raise ValueError("no")

    def pieces() -> Iterator[bytes]:
        for piece in (b"one", b"two"):
            with tracer.start_as_current_span("piece"):
                yield piece

    def stream() -> Any:
        if framework == "flask":
            return flask.Response(pieces())
        return StreamingResponse(pieces())

    if framework == "flask":
        app: Any = flask.Flask("quotes")
        app.config["PROPAGATE_EXCEPTIONS"] = False
    else:
        app = fastapi.FastAPI()
    app.get("/ok")(priced(tokens=5, mesh=seller)(ok))
    app.get("/async")(priced(tokens=5, mesh=seller)(aok))
    app.get("/fails")(priced(tokens=5, mesh=seller)(fails))
    stream.__annotations__.clear()
    app.get("/stream")(priced(tokens=5, mesh=seller)(stream))
    return app


@contextmanager
def world(
    market: Market,
    spans: Spans,
    framework: str = "flask",
    *,
    stock: bool = False,
    cut: Cut | None = None,
    **settings: Any,
) -> Iterator[tuple[Payer, Seller]]:
    """A payee that serves, and a payer that knows where."""
    seller = market.seller()
    app = application(framework, seller, spans.provider.get_tracer("app"))
    with ExitStack() as stack:
        if stock:
            stack.enter_context(instrumented(spans, app))
        serve = serve_wsgi if framework == "flask" else serve_asgi
        url = stack.enter_context(serve(app, cut) if cut is not None else serve(app))
        yield market.payer(urls={PAYEE: url}, **settings), seller


def get(client: str, payer: Any, path: str) -> Any:
    """One GET by a client of each kind."""
    if client == "requests":
        with requests_clients.session(payer, PAYEE) as session:
            return session.get(path)
    if client == "auth":
        with httpx.Client(
            auth=httpx_clients.auth(payer, PAYEE), base_url=payer.settings.urls[PAYEE]
        ) as plain:
            return plain.get(path)
    if client == "httpx-async":

        async def aget() -> Any:
            async with payer.async_client(PAYEE) as bound:
                return await bound.get(path)

        return asyncio.run(aget())
    with payer.client(PAYEE, library=client) as bound:
        return bound.get(path)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_call_is_one_trace(market: Market, spans: Spans, framework: str, client: str) -> None:
    """From the caller's span to what the handler does, though nobody has instrumented anything."""
    tracer = spans.provider.get_tracer("app")
    with world(market, spans, framework) as (payer, _), tracer.start_as_current_span("shop"):
        assert get(client, payer, "/ok").status_code == 200
    assert spans.path(spans.one("work")) == ["shop INTERNAL", CALL, FULFIL, "work INTERNAL"]
    call, fulfil = spans.one("tokenmesh call"), spans.one("tokenmesh fulfil")
    same = {
        "tokenmesh.contract.id": attributes(call)["tokenmesh.contract.id"],
        "tokenmesh.tokens": 5,
        "tokenmesh.payer": PAYER,
        "tokenmesh.payee": PAYEE,
        "tokenmesh.operation": "GET /ok",
    }
    assert attributes(fulfil) == attributes(call) == same
    assert call.status.status_code == fulfil.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stock_instrumentations_keep_their_spans(
    market: Market, spans: Spans, framework: str, client: str
) -> None:
    """Each has its span for the request, once, in its place between ours."""
    with world(market, spans, framework, stock=True) as (payer, _):
        assert get(client, payer, "/ok").status_code == 200
    path = spans.path(spans.one("work"))
    served = [one for one in path if one.endswith("SERVER")]
    assert served == ["GET /ok SERVER"]
    if client == "requests":  # its instrumentation goes around the whole session, retries and all
        assert path == ["GET CLIENT", CALL, *served, FULFIL, "work INTERNAL"]
    elif client == "httpx2":  # has none
        assert path == [CALL, *served, FULFIL, "work INTERNAL"]
    else:
        assert path == [CALL, "GET CLIENT", *served, FULFIL, "work INTERNAL"]
    names = Counter(one.name for one in spans.all() if not one.name.endswith((" send", " receive")))
    assert names == Counter(
        {
            "tokenmesh call": 1,
            "GET": {"requests": 1, "httpx2": 0}.get(client, 2),
            "GET /.well-known/tokenmesh/offers": 1,
            "GET /ok": 1,
            "tokenmesh fulfil": 1,
            "work": 1,
        }
    ), "the offers, and the request, and each once"


@pytest.mark.parametrize("stock", [False, True], ids=["alone", "stock"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("path", ["/ok", "/async"])
def test_baggage_arrives(market: Market, spans: Spans, framework: str, path: str, stock: bool) -> None:
    """In the handler, whether or not anybody has instrumented client and server."""
    with world(market, spans, framework, stock=stock) as (payer, _), payer.client(PAYEE) as client:
        token = context.attach(baggage.set_baggage("user", "ada"))
        try:
            assert client.get(path).json() == {"user": "ada"}
        finally:
            context.detach(token)
    assert baggage.get_baggage("user") is None


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_not_sampled_stays_so(market: Market, framework: str) -> None:
    """From one end to the other: a call's own sampler has decided, and nobody decides anew."""
    with watched(sampler=ALWAYS_OFF) as unsampled, world(market, unsampled, framework) as (payer, seller):
        assert get("httpx", payer, "/ok").status_code == 200
        (item,) = seller.journal.take_batch(10, market.clock()).items  # type: ignore[union-attr]
        assert unsampled.all() == []
    tp = parse_contract(item.contract).body.tp
    assert tp is not None
    assert int(tp[-2:], 16) & 1 == 0, "the sampled bit"


@pytest.mark.parametrize("stock", [False, True], ids=["alone", "stock"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_parent_that_is_not_sampled_has_no_children(
    market: Market, spans: Spans, framework: str, stock: bool
) -> None:
    """Though both sides' samplers would take any call of its own; the contract says so to the ledger."""
    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(0))
    with (
        world(market, spans, framework, stock=stock) as (payer, seller),
        trace.use_span(trace.NonRecordingSpan(parent)),
    ):
        assert get("httpx", payer, "/ok").status_code == 200
    assert spans.all() == []
    (item,) = seller.journal.take_batch(10, market.clock()).items  # type: ignore[union-attr]
    tp = parse_contract(item.contract).body.tp or ""
    assert tp.startswith(f"00-{0xABC:032x}-")
    assert tp.endswith("-00")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("client", ["httpx", "requests", "httpx-async"])
def test_a_stream_is_a_span_until_its_end(market: Market, spans: Spans, framework: str, client: str) -> None:
    """On both sides; what the generator does is beneath it, and its tokens stand on the call's span."""
    with world(market, spans, framework) as (payer, _):
        if client == "requests":
            with requests_clients.session(payer, PAYEE) as session:  # type: ignore[arg-type]
                assert session.get("/stream", stream=True).content == b"onetwo"
        elif client == "httpx":
            with payer.client(PAYEE) as bound, bound.stream("GET", "/stream") as response:
                assert response.read() == b"onetwo"
        else:

            async def read() -> bytes:
                async with payer.async_client(PAYEE) as bound, bound.stream("GET", "/stream") as response:
                    whole: bytes = await response.aread()
                    return whole

            assert asyncio.run(read()) == b"onetwo"
    call = spans.one("tokenmesh call")
    assert attributes(call)["tokenmesh.tokens"] == 5
    for one in (call, spans.one("tokenmesh fulfil")):
        assert "tokenmesh.outcome" not in attributes(one), "it was fulfilled"
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_handler_that_fails(market: Market, spans: Spans, framework: str) -> None:
    """Nothing is owed; both spans say so and why, and no exception's text is on them."""
    with world(market, spans, framework) as (payer, _), payer.client(PAYEE, retry=_ONCE) as client:
        assert client.get("/fails").status_code == 500
    call, fulfil = spans.one("tokenmesh call"), spans.one("tokenmesh fulfil")
    assert attributes(fulfil)["error.type"] == "ValueError"
    assert attributes(call)["error.type"] == "500"
    for one in (call, fulfil):
        assert attributes(one)["tokenmesh.outcome"] == "void"
        assert attributes(one)["tokenmesh.tokens"] == 0
        assert one.status.status_code == StatusCode.ERROR
        assert events(one) == []


def test_a_lost_response_is_one_call(market: Market, spans: Spans) -> None:
    """The same contract goes out again: an event with the count, no error; the payee says it was replayed."""
    cut = Cut()
    with world(market, spans, "flask", stock=True, cut=cut) as (payer, seller):
        with payer.client(PAYEE) as client:
            cut.next()
            assert client.get("/ok").status_code == 200
        seller.settle()
    call = spans.one("tokenmesh call")
    ((name, about),) = events(call)
    assert name == "tokenmesh.retry"
    assert about == {"http.request.resend_count": 1, "error.type": "OutcomeUnknown"}
    assert call.status.status_code == StatusCode.UNSET
    assert "error.type" not in attributes(call)
    outcomes = [attributes(one).get("tokenmesh.outcome") for one in spans.all("tokenmesh fulfil")]
    assert outcomes == [None, "replayed"], "no outcome is said where it is to be expected"
    sent = [one for one in spans.all() if one.name == "GET" and "/ok" in str(attributes(one))]
    assert len(sent) == 2, "a request's own span for each request"
    settle = spans.one("tokenmesh settle")
    assert [link.context.span_id for link in settle.links] == [call.context.span_id]


def test_a_refused_call(market: Market, spans: Spans) -> None:
    """What the caller gets is on its span by class; the payee's 402 is on its own by code."""
    with world(market, spans) as (payer, _):
        with payer.client(PAYEE, max_tokens=1) as client, pytest.raises(OfferTooHigh):
            client.get("/ok")
        assert attributes(spans.one("tokenmesh call"))["error.type"] == "OfferTooHigh"
        assert httpx.get(payer.settings.urls[PAYEE] + "/ok").status_code == 402
    refused = spans.one("tokenmesh fulfil")
    assert attributes(refused) == {
        "tokenmesh.outcome": "refused",
        "tokenmesh.code": "contract_required",
        "error.type": "contract_required",
    }
    assert refused.status.status_code == StatusCode.UNSET


def test_a_payee_that_is_not_there(market: Market, spans: Spans) -> None:
    """An error at the end, its tries as events."""
    payer = market.payer(urls={PAYEE: "http://127.0.0.1:9"}, retry_attempts_max=3, retry_wait_s_max=0.01)
    with payer.client(PAYEE) as client, pytest.raises(Unreachable):
        client.get("/ok")
    call = spans.one("tokenmesh call")
    assert [about["http.request.resend_count"] for _, about in events(call)] == [1, 2]
    assert attributes(call)["error.type"] == "Unreachable"
    assert call.status.status_code == StatusCode.ERROR


def test_nothing_secret_is_on_a_span(market: Market, spans: Spans) -> None:
    """Nothing secret is on any span: no contract's text, no receipt's, no body."""
    with world(market, spans, "flask", stock=True) as (payer, seller):
        response = get("httpx", payer, "/ok")
        seller.settle()
    seen = repr([(one.name, attributes(one), events(one), one.links) for one in spans.all()])
    info = response.extensions["tokenmesh"]
    assert info.contract_id in seen
    for secret in (info.receipt_text, response.request.headers.get("Token-Contract", "eyJ"), "-----BEGIN"):
        assert secret not in seen
    assert "eyJ" not in seen


def test_nested_calls_are_one_tree(tmp_path: Path, spans: Spans) -> None:
    """A handler that calls another service: its call hangs under its own contract's span, with its tokens."""
    market = Market(tmp_path, {PAYER: 1_000, PAYEE: 1_000, "bank": 0})
    bank = flask.Flask("bank")

    @bank.get("/pay")
    @priced(tokens=2, mesh=market.seller("bank"))
    def pay() -> dict[str, bool]:
        return {"paid": True}

    checkout = fastapi.FastAPI()
    middle: dict[str, Any] = {}

    @checkout.get("/checkout")
    @priced(tokens=7, mesh=market.seller(PAYEE))
    async def check_out() -> Any:
        async with middle["payer"].async_client("bank") as client:
            return (await client.get("/pay")).json()

    with serve_wsgi(bank) as bank_url, serve_asgi(checkout) as url:
        middle["payer"] = market.payer(PAYEE, urls={"bank": bank_url})
        with market.payer(urls={PAYEE: url}).client(PAYEE) as client:
            assert client.get("/checkout").json() == {"paid": True}
    market.close()
    last = spans.all("tokenmesh fulfil")[-1]
    assert spans.path(last) == [CALL, FULFIL, CALL, FULFIL]
    edges = [
        (attributes(one)["tokenmesh.payee"], attributes(one)["tokenmesh.tokens"])
        for one in spans.all("tokenmesh call")
    ]
    assert edges == [(PAYEE, 7), ("bank", 2)]

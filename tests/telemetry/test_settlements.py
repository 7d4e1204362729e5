"""From a settlement to every call that it settles, and back; what is said of one that goes less well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.trace import StatusCode

from support.market import PAYEE, PAYER, Market
from support.spans import Spans, attributes, events, watched
from support.wallets import Clock
from tokenmesh.decorators import priced
from tokenmesh.errors import LedgerUnavailable
from tokenmesh.telemetry import switch
from tokenmesh.telemetry.settlements import CONTRACTS_A_SPAN, Settled, SettleWatch
from tokenmesh_chaincode.limits import SETTLE_ITEMS_MAX


@pytest.fixture
def spans() -> Iterator[Spans]:
    with watched() as spans:
        yield spans


def served(market: Market, calls: int) -> Any:
    """A payee that has taken so many calls, and owes their settlement."""
    seller = market.seller()
    app = flask.Flask("quotes")

    @app.get("/ok")
    @priced(tokens=5, mesh=seller)
    def ok() -> str:
        return "ok"

    payer = market.payer(urls={PAYEE: "http://quotes"})
    with payer.client(PAYEE, transport=httpx.WSGITransport(app=app)) as client:
        for _ in range(calls):
            assert client.get("/ok").status_code == 200
    return seller


def settled(spans: Spans) -> list[ReadableSpan]:
    return spans.all("tokenmesh settle")


def test_a_settlement_leads_to_its_calls(tmp_path: Path, spans: Spans) -> None:
    """By a link, and by the contract's id; and each of them to the transaction on the ledger."""
    market = Market(tmp_path)
    seller = served(market, 3)
    seller.settle()
    (settle,) = settled(spans)
    calls = spans.all("tokenmesh call")
    assert settle.parent is None
    assert [link.context.span_id for link in settle.links] == [one.context.span_id for one in calls]
    assert [link.context.trace_id for link in settle.links] == [one.context.trace_id for one in calls]
    ids = [attributes(one)["tokenmesh.contract.id"] for one in calls]
    (record,) = market.domain.ledger.contract(ids[0]).result()
    assert attributes(settle) == {
        "tokenmesh.contract.id": tuple(ids),
        "tokenmesh.contracts": 3,
        "tokenmesh.tokens": 15,
        "tokenmesh.payer": (PAYER,),
        "tokenmesh.payee": PAYEE,
        "tokenmesh.operation": ("GET /ok",),
        "tokenmesh.domain": market.domain.ledger.domain[:16],
        "tokenmesh.act": "settle",
        "tokenmesh.tx.id": record.tx_id,
    }
    about = {"tokenmesh.tokens": 5, "tokenmesh.outcome": "settled"}
    assert events(settle) == [("tokenmesh.settled", {"tokenmesh.contract.id": one, **about}) for one in ids]
    market.close()


def test_a_large_settlement_leads_to_each_of_them(tmp_path: Path, spans: Spans) -> None:
    """Though an SDK keeps 128 links of a span: the parts of it are spans beneath, and none drops anything."""
    count = 2 * CONTRACTS_A_SPAN + 1
    market = Market(tmp_path)
    served(market, count).settle()
    whole, *parts = settled(spans)
    calls = spans.all("tokenmesh call")
    assert len(parts) == 3
    assert {one.parent.span_id for one in parts if one.parent} == {whole.context.span_id}
    links = [link.context.span_id for part in parts for link in part.links]
    assert sorted(links) == sorted(one.context.span_id for one in calls)
    ids = {each for part in parts for each in attributes(part)["tokenmesh.contract.id"]}
    assert ids == {attributes(one)["tokenmesh.contract.id"] for one in calls}
    assert attributes(whole)["tokenmesh.contracts"] == count
    assert attributes(whole)["tokenmesh.tokens"] == sum(
        attributes(part)["tokenmesh.tokens"] for part in parts
    )
    assert {attributes(one)["tokenmesh.tx.id"] for one in (whole, *parts)} == {
        attributes(whole)["tokenmesh.tx.id"]
    }
    for one in (whole, *parts):
        assert one.dropped_links == one.dropped_events == one.dropped_attributes == 0
    market.close()


def test_a_ledger_that_was_away(tmp_path: Path, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """One span over all rounds: that it was sent again is an event, and no error in the end."""
    clock = Clock()
    market = Market(tmp_path, clock=clock)
    seller = served(market, 1)
    ledger = market.domain.ledger
    submit = ledger.submit

    def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(ledger, "submit", away)
    for _ in range(2):
        assert seller.settlement.step().failure is not None
        clock.now += 60
    assert settled(spans) == []
    monkeypatch.setattr(ledger, "submit", submit)
    seller.settle()
    (settle,) = settled(spans)
    again = [about for name, about in events(settle) if name == "tokenmesh.retry"]
    assert again == [
        {"http.request.resend_count": 1, "error.type": "LedgerUnavailable"},
        {"http.request.resend_count": 2, "error.type": "LedgerUnavailable"},
    ]
    assert settle.status.status_code == StatusCode.UNSET
    assert attributes(settle)["tokenmesh.tokens"] == 5
    market.close()


def test_payers_without_traces(tmp_path: Path, spans: Spans) -> None:
    """A contract of a payer that has no tracing is found by its id."""
    market = Market(tmp_path)
    with watched() as elsewhere:
        switch.switch_off()
        seller = served(market, 1)
        assert elsewhere.all() == []
        switch.switch_on(spans.provider)
        seller.settle()
    (settle,) = settled(spans)
    assert settle.links == ()
    (jti,) = attributes(settle)["tokenmesh.contract.id"]
    assert market.domain.ledger.contract(jti).result()[0].tx_id == attributes(settle)["tokenmesh.tx.id"]
    market.close()


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[list[Settled]]:
    """As many contracts as one settlement may carry, each of a call in a trace of its own."""
    market = Market(tmp_path)
    contracts = []
    for number in range(1, SETTLE_ITEMS_MAX + 1):
        tp = f"00-{number:032x}-{number:016x}-01"
        text = market.domain.contract(PAYER, PAYEE, jti=f"contract-{number}", tp=tp)
        contracts.append(Settled(PAYER, f"contract-{number}", text, 1))
    yield contracts
    market.close()


def test_the_largest_settlement_leads_to_each_of_its_contracts(signed: list[Settled], spans: Spans) -> None:
    """By a link, by an event and by attribute, within what an SDK keeps of a span."""
    watch = SettleWatch.begin(PAYEE, "domain", "settle", signed)
    assert watch is not None
    watch.end("the-tx", {}, None)
    whole, *parts = settled(spans)
    assert attributes(whole)["tokenmesh.tokens"] == len(parts) * CONTRACTS_A_SPAN == len(signed)
    links = [link.context.trace_id for part in parts for link in part.links]
    assert sorted(links) == list(range(1, len(signed) + 1))
    ids = [jti for part in parts for jti in attributes(part)["tokenmesh.contract.id"]]
    assert ids == [one.jti for one in signed]
    assert {attributes(one)["tokenmesh.tx.id"] for one in (whole, *parts)} == {"the-tx"}
    for one in (whole, *parts):
        assert one.dropped_links == one.dropped_events == one.dropped_attributes == 0


def test_where_an_sdk_keeps_less_the_attribute_still_names_them_all(signed: list[Settled]) -> None:
    """Links and events may be few by configuration; an attribute's values are not counted."""
    with watched(span_limits=SpanLimits(max_links=4, max_events=4)) as spans:
        watch = SettleWatch.begin(PAYEE, "domain", "settle", signed[:100])
        assert watch is not None
        watch.end("the-tx", {}, None)
    (settle,) = settled(spans)
    assert (len(settle.links), settle.dropped_links) == (4, 96)
    assert len(attributes(settle)["tokenmesh.contract.id"]) == 100

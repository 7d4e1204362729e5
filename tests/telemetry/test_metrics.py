"""What is measured, under which names and attributes, and that neither grows with the load."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from support.market import PAYEE, PAYER, Market, Payer, Seller
from support.serving import Cut, serve_wsgi
from support.spans import watched
from tokenmesh.decorators import priced
from tokenmesh.errors import OfferTooHigh
from tokenmesh.retry import Policy, never
from tokenmesh.telemetry import instruments, show_build
from tokenmesh.telemetry.instruments import OTHER, PAIRS_MAX, REASONS_MAX, TABLE

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


class Measured:
    """What a meter has measured in one domain: the gauges of a process show all of its parts, those too that
    earlier tests have left behind."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> dict[tuple[tuple[str, str], ...], Any]:
        """A metric's values (a histogram's counts), by its attributes."""
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "count", getattr(point, "value", None))
            for point in self.points().get(name, [])
            if point.attributes.get("tokenmesh.domain", self.domain) == self.domain
        }


@pytest.fixture
def measured(market: Market) -> Iterator[Measured]:
    measured = Measured(market.domain.ledger.domain[:16])
    instruments.meters_on(measured.provider)
    yield measured
    instruments.meters_on()


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


def application(seller: Seller) -> flask.Flask:
    app = flask.Flask("quotes")

    @app.get("/ok/<symbol>")
    @priced(tokens=5, mesh=seller)
    def ok(symbol: str) -> str:
        return symbol

    @app.get("/fails")
    @priced(tokens=5, mesh=seller)
    def fails() -> tuple[str, int]:
        return "no", 418

    @app.get("/held")
    @priced(tokens=5, mesh=seller, via="hold")
    def held() -> str:
        return "held"

    return app


def about(**attributes: str) -> tuple[tuple[str, str], ...]:
    names = {
        name if name == "error.type" else f"tokenmesh.{name}": value for name, value in attributes.items()
    }
    return tuple(sorted(names.items()))


def run(market: Market, measured: Measured) -> None:
    """Two calls that are paid, one that is void, one by hold, one refused, one too dear; all settled."""
    seller = market.seller()
    transport = httpx.WSGITransport(app=application(seller))
    payer = market.payer(urls={PAYEE: "http://quotes"})
    with payer.client(PAYEE, transport=transport, retry=Policy(retry=never)) as client:
        for path in ("/ok/a", "/ok/b", "/fails", "/held"):
            client.get(path)
    with payer.client(PAYEE, transport=transport, max_tokens=1) as client, pytest.raises(OfferTooHigh):
        client.get("/ok/a")
    httpx.Client(transport=transport).get("http://quotes/ok/a")
    seller.settle()


def test_calls_and_contracts_are_counted(market: Market, measured: Measured) -> None:
    """By payee, operation and outcome; tokens as receipts and journal have them."""
    run(market, measured)
    ok, fails, held = "GET /ok/{symbol}", "GET /fails", "GET /held"
    assert measured.values("tokenmesh.call.duration") == {
        about(payee=PAYEE, operation=ok, outcome="fulfilled"): 2,
        about(payee=PAYEE, operation=held, outcome="fulfilled"): 1,
        (("error.type", "418"), *about(payee=PAYEE, operation=fails, outcome="void")): 1,
        (("error.type", "OfferTooHigh"), *about(payee=PAYEE, outcome="not_spent")): 1,
    }
    tokens = {about(payee=PAYEE, operation=ok): 10, about(payee=PAYEE, operation=held): 5}
    assert measured.values("tokenmesh.call.tokens") == tokens
    assert measured.values("tokenmesh.fulfil.tokens") == {
        about(payer=PAYER, operation=ok): 10,
        about(payer=PAYER, operation=held): 5,
    }
    assert measured.values("tokenmesh.claim.duration") == {
        about(operation=ok, via="allowance"): 2,
        about(operation=fails, via="allowance"): 1,
        about(operation=held, via="hold"): 1,
    }
    assert measured.values("tokenmesh.handler.duration") == {
        about(operation=ok, outcome="fulfilled"): 2,
        about(operation=held, outcome="fulfilled"): 1,
        (("error.type", "418"), *about(operation=fails, outcome="void")): 1,
    }
    refusals = measured.values("tokenmesh.contract.refusals")
    assert refusals == {about(operation=ok, code="contract_required"): 1}


def test_settlement_and_ledger_are_measured(market: Market, measured: Measured) -> None:
    """What moved, how old it was, and what it took."""
    run(market, measured)
    domain = market.domain.ledger.domain[:16]
    assert measured.values("tokenmesh.settle.tokens") == {about(domain=domain): 15}
    assert measured.values("tokenmesh.settle.contracts") == {about(domain=domain, outcome="settled"): 3}
    assert measured.values("tokenmesh.settle.size") == {about(domain=domain): 1}
    assert measured.values("tokenmesh.settle.lag") == {about(domain=domain): 1}
    assert measured.values("tokenmesh.settle.duration") == {about(domain=domain): 1}
    kind = (("tokenmesh.ledger.kind", "embedded"),)
    for name in ("submit.duration", "query.duration", "transaction.duration", "transaction.size"):
        assert measured.values(f"tokenmesh.ledger.{name}")[kind] > 0, name


def after_a_call(market: Market) -> tuple[Payer, Seller]:
    """A payer and a payee, one paid call later."""
    seller = market.seller()
    payer = market.payer(urls={PAYEE: "http://quotes"})
    transport = httpx.WSGITransport(app=application(seller))
    with payer.client(PAYEE, transport=transport) as client:
        client.get("/ok/a")
    return payer, seller


def test_gauges_show_what_is_open(market: Market, measured: Measured) -> None:
    """Allowances of the payer, and what the payee has worked for and does not have."""
    payer, seller = after_a_call(market)
    domain = market.domain.ledger.domain[:16]
    whose = about(payee=PAYEE, domain=domain)
    (limit,) = measured.values("tokenmesh.allowance.limit").values()
    assert measured.values("tokenmesh.allowance.left") == {whose: limit - 5}
    assert measured.values("tokenmesh.hold.open") == {}
    seller.settlement.step()
    journal = {
        name: value
        for name in ("unsettled", "exposure", "open", "unsettled_limit", "usage", "limit")
        for value in measured.values(f"tokenmesh.journal.{name}").values()
    }
    assert journal.pop("usage") > 0
    assert journal == {
        "unsettled": 1,
        "exposure": 5,
        "open": 0,
        "unsettled_limit": payer.settings.unsettled_max,
        "limit": payer.settings.journal_bytes_max,
    }
    kind = (("tokenmesh.ledger.kind", "embedded"),)
    assert measured.values("tokenmesh.ledger.waiting")[kind] == 0
    assert measured.values("tokenmesh.ledger.waiting_limit")[kind] > 0


def test_what_is_closed_is_not_shown(market: Market, measured: Measured) -> None:
    """Whoever may still hold it."""
    payer, seller = after_a_call(market)
    seller.settlement.step()
    kind = (("tokenmesh.ledger.kind", "embedded"),)
    limit = measured.values("tokenmesh.ledger.waiting_limit")[kind]
    assert measured.values("tokenmesh.allowance.left")
    assert measured.values("tokenmesh.journal.unsettled_limit")
    payer.close()
    seller.settlement.stop()
    market.domain.ledger.close()
    assert measured.values("tokenmesh.allowance.left") == {}
    assert measured.values("tokenmesh.journal.unsettled_limit") == {}
    assert measured.values("tokenmesh.ledger.waiting_limit").get(kind, 0) < limit


def test_a_forked_child_can_show_gauges_whatever_the_parent_was_at() -> None:
    """A reader of the parent's may be at the gauges when it forks; a worker opens its parts all the same."""
    with instruments._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            show_build("embedded")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_hold_is_open_as_long_as_its_call(market: Market, measured: Measured) -> None:
    """Counted while the handler runs, and gone with the receipt."""
    seen: list[Any] = []
    app = flask.Flask("quotes")

    @app.get("/held")
    @priced(tokens=5, mesh=market.seller(), via="hold")
    def held() -> str:
        seen.append(measured.values("tokenmesh.hold.open"))
        return "held"

    transport = httpx.WSGITransport(app=app)
    with market.payer(urls={PAYEE: "http://quotes"}).client(PAYEE, transport=transport) as client:
        assert client.get("/held").status_code == 200
    assert seen == [{about(payee=PAYEE, domain=market.domain.ledger.domain[:16]): 1}]
    assert measured.values("tokenmesh.hold.open") == {}


def test_retries_and_replays_are_counted(market: Market, measured: Measured) -> None:
    """A response that is lost: another try of the payer's, and an answer out of the journal."""
    cut = Cut()
    with (
        serve_wsgi(application(market.seller()), cut) as url,
        market.payer(urls={PAYEE: url}).client(PAYEE) as client,
    ):
        cut.next()
        assert client.get("/ok/a").status_code == 200
    retries = measured.values("tokenmesh.call.retries")
    assert retries == {(("error.type", "OutcomeUnknown"), *about(payee=PAYEE)): 1}
    assert measured.values("tokenmesh.contract.replays") == {about(operation="GET /ok/{symbol}"): 1}
    assert list(measured.values("tokenmesh.call.duration").values()) == [1]


def test_the_build_is_named(measured: Measured) -> None:
    """Which version, with which ledger."""
    show_build("embedded")
    (point, *_) = measured.points()["tokenmesh.build.info"]
    assert point.value == 1
    assert set(point.attributes) == {"tokenmesh.version", "tokenmesh.ledger.kind"}


def test_durations_have_examples(market: Market, measured: Measured) -> None:
    """From a call's duration one comes to its trace."""
    with watched() as spans:
        run(market, measured)
    traces = {one.context.trace_id for one in spans.all("tokenmesh call")}
    points = measured.points()
    for name in ("tokenmesh.call.duration", "tokenmesh.claim.duration", "tokenmesh.handler.duration"):
        examples = [each.trace_id for point in points[name] for each in point.exemplars]
        assert examples, name
        assert set(examples) <= traces


def test_attributes_do_not_grow_with_the_load(measured: Measured) -> None:
    """A thousand wallets, operations and codes: what comes after the limit is counted together, and all of it
    is counted."""
    meters = instruments.meters()
    assert meters is not None
    for number in range(1_000):
        pair = meters.pair(f"wallet-{number}", f"GET /{number}")
        meters.record("tokenmesh.call.duration", 0.1, pair)
        meters.add("tokenmesh.call.tokens", 1, f"wallet-{number}", f"GET /{number}")
        reason = {"tokenmesh.code": meters.reason(f"code-{number}")}
        meters.record("tokenmesh.contract.refusals", 1, reason)
    durations = measured.values("tokenmesh.call.duration")
    assert len(durations) == PAIRS_MAX + 1
    assert durations[about(payee=OTHER, operation=OTHER)] == 1_000 - PAIRS_MAX
    tokens = measured.values("tokenmesh.call.tokens")
    assert len(tokens) <= PAIRS_MAX + 1
    assert sum(tokens.values()) == 1_000
    refusals = measured.values("tokenmesh.contract.refusals")
    assert len(refusals) == REASONS_MAX + 1
    assert sum(refusals.values()) == 1_000


def test_no_attribute_names_a_contract(market: Market, measured: Measured) -> None:
    """Whatever is measured, its attributes are those that the reference lists for it."""
    run(market, measured)
    allowed = {name: set(re.findall(r"`([^`]+)`", row[2])) for name, row in documented().items()}
    for name, points in measured.points().items():
        for point in points:
            assert set(point.attributes) <= allowed[name], name


def documented() -> dict[str, tuple[str, str, str]]:
    """The page's tables: kind, unit and attributes by name."""
    rows = re.findall(
        r"^\| `(tokenmesh\.[a-z_.]+)` \| (\w+) \| `([^`]+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE
    )
    return {name: (kind, unit, attributes) for name, kind, unit, attributes in rows}


def test_the_reference_lists_every_metric() -> None:
    """With its kind and its unit, and none that is not there."""
    said = {name: (kind, unit) for name, (kind, unit, _) in documented().items()}
    true = {name: ("counter" if one.kind == "sum" else one.kind, one.unit) for name, one in TABLE.items()}
    assert said == true

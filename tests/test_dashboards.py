"""The dashboard and the alerts of docs/dashboards ask for nothing that isn't there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from support.dashboards import (
    ALERTS,
    DASHBOARD,
    METRICS,
    ON_BAD_DAYS,
    SCRAPED,
    Query,
    exported,
    metrics,
    queries,
    read_series,
    unanswered,
)
from support.market import PAYEE, Market, Seller
from support.serving import Cut, serve_wsgi
from tokenmesh.decorators import priced
from tokenmesh.errors import InsufficientFunds, LedgerUnavailable
from tokenmesh.provider.problems import CATALOGUE
from tokenmesh.telemetry import LedgerWatch, Settled, SettleWatch, instruments, show_build

EXPORTED = exported(metrics())
QUERIES = queries()
OUTCOMES = {"fulfilled", "void", "free", "not_spent", "spent", "unknown", "settled", "lost"}
VALUES = {"tokenmesh_outcome": OUTCOMES, "tokenmesh_code": set(CATALOGUE)}
EACH = pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.place}: {query.expr[:40]}")


@EACH
def test_a_query_asks_for_series_and_labels_that_exist(query: Query) -> None:
    """As OpenTelemetry's exporter for Prometheus names the metrics of the reference."""
    selectors = query.selectors()
    assert selectors
    known = set(SCRAPED)
    for selector in selectors:
        assert selector.name in EXPORTED, f"{query.place}: there is no series {selector.name}"
        labels = EXPORTED[selector.name] | SCRAPED
        asked = {label for label, _, _ in selector.matchers}
        assert asked <= labels, f"{query.place}: {selector.name} has no label {asked - labels}"
        known |= labels
    groupings = query.groupings()
    assert groupings <= known, f"{query.place}: nothing there has the label {groupings - known}"
    assert query.shown <= groupings, f"{query.place}: {query.shown - groupings} are not in the result"


@EACH
def test_a_query_compares_labels_with_values_that_occur(query: Query) -> None:
    for selector in query.selectors():
        for label, _, value in selector.matchers:
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label], f"{query.place}: {label} is never {value}"


@EACH
def test_a_counter_is_never_read_as_it_stands(query: Query) -> None:
    """It begins anew with every process: only how it grows means something."""
    text = re.sub(r"\b(rate|increase)\([^()]*\)", "", query.expr)
    counters = {name for name in EXPORTED if name.endswith(("_total", "_count", "_sum", "_bucket"))}
    assert not counters & set(re.findall(r"\w+", text))


@EACH
def test_what_processes_share_is_not_added_up(query: Query) -> None:
    """All processes of a service show the numbers of the one journal."""
    for selector in query.selectors():
        if selector.name.startswith("tokenmesh_journal"):
            assert re.search(rf"max by \(job, tokenmesh_domain\)\s*\({selector.name}", query.expr) or (
                re.search(rf"/\s*{selector.name}", query.expr)
            )


def test_every_metric_is_looked_at() -> None:
    """One that nobody looks at would not be worth its cost."""
    asked = {selector.name for query in QUERIES for selector in query.selectors()}
    unseen = [one.name for one in metrics() if not asked & set(exported([one]))]
    assert unseen == []


def test_the_reference_can_be_read() -> None:
    """Every row of it that begins with a metric's name."""
    measured, _, described = METRICS.read_text().partition("## Attributes")
    rows = re.findall(r"^\| `(tokenmesh\.[\w.]+)` \|", measured, re.MULTILINE)
    assert rows == [metric.name for metric in metrics()]
    assert len(set(rows)) == len(rows) > 30
    used = {attribute for metric in metrics() for attribute in metric.attributes}
    assert used <= set(re.findall(r"`((?:tokenmesh|error)\.[\w.]+)`", described))


def test_no_name_is_a_metric_and_the_beginning_of_another() -> None:
    """OpenTelemetry's rule: what is a name is no namespace."""
    names = [metric.name for metric in metrics()]
    assert [one for one in names for other in names if other.startswith(f"{one}.")] == []


def test_nothing_that_grows_with_the_load_is_an_attribute() -> None:
    """Contracts, transactions, allowances and amounts stand on spans."""
    used = {attribute for metric in metrics() for attribute in metric.attributes}
    assert not {one for one in used if re.search(r"\b(id|tokens|url|contract|tx)\b", one)}


def test_the_dashboard_fits_together() -> None:
    """Every panel has an id of its own, a place of its own and the data source that the reader chooses."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__all", "__rate_interval"} == variables
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        cells = set(_cells(panel["gridPos"]))
        assert not cells & taken, f"{panel['title']} lies over another"
        assert all(x < 24 for x, _ in cells), f"{panel['title']} does not fit"
        taken |= cells
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            (name, label) = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert label in EXPORTED[name] | SCRAPED


def _cells(place: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert re.search(r"{{ \$(labels|value)", rule["annotations"]["summary"]), rule["alert"]
        assert rule["annotations"]["description"].endswith("."), rule["alert"]
        assert re.search(r"> |< ", rule["expr"]), rule["alert"]


@pytest.fixture
def address() -> Iterator[str]:
    """Where Prometheus reads what this process measures, as in docs/how-to/see-tokens-flow.md."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)], shutdown_on_exit=False)
    instruments.meters_on(provider)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()
    instruments.meters_on()
    provider.shutdown()


def test_real_calls_answer_every_query(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paid, void, refused and replayed ones, and a ledger that is away for a while: whatever is asked for is
    there, and what there is, the reference has."""
    market = Market(tmp_path)
    show_build("embedded")  # as a Mesh does it
    seller = market.seller()
    seen = [trade(market, seller, address)]
    assert unanswered(seen[0]) <= ON_BAD_DAYS
    with monkeypatch.context() as bad_day:
        bad_day.setattr(market.domain.ledger, "submit", away)
        assert seller.settlement.step().failure is not None
    # What only a ledger in trouble measures, and Fabric: by the part that does it for all of them.
    fails: Future[None] = Future()
    watch = LedgerWatch("fabric")
    watch.submitted(fails)
    watch.asked(fails)
    fails.set_exception(LedgerUnavailable("away"))
    watch.conflict("MVCC_READ_CONFLICT")
    watch.again(LedgerUnavailable("away"))
    settlement = SettleWatch.begin(PAYEE, "domain", "settle", [Settled("shop", "contract", "text", 5)])
    assert settlement is not None
    settlement.end("tx", {"contract": "allowance_used_up"}, None)
    seen.append(read_series(httpx.get(address).text))
    market.close()
    together = {
        name: frozenset().union(*(each.get(name, ()) for each in seen)) for name in {*seen[0], *seen[1]}
    }
    assert unanswered(together) == set()
    for name, labels in together.items():
        if name.startswith("tokenmesh_"):
            assert labels <= EXPORTED[name], name


def away(*_: Any, **__: Any) -> Any:
    raise LedgerUnavailable("away")


def trade(market: Market, seller: Seller, address: str) -> Mapping[str, frozenset[str]]:
    """Calls of every kind over HTTP; what Prometheus reads while the last one's hold is open."""
    app = flask.Flask("quotes")
    seen: list[str] = []

    @app.get("/quote")
    @priced(tokens=5, mesh=seller)
    def quote() -> str:
        return "quote"

    @app.get("/void")
    @priced(tokens=5, mesh=seller)
    def void() -> tuple[str, int]:
        return "no", 404

    @app.get("/dear")
    @priced(tokens=2_000_000, mesh=seller, via="hold")
    def dear() -> str:
        raise AssertionError("nobody can pay for it")

    @app.get("/held")
    @priced(tokens=5, mesh=seller, via="hold")
    def held() -> str:
        seen.append(httpx.get(address).text)
        return "held"

    cut = Cut()
    with serve_wsgi(app, cut) as url, market.payer(urls={PAYEE: url}).client(PAYEE) as client:
        assert client.get("/quote").status_code == 200
        assert client.get("/void").status_code == 404
        assert httpx.get(f"{url}/quote").status_code == 402
        with pytest.raises(InsufficientFunds):
            client.get("/dear")
        cut.next()
        assert client.get("/quote").status_code == 200
        seller.settle()
        assert client.get("/held").status_code == 200
    assert cut.lost == 1
    return read_series(seen[0])

"""A Prometheus endpoint: a real scrape over loopback shows calls and tokens, and leads to their traces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flask
import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.market import PAYEE, Market
from support.spans import Spans, watched
from tokenmesh.decorators import priced
from tokenmesh.telemetry import instruments
from tokenmesh.telemetry.prometheus import PrometheusReader

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
CALLS = 4


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where a process's metrics are fetched."""
    reader = PrometheusReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instruments.meters_on(provider)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=reader.shown)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join(10)
    server.server_close()
    instruments.meters_on()
    provider.shutdown()


@pytest.fixture
def spans() -> Iterator[Spans]:
    with watched() as spans:
        yield spans


def work(directory: Path) -> None:
    """Calls of two operations, and their settlement."""
    market = Market(directory)
    seller = market.seller()
    app = flask.Flask("quotes")
    for path in ("/one", "/other"):

        @app.get(path, endpoint=path)
        @priced(tokens=5, mesh=seller, operation=f"GET {path}")
        def ok() -> str:
            return "ok"

    transport = httpx.WSGITransport(app=app)
    with market.payer(urls={PAYEE: "http://quotes"}).client(PAYEE, transport=transport) as client:
        for _ in range(CALLS):
            client.get("/one").raise_for_status()
        client.get("/other").raise_for_status()
    seller.settle()
    market.close()


def scraped(endpoint: str) -> dict[str, list[Sample]]:
    answer = httpx.get(endpoint, headers=OPENMETRICS)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(answer.text)
    return {family.name: family.samples for family in families}


def test_a_scrape_leads_to_traces(endpoint: str, spans: Spans, tmp_path: Path) -> None:
    """Each example stands in the bucket that its value falls into, at the operation whose call it was."""
    work(tmp_path)
    samples = scraped(endpoint)["tokenmesh_call_duration_seconds"]
    counts = {one.labels["tokenmesh_operation"]: one.value for one in samples if one.name.endswith("_count")}
    assert counts == {"GET /one": CALLS, "GET /other": 1}
    traces = {
        f"{one.context.trace_id:032x}": (one.attributes or {})["tokenmesh.operation"]
        for one in spans.all("tokenmesh call")
    }
    examples = [(one, one.exemplar) for one in samples if one.exemplar is not None]
    assert {one.labels["tokenmesh_operation"] for one, _ in examples} == set(counts)
    bounds = {float(one.labels["le"]) for one in samples if one.name.endswith("_bucket")}
    for one, example in examples:
        assert traces[example.labels["trace_id"]] == one.labels["tokenmesh_operation"]
        assert len(example.labels["span_id"]) == 16
        assert float(one.labels["le"]) == min(bound for bound in bounds if example.value <= bound)


def test_a_scrape_has_tokens_and_the_rest(endpoint: str, tmp_path: Path) -> None:
    """Counters, gauges and histograms alike; without spans there are no examples."""
    work(tmp_path)
    found = scraped(endpoint)
    assert sum(one.value for one in found["tokenmesh_call_tokens"] if one.name.endswith("_total")) == 25
    assert sum(one.value for one in found["tokenmesh_settle_tokens"] if one.name.endswith("_total")) == 25
    assert found["tokenmesh_settle_size"]
    assert [one for samples in found.values() for one in samples if one.exemplar is not None] == []


def test_who_asks_for_the_older_format_gets_it(endpoint: str, spans: Spans, tmp_path: Path) -> None:
    """It has no examples."""
    work(tmp_path)
    answer = httpx.get(endpoint)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "tokenmesh_call_duration_seconds_bucket" in answer.text
    assert "trace_id" not in answer.text

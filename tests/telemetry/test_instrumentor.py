"""``opentelemetry-instrument python app.py``: everything is on with no code, and off where that is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.util._importlib_metadata import entry_points

from support import untraced_shop
from support.homes import TESTS, Home
from support.spans import Spans
from tokenmesh.telemetry import instruments, switch
from tokenmesh.telemetry.environment import disabled
from tokenmesh.telemetry.instrumentor import TokenmeshInstrumentor

CALLS = 3


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.open_wallet("shop", tokens=10_000)
    home.open_wallet("quotes")
    yield home
    home.ledger.close()


def run(home: Home, **environ: str) -> list[dict[str, Any]]:
    """What a process under ``opentelemetry-instrument`` exports to its console: spans and metrics."""
    usual = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TOKENMESH_"))
    }
    exporters = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"), "console")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("opentelemetry-instrument"),
            *(sys.executable, untraced_shop.__file__, home.path, str(CALLS)),
        ],
        env={**usual, **exporters, "OTEL_LOGS_EXPORTER": "none", "PYTHONPATH": str(TESTS), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return list(documents(done.stdout))


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents in ``text``, one after the other."""
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        found, end = decoder.raw_decode(text)
        yield found
        text = text[end:].strip()


def spans_of(exported: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in exported if "parent_id" in one]


def metrics_of(exported: list[dict[str, Any]]) -> set[str]:
    return {
        metric["name"]
        for one in exported
        for resource in one.get("resource_metrics", [])
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }


def test_everything_is_on_with_no_code(home: Home) -> None:
    """Under all stock instrumentations there are: each call is one tree, with each span once; and metrics."""
    exported = run(home)
    spans = spans_of(exported)
    by_id = {one["context"]["span_id"]: one for one in spans}

    def path(one: dict[str, Any]) -> tuple[str, ...]:
        above = by_id.get(one["parent_id"])
        kind = one["kind"].removeprefix("SpanKind.")
        return (*(path(above) if above else ()), f"{one['name']} {kind}")

    call = ("tokenmesh call CLIENT",)
    request = (*call, "GET CLIENT", "GET /quote/<symbol> SERVER")
    offers = (*call, "GET CLIENT", "GET /.well-known/tokenmesh/offers SERVER")
    assert Counter(path(one) for one in spans if path(one)[0] != "tokenmesh settle INTERNAL") == {
        call: CALLS,
        request[:2]: CALLS + 1,
        request: CALLS,
        (*request, "tokenmesh fulfil INTERNAL"): CALLS,
        offers: 1,
    }
    ids = {one["attributes"]["tokenmesh.contract.id"] for one in spans if one["name"] == "tokenmesh call"}
    assert len(ids) == CALLS
    settled = [one for one in spans if one["name"] == "tokenmesh settle"]
    assert {jti for one in settled for jti in one["attributes"]["tokenmesh.contract.id"]} == ids
    assert metrics_of(exported) >= {
        "tokenmesh.call.duration",
        "tokenmesh.fulfil.tokens",
        "tokenmesh.settle.size",
        "tokenmesh.build.info",
    }


def test_it_is_off_where_its_name_is_disabled(home: Home) -> None:
    """The others' spans are there as before."""
    exported = run(home, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="requests, tokenmesh")
    names = Counter(one["name"] for one in spans_of(exported))
    assert names["GET"] == names["GET /quote/<symbol>"] + 1 == CALLS + 1
    assert not [name for name in names if name.startswith("tokenmesh")]
    assert not [name for name in metrics_of(exported) if name.startswith("tokenmesh")]


@pytest.mark.parametrize(
    ("listed", "off"),
    [
        ("", False),
        ("flask", False),
        ("tokenmesh-x", False),
        ("tokenmesh", True),
        ("a , tokenmesh", True),
        ("*", True),
    ],
)
def test_the_variable_is_read_as_opentelemetry_reads_it(listed: str, off: bool) -> None:
    assert disabled({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": listed}) is off


def test_in_code_it_takes_providers_and_gives_them_back() -> None:
    """Spans and metrics go where they are sent, and nowhere once it is uninstrumented."""
    spans = Spans()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrumentor = TokenmeshInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider, meter_provider=provider)
    try:
        tracer, meters = switch.tracer(), instruments.meters()
        assert tracer is not None
        assert meters is not None
        tracer.start_span("tokenmesh call").end()
        meters.record("tokenmesh.contract.replays", 1, {})
        assert spans.one("tokenmesh call").instrumentation_scope.name == "tokenmesh"  # type: ignore[union-attr]
        data = reader.get_metrics_data()
        assert data is not None
        assert data.resource_metrics[0].scope_metrics[0].scope.name == "tokenmesh"
        instrumentor.uninstrument()
        assert (switch.tracer(), instruments.meters()) == (None, None)
    finally:
        switch.switch_on()
        instruments.meters_on()


def test_it_is_found_by_its_entry_point() -> None:
    (point,) = entry_points(group="opentelemetry_instrumentor", name="tokenmesh")
    assert point.load() is TokenmeshInstrumentor

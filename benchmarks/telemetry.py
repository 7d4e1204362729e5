"""What spans and metrics add to a paid call: without an SDK, and with one that exports in batches.

    python benchmarks/hot_path.py --otel [--rounds 40] [--json]

Payer and payee are in this process, so a call here has both of its spans and all of its measurements, and the
CPU of the export's thread is in it; the collector's is not: what is exported is encoded as OTLP has it, and
dropped. Rounds with telemetry switched off, with no SDK and with one alternate; the best of each counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tokenmesh.mesh import Mesh
from tokenmesh.telemetry import instruments, switch


class Encoding(SpanExporter):
    """Encodes spans for a collector that is not there."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


class Sdk:
    """An SDK as applications set it up."""

    def __init__(self) -> None:
        self.exporter = Encoding()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.batches = BatchSpanProcessor(self.exporter)
        self.tracers.add_span_processor(self.batches)
        self.meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def off() -> None:
    """Nothing, not even the question whether anyone listens."""
    switch.switch_off()
    instruments.meters_off()


def without_sdk() -> None:
    """As in an application that has none."""
    switch.switch_on()
    instruments.meters_on()


@contextmanager
def clients(world: Any, rounds: int) -> Iterator[httpx.Client]:
    """A paying client of an application in this process."""
    from tokenmesh_benchmarks import hot_path

    with (
        hot_path.payee(world) as (mesh, _),
        Mesh(hot_path.PAYER, home=world.home, allowance_calls=4 * rounds * hot_path.CALLS_A_ROUND) as payer,
    ):
        transport = httpx.WSGITransport(app=hot_path.flask_application(mesh))
        with payer.client(hot_path.PAYEE, transport=transport) as client:
            yield client


def measure_telemetry(world: Any, rounds: int) -> dict[str, float]:
    """Microseconds of CPU that telemetry adds to a paid call, payer and payee together."""
    from tokenmesh_benchmarks import hot_path

    sdk = Sdk()
    times: dict[str, list[float]] = {"off": [], "no_sdk": [], "sdk": []}

    def with_sdk() -> None:
        switch.switch_on(sdk.tracers)
        instruments.meters_on(sdk.meters)

    def calls(client: httpx.Client) -> None:
        hot_path.call_client(client, hot_path.CALLS_A_ROUND)
        sdk.batches.force_flush()

    with clients(world, rounds) as client:
        hot_path.call_client(client, 100)  # offers, the allowance
        for _ in range(rounds):
            for name, begin in (("off", off), ("no_sdk", without_sdk), ("sdk", with_sdk)):
                begin()
                times[name].append(hot_path.cpu_us(partial(calls, client)))
    without_sdk()
    assert sdk.exporter.spans == 2 * rounds * hot_path.CALLS_A_ROUND, sdk.exporter.spans
    best = {name: min(each) for name, each in times.items()}
    return {
        "call_us": round(best["off"]),
        "no_sdk_added_us": round(best["no_sdk"] - best["off"], 1),
        "sdk_added_us": round(best["sdk"] - best["off"], 1),
        "no_sdk_ratio": round(best["no_sdk"] / best["off"], 3),
        "sdk_ratio": round(best["sdk"] / best["off"], 3),
    }

"""What spans and metrics add to a paid call: without an SDK, and with one that exports in batches.

    python benchmarks/hot_path.py --otel [--rounds 40] [--json]

A call has a span in the payer's process and one in the payee's. ``sdk_call_us`` is what the two make a call
longer, in the threads that carry it; the export has a thread of its own, and is not in it. All else is CPU
of a process, the export's included: ``sdk_payee_added_us`` is what the payee's span adds there,
``sdk_added_us`` what both add, ``sdk_payer_added_us`` the difference; ``sdk_bare_us`` is what a span without
attributes adds in the payee's place, made by the SDK and exported as ours are. ``metrics_..._us`` comes on
top where metrics are recorded too. The collector's part is nowhere: what is exported is encoded as OTLP has
it, and dropped. Rounds with telemetry switched off, with no SDK and with one alternate; the best of each
counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

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

    def spans_only(self) -> None:
        switch.switch_on(self.tracers)
        instruments.meters_off()

    def all(self) -> None:
        switch.switch_on(self.tracers)
        instruments.meters_on(self.meters)


def off() -> None:
    """Nothing, not even the question whether anyone listens."""
    switch.switch_off()
    instruments.meters_off()


def without_sdk() -> None:
    """As in an application that has none."""
    switch.switch_on()
    instruments.meters_on()


@contextmanager
def clients(world: Any, calls: int) -> Iterator[httpx.Client]:
    """A paying client of an application in this process, for so many calls."""
    from tokenmesh_benchmarks import hot_path

    with (
        hot_path.payee(world) as (mesh, _),
        Mesh(hot_path.PAYER, home=world.home, allowance_calls=calls) as payer,
    ):
        transport = httpx.WSGITransport(app=hot_path.flask_application(mesh))
        with payer.client(hot_path.PAYEE, transport=transport) as client:
            yield client


class Cost(NamedTuple):
    """Of a call, in microseconds: CPU of the process, and of the thread that carries it."""

    process: float
    thread: float


def _best(
    sdk: Sdk,
    rounds: int,
    modes: Mapping[str, Callable[[], None]],
    ready: Callable[[str], Callable[[], object]],
) -> dict[str, Cost]:
    """What a call costs in the best round of each mode. ``ready`` gives a round's calls."""
    from tokenmesh_benchmarks import hot_path

    costs: dict[str, list[Cost]] = {name: [] for name in modes}
    for _ in range(rounds):
        for name, begin in modes.items():
            calls = ready(name)
            begin()
            carried = 0.0

            def one_round(calls: Callable[[], object] = calls) -> None:
                nonlocal carried
                start = time.thread_time()
                calls()
                carried = time.thread_time() - start
                sdk.batches.force_flush()

            process = hot_path.cpu_us(one_round)
            costs[name].append(Cost(process, carried / hot_path.CALLS_A_ROUND * 1e6))
    off()
    return {name: Cost(*map(min, zip(*each, strict=True))) for name, each in costs.items()}


def measure_payee(world: Any, rounds: int, sdk: Sdk) -> dict[str, Cost]:
    """The payee's side alone, and a bare span in the place of ours."""
    from tokenmesh_benchmarks import hot_path

    modes = {"off": off, "bare": off, "sdk": sdk.spans_only, "all": sdk.all}
    tracer = sdk.tracers.get_tracer("bare")
    with hot_path.payee(world) as (mesh, ledger):
        application = hot_path.flask_application(mesh)
        allowance = world.allowance(ledger, 2 * len(modes) * rounds * hot_path.CALLS_A_ROUND * hot_path.PRICE)
        first = 0

        def ready(mode: str) -> Callable[[], object]:
            nonlocal first
            contracts = list(world.contracts(allowance, range(first, first + hot_path.CALLS_A_ROUND)))
            first += len(contracts)
            if mode != "bare":
                return partial(hot_path.call_flask, application, contracts)

            def with_bare_spans() -> None:
                for contract in contracts:
                    span = tracer.start_span("bare")
                    hot_path.call_flask(application, [contract])
                    span.end()

            return with_bare_spans

        return _best(sdk, rounds, modes, ready)


def measure_both(world: Any, rounds: int, sdk: Sdk) -> dict[str, Cost]:
    """Payer and payee together."""
    from tokenmesh_benchmarks import hot_path

    modes = {"off": off, "no_sdk": without_sdk, "sdk": sdk.spans_only, "all": sdk.all}
    with clients(world, 2 * len(modes) * rounds * hot_path.CALLS_A_ROUND) as client:
        off()
        hot_path.call_client(client, 100)  # offers, the allowance
        calls = partial(hot_path.call_client, client, hot_path.CALLS_A_ROUND)
        return _best(sdk, rounds, modes, lambda _: calls)


def measure_telemetry(world: Any, rounds: int) -> dict[str, float]:
    """Microseconds of CPU that telemetry adds to a paid call."""
    from tokenmesh_benchmarks import hot_path

    sdk = Sdk()
    payee = measure_payee(world, rounds, sdk)
    both = measure_both(world, rounds, sdk)
    without_sdk()
    spans = (3 + 2 * 2) * rounds * hot_path.CALLS_A_ROUND
    assert sdk.exporter.spans == spans, (sdk.exporter.spans, spans)
    sdk_payee = payee["sdk"].process - payee["off"].process
    sdk_both = both["sdk"].process - both["off"].process
    no_sdk = both["no_sdk"].process - both["off"].process
    return {
        "call_us": round(both["off"].process),
        "no_sdk_added_us": round(no_sdk, 1),
        "sdk_call_us": round(both["sdk"].thread - both["off"].thread, 1),
        "sdk_payee_added_us": round(sdk_payee, 1),
        "sdk_payer_added_us": round(sdk_both - sdk_payee, 1),
        "sdk_added_us": round(sdk_both, 1),
        "sdk_bare_us": round(payee["bare"].process - payee["off"].process, 1),
        "metrics_payee_added_us": round(payee["all"].process - payee["sdk"].process, 1),
        "metrics_added_us": round(both["all"].process - both["sdk"].process, 1),
        "no_sdk_ratio": round(both["no_sdk"].process / both["off"].process, 3),
        "sdk_ratio": round(both["sdk"].process / both["off"].process, 3),
    }

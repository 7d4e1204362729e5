"""What ``demo --otlp`` adds to every process of the shop: OpenTelemetry's SDK, which sends spans and metrics
to a collector by OTLP over HTTP, and the stock instrumentations of the HTTP servers and clients.

All is as any application would set it up. What does not reach the collector is dropped, past bounds that
stand here: neither calls nor the end of a process wait for it longer than that.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

A = TypeVar("A")

DEFAULT = "http://127.0.0.1:4318"
"""Where OTLP over HTTP is taken by default."""
VARIABLE = "DEMO_OTLP"
"""Tells the shop's processes where they send to."""
NEEDED = (
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.instrumentation.fastapi",
    "opentelemetry.instrumentation.flask",
    "opentelemetry.instrumentation.httpx",
)
NOT_WATCHED = "/.well-known/"
"""Addresses without a span of the server's: the demo itself asks there whether a service is up."""

QUEUE_MAX = 4_096
"""Spans that wait for the collector in one process; one more, and the oldest goes."""
BATCH_MAX = 512
SEND_EVERY_S = 0.5
"""Short: a service that is killed takes with it what it has not sent."""
MEASURE_EVERY_S = 2.0
SEND_S_MAX = 5.0
"""What one batch may take, its tries together."""
LEAVE_S_MAX = 3.0
"""What a process waits for the collector when it ends."""
PROBE_S_MAX = 1.0


def missing() -> list[str]:
    """The packages that are needed and not installed."""
    return [name for name in NEEDED if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False


def is_url(endpoint: str) -> bool:
    """Whether spans can be sent there at all."""
    try:
        place = urlsplit(endpoint)
        return place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        return False


def takes_spans(endpoint: str) -> bool:
    """Whether something at ``endpoint`` takes an export of nothing."""
    place = urlsplit(endpoint)
    kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
    connection = kind(place.netloc, timeout=PROBE_S_MAX)
    try:
        headers = {"Content-Type": "application/x-protobuf"}
        connection.request("POST", f"{place.path.rstrip('/')}/v1/traces", b"", headers)
        status = connection.getresponse().status
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    # Who wants credentials gets them from the exporters (OTEL_EXPORTER_OTLP_HEADERS), not here.
    return status < 300 or status in (401, 403)


def begin(service: str) -> None:
    """Have this process export as ``service``, if the demo was told to; before it makes its first call."""
    endpoint = os.environ.get(VARIABLE)
    if endpoint is None:
        return
    from opentelemetry import metrics, trace
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    spans, measurements = providers(service, endpoint)
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(measurements)
    HTTPXClientInstrumentor().instrument()
    atexit.register(leaving(spans.shutdown, measurements.shutdown))


def watched(app: A) -> A:
    """``app`` with the stock instrumentation of its framework, if the demo was told to export."""
    if VARIABLE in os.environ:
        from fastapi import FastAPI
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        if isinstance(app, FastAPI):
            # Without a span for each piece that is sent and received.
            FastAPIInstrumentor.instrument_app(
                app, excluded_urls=NOT_WATCHED, exclude_spans=["receive", "send"]
            )
        else:
            instrument: Any = FlaskInstrumentor().instrument_app
            instrument(app, excluded_urls=NOT_WATCHED)
    return app


def providers(service: str, endpoint: str) -> tuple[Any, Any]:
    """The SDK's providers of spans and of metrics, which send to ``endpoint``."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    base = endpoint.rstrip("/")
    resource = Resource.create({"service.name": service, "service.instance.id": f"{service}-{os.getpid()}"})
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(f"{base}/v1/traces", timeout=SEND_S_MAX),
            max_queue_size=QUEUE_MAX,
            max_export_batch_size=BATCH_MAX,
            schedule_delay_millis=SEND_EVERY_S * 1000,
        )
    )
    # A backend for traces alone takes none, and says so every time.
    logging.getLogger(OTLPMetricExporter.__module__).setLevel(logging.CRITICAL)
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{base}/v1/metrics", timeout=SEND_S_MAX),
        export_interval_millis=MEASURE_EVERY_S * 1000,
        export_timeout_millis=SEND_S_MAX * 1000,
    )
    return spans, MeterProvider([reader], resource=resource, shutdown_on_exit=False)


def leaving(*send_the_rest: Callable[[], object]) -> Callable[[], None]:
    """What to do when the process ends: send the rest, but not for longer than ``LEAVE_S_MAX``.

    The SDK itself waits for half a minute. The thread is there from the beginning: none can be started in the
    end.
    """
    time_to_go, done = threading.Event(), threading.Event()

    def wait_and_send() -> None:
        time_to_go.wait()
        for send in send_the_rest:
            send()
        done.set()

    threading.Thread(target=wait_and_send, name="demo-leaving", daemon=True).start()

    def leave() -> None:
        time_to_go.set()
        done.wait(LEAVE_S_MAX)

    return leave

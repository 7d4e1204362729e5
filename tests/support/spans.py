"""Spans as an SDK has them at its end, and the stock instrumentations, for a test at a time.

Nothing here is the process's own: other tests run in it as if there were no SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenmesh.telemetry import switch

CLIENTS = (HTTPXClientInstrumentor, RequestsInstrumentor)


class Spans:
    """What was exported."""

    def __init__(self, **options: Any) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def all(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that have ended, in the order in which they began."""
        spans = self._memory.get_finished_spans()
        return sorted((one for one in spans if name in (None, one.name)), key=lambda one: one.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (found,) = self.all(name)
        return found

    def clear(self) -> None:
        self._memory.clear()

    def path(self, span: ReadableSpan) -> list[str]:
        """From the root of its trace to ``span``: ``name KIND`` of each that was exported."""
        by_id = {one.context.span_id: one for one in self.all()}
        names: list[str] = []
        at: ReadableSpan | None = span
        while at is not None:
            names.insert(0, f"{at.name} {at.kind.name}")
            at = by_id.get(at.parent.span_id) if at.parent is not None else None
        return names


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


@contextmanager
def watched(**options: Any) -> Iterator[Spans]:
    """tokenmesh's spans, of a provider that is not the process's own."""
    spans = Spans(**options)
    switch.switch_on(spans.provider)
    try:
        yield spans
    finally:
        switch.switch_on()


@contextmanager
def instrumented(spans: Spans, *apps: Any) -> Iterator[None]:
    """The stock instrumentations of httpx and requests, and those of ``apps``."""
    with ExitStack() as stack:
        for kind in CLIENTS:
            instrumentor = kind()
            instrumentor.instrument(tracer_provider=spans.provider)
            stack.callback(instrumentor.uninstrument)
        for app in apps:
            server: Any = FastAPIInstrumentor if isinstance(app, FastAPI) else FlaskInstrumentor()
            server.instrument_app(app, tracer_provider=spans.provider)
            stack.callback(server.uninstrument_app, app)
        yield

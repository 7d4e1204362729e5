"""What a request carries from one process to the next, whatever propagators the process has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import CarrierT, Setter, TextMapPropagator, default_setter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tokenmesh.telemetry import inject, switch, traceparent

STATE = trace.TraceState([("vendor", "1")])
W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


class Tenant(TraceContextTextMapPropagator):
    """W3C's, and one header more."""

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        super().inject(carrier, context, setter)
        setter.set(carrier, "x-tenant", "ada")


class Nothing(TextMapPropagator):
    """Lets nothing out."""

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        pass

    def extract(self, carrier: object, context: Context | None = None, getter: object = None) -> Context:
        return context or Context()

    @property
    def fields(self) -> set[str]:
        return {"traceparent"}


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Somebody listens; the process has its propagators back afterwards."""
    before = propagate.get_global_textmap()
    switch.switch_on(TracerProvider(shutdown_on_exit=False))
    yield
    switch.switch_on()
    propagate.set_global_textmap(before)


def carried(
    propagator: TextMapPropagator, state: trace.TraceState | None = None, **said: str
) -> dict[str, str]:
    """The headers of a request in a span's context."""
    propagate.set_global_textmap(propagator)
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1), state))
    here = trace.set_span_in_context(span)
    for name, value in said.items():
        here = baggage.set_baggage(name, value, here)
    token = context.attach(here)
    try:
        headers: dict[str, str] = {}
        inject(headers)
        assert traceparent() == TP
        return headers
    finally:
        context.detach(token)


TP = f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.mark.parametrize("propagator", [W3C, TraceContextTextMapPropagator()])
def test_the_usual_propagators_say_the_trace(propagator: TextMapPropagator) -> None:
    assert carried(propagator) == {"traceparent": TP}


def test_state_and_baggage_go_along() -> None:
    assert carried(W3C, STATE) == {"traceparent": TP, "tracestate": "vendor=1"}
    assert carried(W3C, user="ada") == {"traceparent": TP, "baggage": "user=ada"}
    assert carried(TraceContextTextMapPropagator(), user="ada") == {"traceparent": TP}


def test_propagators_of_ones_own_are_asked() -> None:
    """Also those that are kinds of W3C's, or that keep a trace to themselves."""
    assert carried(Tenant()) == {"traceparent": TP, "x-tenant": "ada"}
    assert carried(CompositePropagator([W3CBaggagePropagator(), Tenant()]))["x-tenant"] == "ada"
    assert carried(Nothing()) == {}
    assert carried(W3CBaggagePropagator()) == {}


def test_each_span_is_spelled_by_itself() -> None:
    """The one before is remembered, and never taken for another."""
    for number in (1, 2, 1):
        span = trace.NonRecordingSpan(trace.SpanContext(number, number, False, trace.TraceFlags(0)))
        with trace.use_span(span):
            assert traceparent() == f"00-{number:032x}-{number:016x}-00"

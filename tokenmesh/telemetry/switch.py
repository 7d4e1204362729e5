"""Whether anyone listens: the tracer and the context that spans, metrics and log records share.

tokenmesh speaks OpenTelemetry's API directly, so it is on as soon as the application has an SDK, and the cost
of a call without one is that of asking here. :class:`~tokenmesh.telemetry.instrumentor.TokenmeshInstrumentor`
switches it off, or to a provider that is not the process's own.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from contextvars import Token
from functools import lru_cache
from typing import Any, Protocol

from opentelemetry import baggage, propagate, trace
from opentelemetry import context as contexts
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.trace import ProxyTracerProvider, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tokenmesh.telemetry.environment import disabled
from tokenmesh.telemetry.names import SCOPE
from tokenmesh_chaincode.documents import Contract

ASK_AGAIN_S = 0.005
"""As long as there is no SDK, it is asked for so seldom: OpenTelemetry reads the environment each time. But
a call that begins so soon after the SDK was set up has no span, so it is short."""

_KEY = contexts.create_key("tokenmesh-paid")
_TRACEPARENT = "traceparent"
_W3C = frozenset({TraceContextTextMapPropagator, W3CBaggagePropagator})


class Paid(Protocol):
    """Something under way that is paid for by a contract."""

    @property
    def contract(self) -> Contract | None: ...


class _Switch:
    """The process's one switch: for its spans as for everything else of OpenTelemetry's API."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.off = disabled()
        self.ask_at = float("-inf")
        self.quiet_until = float("-inf")
        self.ids_in_logs = 0
        self.spelled: tuple[trace.SpanContext, str] = (trace.INVALID_SPAN_CONTEXT, "")


_switch = _Switch()


def tracer() -> Tracer | None:
    """The tracer; None as long as there is nothing behind it, and up to ``ASK_AGAIN_S`` longer."""
    if _switch.tracer is not None or _switch.off:
        return _switch.tracer
    now = time.monotonic()
    if now < _switch.ask_at:
        return None
    _switch.ask_at = now + ASK_AGAIN_S
    provider = trace.get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider):
        return None
    # A process sets its provider once, so this one stays.
    _switch.tracer = provider.get_tracer(SCOPE)
    return _switch.tracer


def switch_on(provider: TracerProvider | None = None) -> None:
    """Have spans, of ``provider`` or else of the process's own."""
    _switch.off = False
    _switch.ask_at = float("-inf")
    listen()
    _switch.tracer = None if provider is None else provider.get_tracer(SCOPE)


def switch_off() -> None:
    """Have no spans, whatever the process has set up."""
    _switch.off = True
    _switch.tracer = None


def want_ids_in_logs(by: int) -> None:
    """Count one more (1) or one less (-1) that wants to know the contract of a log record."""
    _switch.ids_in_logs += by
    listen()


def ids_in_logs() -> bool:
    """Whether contracts have to be in the context even where there are no spans."""
    return _switch.ids_in_logs > 0


def is_quiet() -> bool:
    """Whether it was found a moment ago that nobody listens: the usual case, which is to be cheap."""
    return time.monotonic() < _switch.quiet_until


def be_quiet() -> None:
    """It was found so now."""
    _switch.quiet_until = time.monotonic() + ASK_AGAIN_S


def listen() -> None:
    """Somebody begins to listen."""
    _switch.quiet_until = float("-inf")


# The context


def attach(paid: Paid, context: Context | None) -> Token[Context] | None:
    """Make ``context`` the current one (None: leave the one that is), and ``paid`` what is under way, for who
    asks. None: there was nothing to do."""
    if _switch.ids_in_logs > 0:
        context = contexts.set_value(_KEY, paid, context)
    return None if context is None else contexts.attach(context)


def paid_here() -> Paid | None:
    """What is under way in this context."""
    found: Any = contexts.get_value(_KEY)
    paid: Paid | None = found
    return paid


# From one process to the next


def traceparent() -> str | None:
    """The W3C ``traceparent`` of the current span."""
    context = trace.get_current_span().get_span_context()
    _, _, _, _, _, valid = context
    return _spelled(context) if valid else None


def _spelled(context: trace.SpanContext) -> str:
    last, spelled = _switch.spelled
    if last is not context:  # a call's contract and its headers name the same span, one after the other
        trace_id, span_id, _, flags, _, _ = context
        text = (trace_id << 72 | span_id << 8 | flags & 0xFF).to_bytes(25, "big").hex()
        spelled = f"00-{text[:32]}-{text[32:48]}-{text[48:]}"
        _switch.spelled = context, spelled
    return spelled


def inject(headers: MutableMapping[str, str]) -> None:
    """Write the current trace and baggage into a request's headers, as the process's propagators say.

    An instrumentation of the HTTP client beneath writes its own span over it.
    """
    if tracer() is None:
        return
    current = contexts.get_current()
    context = trace.get_current_span(current).get_span_context()
    _, _, _, _, state, valid = context
    if not valid:
        return
    # Where the span is all that there is in the context, there is no baggage.
    if (
        state
        or (len(current) > 1 and baggage.get_all(current))
        or not _are_usual(propagate.get_global_textmap())
    ):
        propagate.inject(headers)
    else:
        headers[_TRACEPARENT] = _spelled(context)


@lru_cache(maxsize=1)
def _are_usual(propagator: TextMapPropagator) -> bool:
    """Whether the propagators are those of the W3C, which is what OpenTelemetry sets up unless told
    otherwise: where there is neither state nor baggage, all that they have to say is ``traceparent``."""
    parts = getattr(propagator, "_propagators", (propagator,))
    return {TraceContextTextMapPropagator} <= {type(part) for part in parts} <= _W3C


class Received(Protocol):
    """A request that has come in."""

    def headers(self, names: tuple[str, ...]) -> dict[str, str]:
        """Those of these headers that it has."""


class _Headers(Getter[Received]):
    """Reads a request's headers."""

    def get(self, carrier: Received, key: str) -> list[str] | None:
        return list(carrier.headers((key,)).values()) or None

    def keys(self, carrier: Received) -> list[str]:
        return list(carrier.headers(_fields(propagate.get_global_textmap())))


_headers = _Headers()


@lru_cache(maxsize=1)
def _fields(propagator: TextMapPropagator) -> tuple[str, ...]:
    return tuple(propagator.fields)


def parent(request: Received, tp: str | None) -> Context:
    """The context for the span of a request: the current one, if a span is there.

    Without an instrumentation of the server, it is what the request's headers say, or else its contract.
    """
    context = contexts.get_current()
    if context and trace.get_current_span(context).get_span_context().is_valid:
        return context
    said = request.headers(_fields(propagate.get_global_textmap()))
    # Headers that say what the contract says, or nothing, need not be read.
    if said and said != {_TRACEPARENT: tp}:
        context = propagate.extract(request, getter=_headers)
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
    remote = span_context(tp)
    return context if remote is None else trace.set_span_in_context(trace.NonRecordingSpan(remote), context)


@lru_cache(maxsize=4)
def _flags(text: str) -> trace.TraceFlags:
    return trace.TraceFlags(int(text, 16))


def span_context(tp: str | None) -> trace.SpanContext | None:
    """The span that a ``traceparent`` names, None for a text that is none."""
    if tp is None:
        return None
    try:
        version, trace_id, span_id, flags = tp.split("-")[:4]
        context = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, _flags(flags))
    except ValueError:
        return None
    _, _, _, _, _, valid = context
    return context if valid and version != "ff" else None

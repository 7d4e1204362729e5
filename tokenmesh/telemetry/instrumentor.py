"""The entry point ``opentelemetry_instrumentor``: ``opentelemetry-instrument python app.py`` finds us here.

tokenmesh speaks OpenTelemetry's API by itself, so there is nothing to patch. What the instrumentor is for: to
hand over providers that are not the process's own, and to switch everything off and on again. It alone needs
``opentelemetry-instrumentation`` (the extra ``otel``), and nothing else imports it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from tokenmesh.telemetry.instruments import meters_off, meters_on
from tokenmesh.telemetry.switch import switch_off, switch_on


class TokenmeshInstrumentor(BaseInstrumentor):  # type: ignore[misc] # its module has no types
    """Switches tokenmesh's spans and metrics on and off.

    ``TokenmeshInstrumentor().instrument(tracer_provider=..., meter_provider=...)`` has them made by these
    providers; what is left out is the process's own.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: what is instrumented is the distribution that this class is in."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        switch_on(kwargs.get("tracer_provider"))
        meters_on(kwargs.get("meter_provider"))

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base's signature
        switch_off()
        meters_off()

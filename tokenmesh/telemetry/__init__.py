"""Spans, metrics and ids for log records, through the OpenTelemetry API and nothing else of it.

The SDK is the application's choice; without one a call costs next to nothing here. What there is to see is in
docs/reference/telemetry.md and docs/reference/metrics.md. Nothing here ever has a body, a key or a signature.
"""

from tokenmesh.telemetry.calls import CallWatch, FulfilWatch
from tokenmesh.telemetry.settlements import Settled, SettleWatch
from tokenmesh.telemetry.switch import inject, traceparent

__all__ = ["CallWatch", "FulfilWatch", "SettleWatch", "Settled", "inject", "traceparent"]

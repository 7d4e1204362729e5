"""Spans, metrics and ids for log records, through the OpenTelemetry API and nothing else of it.

The SDK is the application's choice; without one a call costs next to nothing here. What there is to see is in
docs/reference/telemetry.md and docs/reference/metrics.md. Nothing here ever has a body, a key or a signature.
"""

from tokenmesh.telemetry import names
from tokenmesh.telemetry.calls import CallWatch, FulfilWatch
from tokenmesh.telemetry.instruments import Reading, hide, show, show_build
from tokenmesh.telemetry.journals import JournalGauges
from tokenmesh.telemetry.ledgers import LedgerWatch, now
from tokenmesh.telemetry.logs import about, log
from tokenmesh.telemetry.settlements import Settled, SettleWatch, measure_round
from tokenmesh.telemetry.switch import inject, traceparent

__all__ = [
    "CallWatch",
    "FulfilWatch",
    "JournalGauges",
    "LedgerWatch",
    "Reading",
    "SettleWatch",
    "Settled",
    "about",
    "hide",
    "inject",
    "log",
    "measure_round",
    "names",
    "now",
    "show",
    "show_build",
    "traceparent",
]

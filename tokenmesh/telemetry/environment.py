"""What the environment says of tokenmesh's own spans and metrics, in OpenTelemetry's variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

INSTRUMENTATION: Final = "tokenmesh"
"""Our name among the instrumentations, as the entry point has it."""
DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the environment switches this instrumentation off.

    ``opentelemetry-instrument`` only leaves our instrumentor out then. As tokenmesh speaks the API by itself,
    the variable has to be read here too, and it holds whoever has set the SDK up.
    """
    listed = (os.environ if environ is None else environ).get(DISABLED, "")
    return not {INSTRUMENTATION, "*"}.isdisjoint(name.strip() for name in listed.split(","))

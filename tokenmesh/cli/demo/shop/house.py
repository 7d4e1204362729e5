"""What all services of the shop have in common: they keep a record of their own, and fail politely."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx
from opentelemetry import trace

from tokenmesh import current_contract
from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.notes import Notes
from tokenmesh.cli.demo.plan import Paths
from tokenmesh.errors import CallError

T = TypeVar("T")
P = ParamSpec("P")

SERVICE = os.environ["TOKENMESH_SERVICE"]
_paths = Paths(Path(os.environ["TOKENMESH_HOME"]))
_runs = Notes(_paths.runs(SERVICE))
_happenings = Notes(_paths.happenings)
_tracer = trace.get_tracer("shop")
exporting.begin(SERVICE)

CannotServe = (CallError, httpx.HTTPError)
"""What a call to another service of the shop may end with: it did not work out, or it said no."""


def spanned(handler: Callable[P, T]) -> Callable[P, T]:
    """A handler with a span of its own, as an application has them where it wants to see itself at work."""
    decorate: Any = _tracer.start_as_current_span(f"shop {handler.__name__}")
    spanned: Callable[P, T] = decorate(handler)
    return spanned


def note_run() -> None:
    """Note that a handler runs, and under which contract.

    Every handler begins with it. The auditor counts these notes: they know nothing of the journal, so a
    handler that ran twice for one contract cannot hide.
    """
    contract = current_contract()
    if contract is not None:
        _runs.write(t=time.time(), payer=contract.iss, jti=contract.jti, op=contract.op, pid=os.getpid())


def tell(what: str, error: Exception) -> None:
    """Tell the people who watch that something did not work out."""
    _happenings.write(
        t=time.time(),
        service=SERVICE,
        what=what,
        why=type(error).__name__,
        code=getattr(error, "code", ""),
        payee=getattr(error, "service", None),
        detail=str(error)[:300],
    )


def because(error: Exception) -> dict[str, str]:
    """The body of a 424: this service is well, but one that it depends on did not do its part."""
    tell("could not serve", error)
    return {"detail": f"{SERVICE} depends on a call that failed: {type(error).__name__}"}


async def or_else(call: Awaitable[T], instead: T, without: str) -> T:
    """What ``call`` gives, or ``instead`` if it fails: the page is served without it."""
    try:
        return await call
    except CannotServe as error:
        tell(f"served without {without}", error)
        return instead

"""What a payee says in the log of calls that do not go as usual; of the others it says nothing."""

from __future__ import annotations

import logging

from tokenmesh.provider.call import Call
from tokenmesh.telemetry import about, log

_log = log("tokenmesh.provider")


def say_refused(operation: str, code: str, call: Call | None) -> None:
    """A request was answered with a problem: what its contract says is worth no more than its signature."""
    if not _log.isEnabledFor(logging.INFO):
        return  # before anything is looked up for a record that nobody gets: strangers cause these
    known = about(None if call is None else call.contract, operation=operation)
    _log.info("a call of %s is refused: %s", operation, code, extra=known)


def say_void(operation: str, why: str, call: Call) -> None:
    """A contract has ended void, for ``why``."""
    _log.info("a call of %s is void: %s", operation, why, extra=about(call.contract, operation=operation))

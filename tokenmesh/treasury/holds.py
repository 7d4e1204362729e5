"""Holds of one wallet that are asked for at the same time: placed together, by one operation.

A lone caller's hold goes to the ledger at once. Those who come while it is on its way wait for it, and then
travel together: one signature for all of them, and one record. Two operations of a payer would only get into
each other's way, for both spend from its balance.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.steps import Steps
from tokenmesh.treasury.operations import Operations, spawn
from tokenmesh_chaincode.limits import HOLD_ITEMS_MAX
from tokenmesh_chaincode.rules import OK, Outcome


class Wanted(NamedTuple):
    """A hold that somebody waits for: the ``arg`` of its operation."""

    arg: dict[str, Any]
    placed: Future[Outcome]

    @property
    def item(self) -> list[Any]:
        """It as one of many."""
        return [self.arg[name] for name in ("id", "payee", "tokens", "exp")]


class HoldDesk:
    """Places holds by ``operations``. Thread-safe; has no thread of its own."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._waiting: deque[Wanted] = deque()
        self._busy = False

    def place(self, arg: dict[str, Any]) -> Future[Outcome]:
        """Have a hold placed; the future has what came of it, or the ledger's error."""
        wanted = Wanted(arg, Future())
        with self._lock:
            self._waiting.append(wanted)
            begin, self._busy = not self._busy, True
        if begin:
            spawn(self._place_all(), Future())
        return wanted.placed

    def _place_all(self) -> Steps[None]:
        """Place what waits, and what has come meanwhile, until nothing does."""
        while some := self._take():
            try:
                yield from self._place(some)
            except Exception as error:
                _fail(some, error)
            except GeneratorExit:
                _fail(some, LedgerOutcomeUnknown("what was to be heard of these holds was cancelled"))
                with self._lock:
                    self._busy = False
                raise

    def _take(self) -> list[Wanted]:
        with self._lock:
            some = [self._waiting.popleft() for _ in range(min(len(self._waiting), HOLD_ITEMS_MAX))]
            self._busy = bool(some)
            return some

    def _place(self, some: list[Wanted]) -> Steps[None]:
        if len(some) == 1:
            (wanted,) = some
            wanted.placed.set_result((yield from self._operations.perform("hold", wanted.arg)))
            return
        for wanted in (yield from self._place_together(some)):
            # The outcome of an operation of its own says all that there is to say.
            spawn(self._operations.perform("hold", wanted.arg), wanted.placed)

    def _place_together(self, some: list[Wanted]) -> Steps[list[Wanted]]:
        """Place many by one operation; gives those that are not placed by it."""
        outcome = yield from self._operations.perform("holds", {"holds": [wanted.item for wanted in some]})
        if not outcome.ok:
            return some
        left = []
        for wanted in some:
            if wanted.arg["id"] in outcome.detail["refused"]:
                left.append(wanted)
            else:
                wanted.placed.set_result(Outcome(True, OK, {}))
        return left


def _fail(some: list[Wanted], error: Exception) -> None:
    for wanted in some:
        if not wanted.placed.done():
            # One exception each: a shared one would collect the tracebacks of all who raise it.
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            wanted.placed.set_exception(own)

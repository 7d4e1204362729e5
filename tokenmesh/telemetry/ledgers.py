"""What a ledger's queues and transactions show of themselves, whatever kind of ledger it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from tokenmesh.telemetry import names
from tokenmesh.telemetry.instruments import Attributes, Reading, hide, meters, show


class Queue(Protocol):
    """Where operations wait: how many of them, and how many may."""

    @property
    def waiting(self) -> int: ...
    @property
    def limit(self) -> int: ...


class LedgerWatch:
    """Measures one ledger. ``kind`` is what it is called in metrics."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._queue: Queue | None = None

    def queues(self, queue: Queue) -> None:
        """Operations wait in ``queue``."""
        self._queue = queue
        show(self)

    def close(self) -> None:
        """Show nothing any more."""
        hide(self)

    def readings(self) -> Iterator[Reading]:
        """See :class:`~tokenmesh.telemetry.instruments.Source`."""
        if self._queue is not None:
            about = {names.LEDGER_KIND: self.kind}
            yield Reading("tokenmesh.ledger.waiting", self._queue.waiting, about)
            yield Reading("tokenmesh.ledger.waiting_limit", self._queue.limit, about)

    def submitted(self, future: Future[Any]) -> None:
        """Operations were handed in; ``future`` will have their results."""
        if meters() is not None:
            since = time.perf_counter()
            future.add_done_callback(lambda done: self._answered("submit", since, done))

    def asked(self, future: Future[Any]) -> None:
        """A question was put; ``future`` will have the answer."""
        if meters() is not None:
            since = time.perf_counter()
            future.add_done_callback(lambda done: self._answered("query", since, done))

    def transaction(self, since: float, size: int, error: BaseException | None = None) -> None:
        """One transaction of ``size`` operations, begun at ``since`` (:func:`now`), is over."""
        instruments = meters()
        if instruments is not None:
            took = time.perf_counter() - since
            instruments.record("tokenmesh.ledger.transaction.duration", took, self._about(error))
            if error is None:
                kind = {names.LEDGER_KIND: self.kind}
                instruments.record("tokenmesh.ledger.transaction.size", size, kind)

    def refused(self, codes: Iterable[str]) -> None:
        """The rules refused operations, for these codes."""
        instruments = meters()
        if instruments is not None:
            for code in codes:
                about = {names.LEDGER_KIND: self.kind, names.CODE: instruments.reason(code)}
                instruments.record("tokenmesh.ledger.refusals", 1, about)

    def conflict(self, code: str) -> None:
        """A transaction lost to another one, and is made anew."""
        instruments = meters()
        if instruments is not None:
            about = {names.LEDGER_KIND: self.kind, names.CODE: instruments.reason(code)}
            instruments.record("tokenmesh.ledger.conflicts", 1, about)

    def again(self, error: BaseException) -> None:
        """Something is sent again."""
        instruments = meters()
        if instruments is not None:
            instruments.record("tokenmesh.ledger.retries", 1, self._about(error))

    def _answered(self, what: str, since: float, done: Future[Any]) -> None:
        instruments = meters()
        if instruments is not None and not done.cancelled():
            took = time.perf_counter() - since
            instruments.record(f"tokenmesh.ledger.{what}.duration", took, self._about(done.exception()))

    def _about(self, error: BaseException | None) -> Attributes:
        about = {names.LEDGER_KIND: self.kind}
        instruments = meters()
        if error is not None and instruments is not None:
            about[names.ERROR_TYPE] = instruments.reason(type(error).__name__)
        return about


def now() -> float:
    """When something begins that is to be measured."""
    return time.perf_counter()

"""What the ledger said lately, kept in memory: the warm path never waits for the ledger.

An entry is believed for ``believe_s`` seconds. From a part of that age on, whoever uses it also has it asked
for anew in the background, so an operation in steady use always finds a fresh one. Past it, or where there
is none, the caller waits. Entries, and questions under way, are bounded.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from tokenmesh.errors import LedgerBusy, LedgerUnavailable
from tokenmesh.steps import Sleep, Steps, Within

V = TypeVar("V")

REFRESH_AT = 0.2
"""The part of ``believe_s`` after which an entry in use is asked for anew."""
ASK_AGAIN_S = 0.05
"""How long after a question that came of doubt (an unknown certificate, an allowance used up) the next one
may: a stranger must not be able to turn every request into a question to the ledger."""
MISSING: Any = object()
PENDING_MAX = 256
"""Questions to the ledger under way at once."""


def within(answer: Future[V], seconds: float) -> Steps[V]:
    """The answer of the ledger; :class:`LedgerUnavailable` if it takes longer than ``seconds``."""
    if answer.done():
        return answer.result()
    try:
        value: V = yield Within(answer, seconds)
    except TimeoutError as error:
        raise LedgerUnavailable(f"the ledger did not answer within {seconds:g} s") from error
    return value


class _Entry(Generic[V]):
    """``tried_at`` is when the ledger was asked last, whether or not it has answered."""

    __slots__ = ("asked_at", "doubted_at", "tried_at", "value")

    def __init__(self, value: V, asked_at: float, doubted_at: float) -> None:
        self.value = value
        self.asked_at = self.tried_at = asked_at
        self.doubted_at = doubted_at


class Mirror(Generic[V]):
    """Answers of ``ask(key)``, made into what is needed by ``read`` (in the ledger's thread)."""

    def __init__(
        self,
        ask: Callable[[str], Future[Any]],
        read: Callable[[Any], V],
        clock: Callable[[], float],
        *,
        believe_s: float,
        size_max: int,
        wait_s: float,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self.believe_s = believe_s
        self._ask = ask
        self._read = read
        self._clock = clock
        self._size_max = size_max
        self._wait_s = wait_s
        self._pending_max = pending_max
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._pending: dict[str, Future[V]] = {}
        self._lock = threading.Lock()

    def at_hand(self, key: str) -> V | Any:
        """The value for ``key`` as it was said last, however old; ``MISSING`` if there is none."""
        entry = self._entries.get(key)
        return MISSING if entry is None else entry.value

    def fresh_until(self, key: str) -> float:
        """Until when ``get`` gives what it gives now, without having it asked for anew."""
        entry = self._entries.get(key)
        return -math.inf if entry is None else entry.asked_at + self.believe_s * REFRESH_AT

    def is_asked(self, key: str) -> bool:
        """Whether a question about ``key`` is under way, which who asks now would share."""
        return key in self._pending

    def believable(self, key: str) -> V | Any:
        """The value for ``key``, if what was said last may be believed; ``MISSING`` if the ledger has to be
        waited for. What is getting old is asked for anew."""
        entry = self._entries.get(key)
        if entry is None:
            return MISSING
        now = self._clock()
        if now - entry.asked_at >= self.believe_s:
            return MISSING
        # Below zero: the clock was set back, and the entry may be older than it seems. Asked once in a while
        # and not by everyone who comes: a ledger that is down would get a question for each request.
        if not 0 <= now - entry.tried_at < self.believe_s * REFRESH_AT:
            entry.tried_at = now
            with suppress(LedgerBusy):
                self._fetch(key)
        return entry.value

    def get(self, key: str) -> Steps[V]:
        """The value for ``key``, waiting for the ledger only if nothing believable is at hand."""
        value = self.believable(key)
        if value is not MISSING:
            return value
        return (yield from within(self._fetch(key), self._wait_s))

    def is_doubted(self, key: str) -> bool:
        """Whether somebody has doubted what is said of ``key`` just now, so that :meth:`again` would wait."""
        entry = self._entries.get(key)
        return entry is not None and 0 < ASK_AGAIN_S - (self._clock() - entry.doubted_at) <= ASK_AGAIN_S

    def again(self, key: str) -> Steps[V]:
        """The value for ``key`` for one who doubts what was said last, as the ledger says it from now on.

        One question at a time, and one in ``ASK_AGAIN_S``: who comes sooner waits, and shares the next.
        """
        pending = self._pending.get(key)
        if pending is not None:
            # Asked before the doubt arose: what it answers may be what is doubted.
            yield from within(pending, self._wait_s)
        entry = self._entries.get(key)
        if entry is not None:
            early = ASK_AGAIN_S - (self._clock() - entry.doubted_at)
            if 0 < early <= ASK_AGAIN_S:
                yield Sleep(early)
                newer = self._entries.get(key)
                if newer is not None and newer is not entry:
                    return newer.value
            entry.doubted_at = self._clock()
        return (yield from within(self._fetch(key), self._wait_s))

    def _fetch(self, key: str) -> Future[V]:
        """One question for all who ask at the same time."""
        with self._lock:
            pending = self._pending.get(key)
            if pending is not None:
                return pending
            if len(self._pending) >= self._pending_max:
                raise LedgerBusy(
                    f"{len(self._pending)} questions wait for the ledger already: try again later"
                )
            answer: Future[V] = Future()
            self._pending[key] = answer
        asked_at = self._clock()
        try:
            question = self._ask(key)
        except BaseException as error:
            self._settle(key, answer, error=error)
            return answer

        def done(finished: Future[Any]) -> None:
            try:
                value = self._read(finished.result())
            except BaseException as error:
                self._settle(key, answer, error=error)
                return
            self._keep(key, value, asked_at)
            self._settle(key, answer, value=value)

        question.add_done_callback(done)
        return answer

    def _settle(
        self, key: str, answer: Future[V], *, value: Any = None, error: BaseException | None = None
    ) -> None:
        with self._lock:
            self._pending.pop(key, None)
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)

    def _keep(self, key: str, value: V, asked_at: float) -> None:
        # What is in use is asked for again and so moves to the end: the first in line is the least used.
        with self._lock:
            last = self._entries.get(key)
            self._entries[key] = _Entry(value, asked_at, -math.inf if last is None else last.doubted_at)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size_max:
                self._entries.popitem(last=False)

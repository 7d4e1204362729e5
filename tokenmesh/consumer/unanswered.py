"""Contracts of which nobody knows how they ended, kept for the next call that asks for the same.

A caller that got no answer asks again: that is what a loop does. For a request that means the same once or
twice (RFC 9110, section 9.2.2) the next call then carries on the contract of the last one: it finds the
response if the work was done, and pays once. Requests of other methods may be meant twice; only their caller
can say that they are not, with an idempotency key.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple


class Sought(NamedTuple):
    """What makes two requests the same: where they go, and all that their contract binds."""

    service: str
    url: str
    method: str
    target: str
    digest: str


class Unanswered:
    """Ids of contracts in doubt: at most ``most`` of them, for ``life_s`` seconds each. Thread-safe.

    Their life counts from the end of the call, not of the contract: a process that stood still for longer
    than a contract is good asks again as soon as it goes on.
    """

    def __init__(self, most: int, life_s: float, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._life_s = life_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left: OrderedDict[Sought, deque[tuple[str, float]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def leave(self, sought: Sought, jti: str, until: float | None = None) -> None:
        """The contract ``jti`` may have been taken, or may still be. ``until``: how long it was to be kept
        when it was taken up, if it was not sent since."""
        if until is None:
            until = self._monotonic() + self._life_s
        with self._lock:
            self._left.setdefault(sought, deque()).append((jti, until))
            self._left.move_to_end(sought)
            self._count += 1
            while self._count > self._most:
                self._pop(next(iter(self._left)))

    def take_up(self, sought: Sought) -> tuple[str, float] | None:
        """The oldest contract that was left for this request a short while ago, and until when it is kept;
        nobody else gets it."""
        now = self._monotonic()
        with self._lock:
            while sought in self._left:
                jti, until = self._pop(sought)
                if until > now:
                    return jti, until
        return None

    def _pop(self, sought: Sought) -> tuple[str, float]:
        waiting = self._left[sought]
        found = waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._left[sought]
        return found

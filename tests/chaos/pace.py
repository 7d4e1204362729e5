"""The time of a run: seconds in which this process could do something.

A machine that is busy, or held still for a while, must not make of a plan with pauses one without: what was
due meanwhile would be done all at once, to the same few. So a second that nobody could use does not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STEP_S = 0.1
STEP_S_MAX = 0.5
"""What a step may seem to take; more is time in which this process stood still."""


class Pace:
    """Begins at 0 when it is made. For any number of threads."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._seen = monotonic()
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the beginning; to be asked all the time, as ``until`` does."""
        with self._lock:
            seen = self._monotonic()
            self._now += min(seen - self._seen, STEP_S_MAX)
            self._seen = seen
            return self._now

    def until(self, moment: float) -> None:
        """Return when it is ``moment``, or later."""
        while (left := moment - self.now()) > 0:
            self._sleep(min(left, STEP_S))

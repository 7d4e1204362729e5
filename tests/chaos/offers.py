"""What the payee's three operations cost, and which jobs fail: the same for everyone, at every try."""

from __future__ import annotations

DRAWN, LOOK = 5, 2
HELD_MOST = 9
"""What a job by hold is charged is known only when it is done: at most this."""
FAILS_EVERY = 17
"""Of a caller's jobs one in so many fails: nothing is owed for it."""


def worth(job: str) -> int:
    """What a job by hold is charged."""
    return 1 + _number(job) % HELD_MOST


def fails(job: str) -> bool:
    return _number(job) % FAILS_EVERY == FAILS_EVERY - 1


def _number(job: str) -> int:
    return int(job.rpartition("-")[2])

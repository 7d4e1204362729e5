"""Many processes write to one ledger file: this waits for the file's write lock, politely and not for ever.

SQLite's own waiting backs off up to a tenth of a second, so a process with much to write would come first
again and again, and others would end in "database is locked". Here whoever waits stands at a turnstile, a
lock file beside the ledger: the one inside is next, and a process that has just written queues behind it.
"""

from __future__ import annotations

import fcntl
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from tokenmesh.errors import LedgerUnavailable

PAUSE_S = 0.0005
"""Between two looks. The same for all: whoever looked more often than others would pass them by."""
COURTESY_S_MAX = 0.25
"""How long to stand in line. Past it the file itself is tried: whoever is inside may have been stopped."""


class Turnstile:
    """Begins write transactions on one file, in turn with other processes and other ledgers of this one."""

    def __init__(
        self,
        path: Path,
        *,
        busy_s_max: float,
        random: random.Random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path.with_name(path.name + "-turn")
        self._busy_s_max = busy_s_max
        self._random = random
        self._clock = clock
        self._sleep = sleep
        self._file: int | None = None
        _OPEN.add(self)

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a write transaction; ``LedgerUnavailable`` if others hold the file for too long."""
        deadline = self._clock() + self._busy_s_max
        inside = self._wait(self._enter, min(deadline, self._clock() + COURTESY_S_MAX))
        try:
            if not self._wait(lambda: _begin(connection), deadline):
                raise LedgerUnavailable(
                    f"another process has been writing to the ledger for {self._busy_s_max:g} s "
                    "(ledger_busy_s_max): nothing happened, try again later"
                )
        finally:
            if inside and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _wait(self, attempt: Callable[[], bool], deadline: float) -> bool:
        while not attempt():
            if self._clock() >= deadline:
                return False
            self._sleep(PAUSE_S * (0.5 + self._random.random()))
        return True

    def _enter(self) -> bool:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _begin(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # The low byte is the kind; the rest says more (SQLITE_BUSY_RECOVERY, SQLITE_BUSY_SNAPSHOT).
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise
    return True


_OPEN: weakref.WeakSet[Turnstile] = weakref.WeakSet()


def _close_after_fork() -> None:
    # A lock taken through an inherited descriptor would outlive its process in a forked child.
    for turnstile in _OPEN:
        turnstile.close()


os.register_at_fork(after_in_child=_close_after_fork)

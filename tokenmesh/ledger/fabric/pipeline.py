"""Several batches on their way at once, such that no two of them get into each other's way.

A Fabric transaction takes a tenth of a second, most of it waiting. So while one is on its way the next may
begin, unless it touches what the first one changes: jobs bear keys, and a job waits while a key of its own is
on its way, or is wanted by a job that waits before it. What waits travels together once its turn comes; one
job for which nothing stands in the way goes at once, unless company is likely to come.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from tokenmesh.errors import LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.batching import CLOSE_S_MAX, Job, Room, fail

P = TypeVar("P")

NO_KEYS: frozenset[str] = frozenset()
QUIET_S = 0.004
GATHER_S_MAX = 0.04
"""Company is likely while something is on its way, or if jobs have travelled in company lately: callers who
wait for one transaction all come back at once, and one who went ahead would have the others wait for a
transaction of its own. Then what is to go next waits until for ``QUIET_S`` nothing has come to join it, and
half as many are there as lately; but no longer than ``GATHER_S_MAX``."""


class Entry(NamedTuple, Generic[P]):
    """A job, and what it must not meet another one at."""

    job: Job[P]
    keys: frozenset[str]


class Batch(NamedTuple, Generic[P]):
    """What travels together."""

    jobs: list[Job[P]]
    keys: set[str]


class Pipeline(Generic[P]):
    """Threads that do jobs in batches, ``in_flight_max`` batches at once.

    ``work`` gets the jobs of a batch, in the order they came, and answers their futures; several threads call
    it. If it raises, the jobs that it has not answered fail; ``unsure`` says whether they may then have
    happened nevertheless. Jobs with a common key are done in the order they came. Threads start when there is
    work for them.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job[P]]], None],
        room: Room,
        *,
        batch_max: int,
        batch_bytes_max: int,
        in_flight_max: int,
        unsure: bool = False,
    ) -> None:
        self._name = name
        self._work = work
        self._room = room
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._in_flight_max = in_flight_max
        self._error = LedgerOutcomeUnknown if unsure else LedgerUnavailable
        self._changed = threading.Condition()
        self._waiting: list[Entry[P]] = []
        self._wanted: Counter[str] = Counter()
        """The keys of all that waits."""
        self._in_flight: set[str] = set()
        self._batches = 0
        """How many batches are on their way."""
        self._arrived = 0
        self._gathering = False
        self._company = 1
        """How many jobs were in a batch lately; the longer ago, the less it counts."""
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._abandoned = False

    def put(self, job: Job[P], keys: frozenset[str] = NO_KEYS) -> None:
        """Queue ``job``; what cannot be taken in says so in its future."""
        if not self._room.admit(job):
            return
        with self._changed:
            if not self._closed:
                free = self._in_flight.isdisjoint(keys) and self._wanted.keys().isdisjoint(keys)
                self._waiting.append(Entry(job, keys))
                self._wanted.update(keys)
                self._arrived += 1
                # What is in somebody's way is looked at when that one is done: nobody need wake up for it.
                if free:
                    self._rouse()
                return
        fail([job], LedgerUnavailable("this ledger is closed: nothing more can be asked of it"))

    def close(self, timeout: float = CLOSE_S_MAX) -> bool:
        """Do what is queued, then stop; what is not begun within ``timeout`` seconds fails. Whether all of it
        has ended, and ``work`` will not be called any more."""
        if not self._room.is_ours:
            return False
        until = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            self._abandoned = True
            left = [entry.job for entry in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        fail(left, LedgerUnavailable("the ledger was closed before this was begun"))
        return not any(thread.is_alive() for thread in threads)

    def _rouse(self) -> None:
        """Have a thread look at what waits: one that has nothing to do, or one more."""
        if self._gathering:
            return  # that one will
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._in_flight_max:
            name = f"{self._name}-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._do(batch.jobs)
            with self._changed:
                self._in_flight -= batch.keys
                self._batches -= 1
            del batch  # a waiting thread keeps nobody's documents in memory

    def _take(self) -> Batch[P] | None:
        """The next batch, waiting for it; None when there will be none."""
        with self._changed:
            while not self._abandoned:
                if self._waiting and self._are_more_likely() and not self._gathering:
                    self._let_gather()
                batch = self._gather() if not self._gathering else Batch([], set())
                if batch.jobs:
                    self._in_flight |= batch.keys
                    self._batches += 1
                    self._company = max(len(batch.jobs), self._company // 4)
                    if self._waiting:
                        self._rouse()  # there may be something for another thread too
                    return batch
                if self._closed and not self._waiting:
                    self._changed.notify_all()
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def _are_more_likely(self) -> bool:
        """Whether others will probably come soon, to travel with what waits."""
        return self._batch_max > 1 and (self._batches > 0 or self._company > 1)

    def _let_gather(self) -> None:
        """Wait until nobody comes any more, for a while."""
        until = time.monotonic() + GATHER_S_MAX
        self._gathering = True
        before = -1
        while (
            (self._arrived != before or len(self._waiting) < self._company // 2)
            and len(self._waiting) < self._batch_max
            and (left_s := until - time.monotonic()) > 0
            and not self._closed
        ):
            before = self._arrived
            self._changed.wait(min(QUIET_S, left_s))
        self._gathering = False

    def _gather(self) -> Batch[P]:
        """Take out of what waits, in its order, as much as fits and as nothing stands in the way of."""
        batch: Batch[P] = Batch([], set())
        size = length = 0
        full = False
        rest: list[Entry[P]] = []
        barred: set[str] = set()
        for entry in self._waiting:
            job, keys = entry
            if full or not (self._in_flight.isdisjoint(keys) and barred.isdisjoint(keys)):
                barred |= keys
                rest.append(entry)
            elif batch.jobs and (
                size + job.size > self._batch_max or length + job.bytes > self._batch_bytes_max
            ):
                full = True
                rest.append(entry)
            else:
                batch.jobs.append(job)
                batch.keys.update(keys)
                self._wanted.subtract(keys)
                size += job.size
                length += job.bytes
        if batch.jobs:
            self._waiting = rest
            self._wanted = +self._wanted
        return batch

    def _do(self, jobs: list[Job[P]]) -> None:
        # A future that its caller cancelled is dropped here; from here on it cannot be.
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            self._work(jobs)
        except LedgerError as error:
            fail(jobs, error)
        except Exception as error:
            failure = self._error(f"the ledger failed with {error!r}: submit the same again")
            failure.__cause__ = error
            fail(jobs, failure)

"""Background threads with bounded queues: some carry operations to the ledger, one answers questions.

Group commit: while a batch is on its way (an fsync, a Fabric transaction) callers' operations gather, and
the next batch takes them all. So the price of one durable write is shared by everyone who waited for it,
and a lone caller waits for nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from tokenmesh.errors import LedgerBusy, LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.base import Result
from tokenmesh.telemetry import LedgerWatch, now
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures, thumbprint

P = TypeVar("P")
T = TypeVar("T")

BATCH_MAX = 1_000
BATCH_BYTES_MAX = 8 * 2**20
QUEUE_MAX = 10_000
QUESTIONS_MAX = 10_000
CLOSE_S_MAX = 10.0
QUEUE_BATCHES_MAX = 8
"""Batches whose bytes may wait."""
SHORT_BYTES_MAX = 65_536
"""Longer submissions are long."""
PREPARED_AT_ONCE_MAX = 100
PREPARED_AT_ONCE_BYTES_MAX = 2**20
"""Small, so that writing begins while the rest is being prepared."""


class Job(NamedTuple, Generic[P]):
    """Something to do, the future that waits for it, and how much room it takes in a queue and a batch."""

    payload: P
    future: Future[Any]
    size: int
    bytes: int


class Room:
    """How much may wait: so many operations (or questions), of so many bytes, from when they are submitted
    until they are answered."""

    def __init__(self, queue_max: int, bytes_max: int) -> None:
        self._queue_max = queue_max
        self._bytes_max = bytes_max
        self._waiting = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def waiting(self) -> int:
        """How many of them there are."""
        return self._waiting

    @property
    def limit(self) -> int:
        """How many there may be."""
        return self._queue_max

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that made it. In a forked one there are no threads to do the work, and
        any lock may be held for ever by one that was there."""
        return os.getpid() == self._process

    def admit(self, job: Job[Any]) -> bool:
        """Take ``job`` in; or say in its future why not."""
        if not self.is_ours:
            why: LedgerUnavailable | None = LedgerUnavailable(
                "this ledger was opened before the process was forked: open it again in the new one"
            )
        else:
            with self._lock:
                why = self._refusal(job)
                if why is None:
                    self._waiting += job.size
                    self._bytes += job.bytes
        if why is not None:
            job.future.set_exception(why)
            return False
        job.future.add_done_callback(lambda _: self._leave(job.size, job.bytes))
        return True

    def _refusal(self, job: Job[Any]) -> LedgerBusy | None:
        # What is larger than all the room is let in alone; else it could never be done at all.
        waiting, length = self._waiting + job.size, self._bytes + job.bytes
        if not self._waiting or (waiting <= self._queue_max and length <= self._bytes_max):
            return None
        return LedgerBusy(
            f"{self._waiting} operations of {self._bytes} bytes wait for the ledger already, and queue_max "
            f"is {self._queue_max} (of {self._bytes_max} bytes): try again later, or submit less at once"
        )

    def _leave(self, size: int, length: int) -> None:
        with self._lock:
            self._waiting -= size
            self._bytes -= length


class Submission(NamedTuple):
    """What a caller has submitted: operations, and the disclosures of private contracts in them.

    ``is_prompt``: the transaction's time must not be long past when its state is read.
    """

    operations: Sequence[str]
    disclosures: Disclosures
    is_prompt: bool = False

    @property
    def bytes(self) -> int:
        """The length of all of it."""
        return sum(map(len, self.operations)) + sum(map(len, self.disclosures.values()))


class Worker(Generic[P]):
    """One thread that does jobs in the order they came, as many at once as ``batch_max`` and
    ``batch_bytes_max`` allow.

    ``work`` gets the jobs of a batch. If it fails, all of them fail; ``unsure`` says whether they may then
    have happened nevertheless. The thread starts with the first job.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job[P]]], None],
        *,
        batch_max: int,
        batch_bytes_max: int,
        unsure: bool = False,
    ) -> None:
        self._name = name
        self._work = work
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._error = LedgerOutcomeUnknown if unsure else LedgerUnavailable
        self._queue: SimpleQueue[Job[P] | None] = SimpleQueue()
        self._ahead: Job[P] | None = None
        self._closed = False
        self._abandoned = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, job: Job[P]) -> None:
        """Queue ``job``."""
        with self._lock:
            if not self._closed:
                self._queue.put(job)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
                return
        fail([job], LedgerUnavailable("this ledger is closed: nothing more can be asked of it"))

    def close(self, timeout: float) -> bool:
        """Do what is queued, then stop; what is not begun within ``timeout`` seconds fails. Whether the
        thread has ended."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            thread = self._thread
        if thread is threading.current_thread():
            return False
        if thread is not None:
            thread.join(timeout)
        self._abandoned = True
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if self._abandoned:
                batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
                fail(batch, LedgerUnavailable("the ledger was closed before this was begun"))
            elif batch:
                self._do(batch)
            del batch  # a waiting thread keeps nobody's documents in memory

    def _do(self, batch: list[Job[P]]) -> None:
        try:
            self._work(batch)
        except LedgerError as error:
            fail(batch, error)
        except Exception as error:
            failure = self._error(f"the ledger failed with {error!r}: submit the same again")
            failure.__cause__ = error
            fail(batch, failure)

    def _take(self) -> tuple[list[Job[P]], bool]:
        """The next batch, waiting for its first job; and whether it is the last."""
        batch: list[Job[P]] = []
        size = length = 0
        job = self._ahead or self._queue.get()
        self._ahead = None
        while job is not None:
            if batch and (size + job.size > self._batch_max or length + job.bytes > self._batch_bytes_max):
                self._ahead = job
                return batch, False
            batch.append(job)
            size += job.size
            length += job.bytes
            try:
                job = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True


def fail(batch: Sequence[Job[Any]], error: LedgerError) -> None:
    """Answer those of the futures that have no answer yet with ``error``."""
    for job in batch:
        future = job.future
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            # One exception each: a shared one would collect the tracebacks of all who raise it.
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            future.set_exception(own)


class Batcher(Generic[P]):
    """Collects what concurrent callers submit and hands it to ``write`` in batches.

    One thread calls ``write`` on all that is prepared; two call ``prepare`` on operations as they come (with
    all disclosures that came along), one on short submissions and one on long ones. So a batch is prepared
    while the one before is on its way, and nobody's hold waits until somebody's settlement is prepared. Both
    functions get several operations and give as many results in the same order. ``write`` raises
    ``LedgerUnavailable`` if certainly nothing happened and ``LedgerOutcomeUnknown`` if that is not known.

    A submission stays whole: its operations are in one batch. Submissions are independent: a short one may
    be written before a long one that came earlier.
    """

    def __init__(
        self,
        prepare: Callable[[list[str], Disclosures], list[P]],
        write: Callable[[list[P]], list[Result]],
        *,
        watch: LedgerWatch | None = None,
        batch_max: int = BATCH_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        queue_max: int = QUEUE_MAX,
        worker: type[Worker[Any]] = Worker,
    ) -> None:
        self._prepare = prepare
        self._write = write
        self._watch = watch or LedgerWatch("embedded")
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._room = Room(queue_max, QUEUE_BATCHES_MAX * batch_bytes_max)
        self._watch.queues(self._room)
        self._short: Worker[Submission]
        self._long: Worker[Submission]
        self._short, self._long = (
            worker(
                f"tokenmesh-ledger-preparer-{length}",
                self._do_prepare,
                batch_max=min(batch_max, PREPARED_AT_ONCE_MAX),
                batch_bytes_max=min(batch_bytes_max, PREPARED_AT_ONCE_BYTES_MAX),
            )
            for length in ("short", "long")
        )
        self._writer: Worker[list[P]] = worker(
            "tokenmesh-ledger-writer",
            self._do_write,
            batch_max=batch_max,
            batch_bytes_max=batch_bytes_max,
            unsure=True,
        )

    def submit(
        self, operations: Sequence[str], disclosures: Disclosures = NO_DISCLOSURES
    ) -> Future[list[Result]]:
        """Queue ``operations``; the future has their results in order."""
        future: Future[list[Result]] = Future()
        submission = Submission(operations, disclosures)
        size, length = len(operations), submission.bytes
        if not size:
            future.set_result([])
        elif size > 1 and (size > self._batch_max or length > self._batch_bytes_max):
            future.set_exception(
                LedgerError(
                    f"{size} operations of {length} bytes are too much for one submission: at most "
                    f"{self._batch_max} (batch_max) of {self._batch_bytes_max} bytes (batch_bytes_max)"
                )
            )
        else:
            self._watch.submitted(future)
            job = Job(submission, future, size, length)
            if self._room.admit(job):
                (self._long if length > SHORT_BYTES_MAX else self._short).put(job)
        return future

    def _do_prepare(self, batch: list[Job[Submission]]) -> None:
        prepared = self._prepare(
            [operation for job in batch for operation in job.payload.operations],
            together(job.payload.disclosures for job in batch),
        )
        start = 0
        for job in batch:
            self._writer.put(Job(prepared[start : start + job.size], *job[1:]))
            start += job.size

    def _do_write(self, batch: list[Job[list[P]]]) -> None:
        # A future that its caller cancelled is dropped here; from here on it cannot be.
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        operations = [operation for job in batch for operation in job.payload]
        since = now()
        try:
            results = self._write(operations)
        except Exception as error:
            self._watch.transaction(since, len(operations), error)
            raise
        self._watch.transaction(since, len(operations))
        self._watch.refused(one.outcome.code for one in results if not one.outcome.ok)
        start = 0
        for job in batch:
            job.future.set_result(results[start : start + job.size])
            start += job.size

    def close(self, timeout: float = CLOSE_S_MAX) -> bool:
        """Write what is queued, then stop; what cannot be begun within ``timeout`` fails. Whether all of it
        has ended, and ``write`` will not be called any more."""
        if not self._room.is_ours:
            return False
        self._watch.close()
        until = time.monotonic() + timeout
        for preparer in (self._short, self._long):
            preparer.close(max(0.0, until - time.monotonic()))
        return self._writer.close(max(0.0, until - time.monotonic()))


def together(all_of_them: Iterable[Disclosures]) -> Disclosures:
    """Several callers' disclosures as one. A wrong one of the one caller does not displace another's."""
    found: dict[str, str] = {}
    for disclosures in all_of_them:
        for sd, disclosure in disclosures.items():
            if sd not in found or thumbprint(disclosure.encode()) == sd:
                found[sd] = disclosure
    return found


class Reader:
    """Answers questions one by one in a thread of its own, so that none waits behind a batch of writes."""

    def __init__(
        self,
        *,
        watch: LedgerWatch | None = None,
        queue_max: int = QUESTIONS_MAX,
        worker: type[Worker[Any]] = Worker,
    ) -> None:
        self._watch = watch or LedgerWatch("embedded")
        self._room = Room(queue_max, queue_max)
        self._worker: Worker[Callable[[], Any]] = worker(
            "tokenmesh-ledger-reader", self._work, batch_max=1, batch_bytes_max=1
        )

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have ``question`` called in the thread; the future has what it gives or raises."""
        future: Future[T] = Future()
        self._watch.asked(future)
        job = Job(question, future, 1, 0)
        if self._room.admit(job):
            self._worker.put(job)
        return future

    def _work(self, batch: list[Job[Callable[[], Any]]]) -> None:
        for job in batch:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.payload())
                except LedgerError as error:
                    job.future.set_exception(error)
                except Exception as error:
                    failure = LedgerUnavailable(f"the ledger could not answer: {error!r}")
                    failure.__cause__ = error
                    job.future.set_exception(failure)

    def close(self, timeout: float = CLOSE_S_MAX) -> bool:
        """Answer what is queued, then stop. Whether it has, and no question will be called any more."""
        return self._room.is_ours and self._worker.close(timeout)

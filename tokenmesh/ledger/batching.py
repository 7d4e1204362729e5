"""Background threads with bounded queues: one collects operations into batches, one answers questions.

Group commit: while a batch is on its way (an fsync, a Fabric transaction) callers' operations gather, and
the next batch takes them all. So the price of one durable write is shared by everyone who waited for it,
and a lone caller waits for nobody.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from tokenmesh.errors import LedgerBusy, LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.base import Result

P = TypeVar("P")
T = TypeVar("T")

BATCH_MAX = 1_000
BATCH_BYTES_MAX = 8 * 2**20
QUEUE_MAX = 10_000
QUESTIONS_MAX = 10_000
CLOSE_S_MAX = 10.0


class Job(NamedTuple, Generic[P]):
    """Something to do, the future that waits for it, and how much room it takes in a queue and a batch."""

    payload: P
    future: Future[Any]
    size: int
    bytes: int


class Worker(Generic[P]):
    """One thread that does jobs in the order they came, as many at once as ``batch_max`` and
    ``batch_bytes_max`` allow.

    ``work`` gets the jobs of a batch and answers every future. The thread starts with the first job. A
    process that was forked has no such thread: there every job fails, with the advice to open anew.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job[P]]], None],
        *,
        batch_max: int,
        batch_bytes_max: int,
        queue_max: int,
    ) -> None:
        self._name = name
        self._work = work
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._queue_max = queue_max
        self._queue: SimpleQueue[Job[P] | None] = SimpleQueue()
        self._ahead: Job[P] | None = None
        self._waiting = 0
        self._closed = False
        self._abandoned = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def put(self, job: Job[P]) -> None:
        """Queue ``job``, or say in its future why not."""
        # First, because after a fork the lock may be held for ever by a thread that is not here.
        if os.getpid() != self._process:
            job.future.set_exception(
                LedgerUnavailable(
                    "this ledger was opened before the process was forked: open it again in the new one"
                )
            )
            return
        with self._lock:
            error = self._refusal(job)
            if error is None:
                self._waiting += job.size
                self._queue.put(job)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
        if error is not None:
            job.future.set_exception(error)

    def _refusal(self, job: Job[P]) -> LedgerUnavailable | None:
        if self._closed:
            return LedgerUnavailable("this ledger is closed: nothing more can be asked of it")
        # A job larger than the whole queue is let in alone; else it could never be done at all.
        if self._waiting and self._waiting + job.size > self._queue_max:
            return LedgerBusy(
                f"{self._waiting} wait for the ledger already, and queue_max is {self._queue_max}: try again "
                "later, or submit less at once"
            )
        return None

    def close(self, timeout: float = CLOSE_S_MAX) -> None:
        """Do what is queued, then stop. What is not begun within ``timeout`` seconds fails."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._abandoned = True

    def _run(self) -> None:
        while True:
            batch, last = self._take()
            with self._lock:
                self._waiting -= sum(job.size for job in batch)
            # A future that its caller cancelled is dropped here; from here on it cannot be.
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if self._abandoned:
                _fail(batch, LedgerUnavailable("the ledger was closed before this was begun"))
            elif batch:
                self._do(batch)
            if last:
                return
            del batch  # a waiting thread keeps nobody's documents in memory

    def _do(self, batch: list[Job[P]]) -> None:
        try:
            self._work(batch)
        except LedgerError as error:
            _fail(batch, error)
        except Exception as error:
            # A fault of ours: whether anything was written before it cannot be told from here.
            unknown = LedgerOutcomeUnknown(f"the ledger failed with {error!r}: submit the same again")
            unknown.__cause__ = error
            _fail(batch, unknown)

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


def _fail(batch: Sequence[Job[Any]], error: LedgerError) -> None:
    for job in batch:
        if not job.future.done():
            # One exception each: a shared one would collect the tracebacks of all who raise it.
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            job.future.set_exception(own)


class Batcher:
    """Collects what concurrent callers submit and hands it to ``write`` in batches, from one thread.

    ``write`` gets operations and gives their results in the same order; it raises ``LedgerUnavailable`` if
    certainly nothing happened and ``LedgerOutcomeUnknown`` if that is not known. A submission stays whole:
    its operations are in one batch.
    """

    def __init__(
        self,
        write: Callable[[list[str]], list[Result]],
        *,
        batch_max: int = BATCH_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._write = write
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._worker: Worker[Sequence[str]] = Worker(
            "tokenmesh-ledger-writer",
            self._work,
            batch_max=batch_max,
            batch_bytes_max=batch_bytes_max,
            queue_max=queue_max,
        )

    def submit(self, operations: Sequence[str]) -> Future[list[Result]]:
        """Queue ``operations``; the future has their results in order."""
        future: Future[list[Result]] = Future()
        size, length = len(operations), sum(map(len, operations))
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
            self._worker.put(Job(operations, future, size, length))
        return future

    def _work(self, batch: list[Job[Sequence[str]]]) -> None:
        results = self._write([operation for job in batch for operation in job.payload])
        start = 0
        for job in batch:
            job.future.set_result(results[start : start + job.size])
            start += job.size

    def close(self, timeout: float = CLOSE_S_MAX) -> None:
        """Write what is queued, then stop; what cannot be begun within ``timeout`` fails."""
        self._worker.close(timeout)


class Reader:
    """Answers questions one by one in a thread of its own, so that none waits behind a batch of writes."""

    def __init__(self, *, queue_max: int = QUESTIONS_MAX) -> None:
        self._worker: Worker[Callable[[], Any]] = Worker(
            "tokenmesh-ledger-reader", self._work, batch_max=1, batch_bytes_max=0, queue_max=queue_max
        )

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have ``question`` called in the thread; the future has what it gives or raises."""
        future: Future[T] = Future()
        self._worker.put(Job(question, future, 1, 0))
        return future

    def _work(self, batch: list[Job[Callable[[], Any]]]) -> None:
        for job in batch:
            try:
                answer = job.payload()
            except LedgerError as error:
                job.future.set_exception(error)
            except Exception as error:
                failure = LedgerUnavailable(f"the ledger could not answer: {error!r}")
                failure.__cause__ = error
                job.future.set_exception(failure)
            else:
                job.future.set_result(answer)

    def close(self, timeout: float = CLOSE_S_MAX) -> None:
        """Answer what is queued, then stop."""
        self._worker.close(timeout)

"""Threads that run invocations: so many at once, so many waiting, more while one waits for another.

Made for many short jobs: a thread takes the next one without ceremony. Threads start when first needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

log = logging.getLogger("tokenmesh.chaincode")

Job = Callable[[], None]


class Workers:
    """At most ``concurrency_max`` jobs run; at most ``waiting_max`` more wait."""

    def __init__(self, concurrency_max: int, waiting_max: int, name: str = "chaincode") -> None:
        self._concurrency_max = concurrency_max
        self._jobs_max = concurrency_max + waiting_max
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._lent = 0  # threads that wait within a job for another job
        self._open = 0  # jobs that run or wait
        self._idle = threading.Condition(self._lock)
        self._closed = False

    def submit(self, job: Job) -> bool:
        """Have it run; False if there are too many already, or these workers are closed."""
        with self._lock:
            if self._closed or self._open >= self._jobs_max + self._lent:
                return False
            self._open += 1
            if self._open > self._threads and self._threads < self._concurrency_max + self._lent:
                self._start_thread()
        self._jobs.put(job)
        return True

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within: this job waits for another, which gets a thread of its own if need be."""
        with self._lock:
            self._lent += 1
            if self._threads < self._concurrency_max + self._lent:
                self._start_thread()
        try:
            yield
        finally:
            with self._lock:
                self._lent -= 1
                leaves = self._threads > self._concurrency_max + self._lent
                self._threads -= leaves
            if leaves:
                self._jobs.put(None)

    def close(self, grace_s: float) -> bool:
        """Take no more, wait so long for what is there, let the threads end. True if all was done."""
        with self._lock:
            self._closed = True
            done = self._idle.wait_for(lambda: self._open == 0, grace_s)
            threads = self._threads
            self._threads = 0
        for _ in range(threads):
            self._jobs.put(None)
        return done

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # the thread lives on for the others
                log.critical("a job has failed that was not to: %s", type(error).__name__)
            finally:
                with self._lock:
                    self._open -= 1
                    if not self._open:
                        self._idle.notify_all()

"""The pipeline: several batches at once, and nothing in two of them that gets into each other's way."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import Future, wait

import pytest

from tokenmesh.errors import LedgerBusy, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.batching import Job, Room
from tokenmesh.ledger.fabric import pipeline
from tokenmesh.ledger.fabric.pipeline import Pipeline

SOON = 10.0


class Transport:
    """What batches travel by: each waits until it is let go, by one of the names in it, or by ``open``."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.error: Exception | None = None
        self._gone: set[str] = set()
        self._open = False
        self._changed = threading.Condition()

    def carry(self, jobs: list[Job[str]]) -> None:
        names = [job.payload for job in jobs]
        with self._changed:
            self.batches.append(names)
            self.begun.release()
            assert self._changed.wait_for(lambda: self._open or self._gone & set(names), SOON)
        if self.error is not None:
            raise self.error
        for job in jobs:
            job.future.set_result(job.payload)

    def let(self, name: str) -> None:
        with self._changed:
            self._gone.add(name)
            self._changed.notify_all()

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many more batches have begun."""
        for _ in range(count):
            assert self.begun.acquire(timeout=SOON)


class Line:
    """A pipeline over a transport."""

    def __init__(self, in_flight_max: int = 3, batch_max: int = 100, queue_max: int = 1000) -> None:
        self.transport = Transport()
        self.pipeline: Pipeline[str] = Pipeline(
            "test",
            self.transport.carry,
            Room(queue_max, 10_000),
            batch_max=batch_max,
            batch_bytes_max=1000,
            in_flight_max=in_flight_max,
            unsure=True,
        )

    def put(self, name: str, *keys: str, size: int = 1, length: int = 1) -> Future[str]:
        future: Future[str] = Future()
        self.pipeline.put(Job(name, future, size, length), frozenset(keys))
        return future

    @property
    def batches(self) -> list[list[str]]:
        return self.transport.batches


@pytest.fixture
def line():
    line = Line()
    yield line
    line.transport.open()
    assert line.pipeline.close(SOON)


def test_what_has_no_key_in_common_is_on_its_way_at_once(line):
    """Three batches, none of which waits for another; the fourth job waits for a place."""
    futures = [line.put("a", "A")]
    line.transport.wait_for(1)
    futures.append(line.put("b", "B"))
    line.transport.wait_for(1)
    futures.append(line.put("c", "C"))
    line.transport.wait_for(1)
    futures.append(line.put("d", "D"))
    assert line.batches == [["a"], ["b"], ["c"]]
    line.transport.let("b")
    line.transport.wait_for(1)
    assert line.batches[-1] == ["d"]
    assert [future.done() for future in futures] == [False, True, False, False]


def test_what_has_a_key_in_common_travels_together_once_its_turn_comes(line):
    """While one with key A is on its way the others with A gather, and others pass them."""
    line.put("a1", "A")
    line.transport.wait_for(1)
    for name in ("a2", "a3"):
        line.put(name, "A")
    line.put("b1", "B")
    line.transport.wait_for(1)
    assert line.batches == [["a1"], ["b1"]]
    line.transport.let("a1")
    line.transport.wait_for(1)
    assert line.batches[-1] == ["a2", "a3"]


def test_nobody_passes_one_that_waits_for_the_same(line):
    """A job of A and B waits for A: a later one of B waits behind it, though B is free."""
    line.put("a", "A")
    line.transport.wait_for(1)
    line.put("ab", "A", "B")
    line.put("b", "B")
    line.put("c", "C")
    line.transport.wait_for(1)
    assert line.batches == [["a"], ["c"]]
    line.transport.let("a")
    line.transport.wait_for(1)
    assert line.batches[-1] == ["ab", "b"]


def test_a_batch_is_bounded():
    """By batch_max and batch_bytes_max; what did not fit is next, alone if it is larger than any batch."""
    line = Line(batch_max=3, in_flight_max=2)
    line.put("first", "X", "Y")
    line.transport.wait_for(1)
    line.put("x1", "X", size=2)
    line.put("x2", "X", size=2)
    line.put("y1", "Y", length=900)
    line.put("y2", "Y", length=900)
    line.put("y3", "Y", size=50, length=5000)
    line.transport.let("first")
    line.transport.wait_for(2)
    for name in ("x1", "y1", "y2"):
        line.transport.let(name)
        line.transport.wait_for(1)
    assert line.batches == [["first"], ["x1"], ["y1"], ["x2"], ["y2"], ["y3"]]
    line.transport.open()
    assert line.pipeline.close(SOON)


def test_those_who_come_back_together_travel_together(line):
    """While something is on its way the next batch waits until nobody comes any more; a lone one does not."""
    line.put("first", "F")
    line.transport.wait_for(1)
    futures = [line.put(f"burst-{number}", f"K{number}") for number in range(50)]
    line.transport.wait_for(1)
    assert line.batches == [["first"], [f"burst-{number}" for number in range(50)]]
    line.transport.open()
    assert [future.result(SOON) for future in futures] == line.batches[1]


def in_company(line: Line, size: int) -> None:
    """So many have travelled together, and have arrived."""
    line.put("ahead", "A")
    line.transport.wait_for(1)
    futures = [line.put(f"company-{number}", "A") for number in range(size)]
    line.transport.open()
    assert [future.result(SOON) for future in futures] == line.batches[1]
    line.transport.wait_for(1)


def test_the_first_to_come_back_waits_for_the_others(line, monkeypatch):
    """Nothing is on its way; but four have travelled together, so one waits until there are two at least."""
    in_company(line, 4)
    monkeypatch.setattr(pipeline, "GATHER_S_MAX", 1000.0)
    first = line.put("first")
    assert not line.transport.begun.acquire(timeout=0.05)
    second = line.put("second")
    assert [first.result(SOON), second.result(SOON)] == line.batches[-1] == ["first", "second"]


def test_who_is_alone_after_a_company_waits_but_once(line, monkeypatch):
    """The first one for as long as anyone may, the next one not at all."""
    in_company(line, 4)
    assert line.put("first").result(SOON) == "first"
    monkeypatch.setattr(pipeline, "QUIET_S", 1000.0)
    monkeypatch.setattr(pipeline, "GATHER_S_MAX", 1000.0)
    assert line.put("second").result(SOON) == "second"
    assert line.batches[-2:] == [["first"], ["second"]]


def test_those_who_keep_coming_do_not_hold_up_the_others(monkeypatch):
    """However many come, the next batch waits no longer than GATHER_S_MAX."""
    monkeypatch.setattr(pipeline, "QUIET_S", 1000.0)
    line = Line()
    line.put("first", "F")
    line.transport.wait_for(1)
    line.put("second", "S")
    stop = time.monotonic() + SOON
    number = 0
    while not line.transport.begun.acquire(blocking=False):
        assert time.monotonic() < stop
        line.put(f"more-{(number := number + 1)}", "M", size=0)
    line.transport.open()
    assert line.pipeline.close(SOON)


def test_many_callers_with_many_keys_meet_at_none():
    """Never are two batches with a common key on their way; all is done once, and one caller's in order."""
    done: list[str] = []
    on_its_way: Counter[str] = Counter()
    lock = threading.Lock()
    met: list[str] = []

    def carry(jobs: list[Job[tuple[str, frozenset[str]]]]) -> None:
        keys = frozenset().union(*(job.payload[1] for job in jobs))
        with lock:
            met.extend(key for key in keys if on_its_way[key])
            on_its_way.update(keys)
        for _ in range(20):
            os.sched_yield()  # so that others come in between
        with lock:
            on_its_way.subtract(keys)
            done.extend(job.payload[0] for job in jobs)
        for job in jobs:
            job.future.set_result(job.payload[0])

    pipeline: Pipeline[tuple[str, frozenset[str]]] = Pipeline(
        "test", carry, Room(10_000, 10_000), batch_max=10, batch_bytes_max=1000, in_flight_max=4
    )

    def caller(number: int) -> None:
        draw = random.Random(number)
        for turn in range(100):
            keys = frozenset({f"own-{number}", *(f"shared-{draw.randrange(6)}" for _ in range(2))})
            future: Future[str] = Future()
            futures.append(future)
            pipeline.put(Job((f"{number}/{turn:03}", keys), future, 1, 1), keys)

    futures: list[Future[str]] = []
    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert not wait(futures, 60).not_done
    assert met == []
    assert len(done) == len(set(done)) == 800
    for number in range(8):
        own = [name for name in done if name.startswith(f"{number}/")]
        assert own == sorted(own)
    assert pipeline.close(SOON)


def test_a_failure_is_that_of_its_batch_alone(line):
    """Those who travelled together get an error each; a fault of our own leaves the outcome unknown."""
    futures = [line.put("a", "A")]
    line.transport.wait_for(1)
    futures += [line.put("a2", "A"), line.put("a3", "A")]
    line.transport.error = LedgerUnavailable("no")
    line.transport.let("a")
    assert isinstance(futures[0].exception(SOON), LedgerUnavailable)
    line.transport.wait_for(1)
    line.transport.error = ZeroDivisionError("a fault")
    line.transport.let("a2")
    errors = [future.exception(SOON) for future in futures[1:]]
    assert [type(error) for error in errors] == [LedgerOutcomeUnknown] * 2
    assert errors[0] is not errors[1]
    line.transport.error = None
    line.transport.open()
    assert line.put("b", "A").result(SOON) == "b"


def test_what_may_wait_is_bounded():
    """Past queue_max a caller gets LedgerBusy at once; those who wait are served."""
    line = Line(queue_max=3)
    futures = [line.put(f"a{number}", "A") for number in range(5)]
    assert [isinstance(future.exception(0), LedgerBusy) for future in futures[3:]] == [True, True]
    line.transport.open()
    assert [future.result(SOON) for future in futures[:3]] == ["a0", "a1", "a2"]
    assert line.pipeline.close(SOON)


def test_what_its_caller_has_cancelled_is_not_sent(line):
    line.put("a", "A")
    line.transport.wait_for(1)
    cancelled, other = line.put("a2", "A"), line.put("a3", "A")
    assert cancelled.cancel()
    line.transport.let("a")
    line.transport.wait_for(1)
    assert line.batches[-1] == ["a3"]
    line.transport.open()
    assert other.result(SOON) == "a3"


def test_close_does_what_is_queued():
    """Also what waits for a key; what comes later is refused."""
    line = Line()
    futures = [line.put(f"a{number}", "A") for number in range(3)]
    line.transport.wait_for(1)
    line.transport.open()
    assert line.pipeline.close(SOON)
    assert [future.result(0) for future in futures] == ["a0", "a1", "a2"]
    with pytest.raises(LedgerUnavailable, match="closed"):
        line.put("late").result(0)
    assert line.pipeline.close(SOON)


def test_close_ends_in_time():
    """What could not be begun fails with certainty; what is on its way is left to end."""
    line = Line()
    first = line.put("a", "A")
    line.transport.wait_for(1)
    second = line.put("a2", "A")
    assert not line.pipeline.close(0.05)
    with pytest.raises(LedgerUnavailable, match="before this was begun"):
        second.result(0)
    line.transport.open()
    assert first.result(SOON) == "a"
    assert line.pipeline.close(SOON)


def test_a_forked_process_is_told_to_open_its_own(line):
    """There are no threads in it to do the work: refused at once, and closing it does nothing."""
    assert line.put("a") is not None
    child = os.fork()
    if not child:
        error = line.put("b").exception(0)
        fine = isinstance(error, LedgerUnavailable) and "forked" in str(error) and not line.pipeline.close(1)
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0

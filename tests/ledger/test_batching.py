"""The batching layer: what waits together travels together, and every future is answered."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, Future, wait

import pytest

from tokenmesh.errors import LedgerBusy, LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.batching import SHORT_BYTES_MAX, Batcher, Reader, together
from tokenmesh_chaincode.documents import Disclosures, thumbprint
from tokenmesh_chaincode.rules import Outcome

SOON = 10.0


class Gate:
    """A ledger that writes only when it is let: it shows which operations came in which batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.error: Exception | None = None

    def write(self, operations: list[str]) -> list[Result]:
        self.batches.append(operations)
        self.begun.release()
        assert self.let.acquire(timeout=SOON)
        if self.error:
            raise self.error
        return [Result(Outcome(True, "ok", {"text": text}), "tx", 1.0) for text in operations]

    def open(self, times: int = 1000) -> None:
        self.let.release(times)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


def as_is(operations: list[str], _: Disclosures) -> list[str]:
    return operations


def texts(results: list[Result]) -> list[str]:
    return [result.outcome.detail["text"] for result in results]


def test_what_gathers_while_a_batch_is_on_its_way_is_the_next_batch(gate):
    """One write serves everyone who waited for it, and each gets the results of its own operations."""
    batcher = Batcher(as_is, gate.write)
    first = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    later = [batcher.submit([f"b{n}", f"c{n}"]) for n in range(50)]
    gate.open()
    assert texts(first.result(SOON)) == ["a"]
    assert [texts(future.result(SOON)) for future in later] == [[f"b{n}", f"c{n}"] for n in range(50)]
    assert [len(batch) for batch in gate.batches] == [1, 100]
    batcher.close()


def test_a_batch_is_bounded_in_operations_and_bytes(gate):
    """batch_max and batch_bytes_max hold, in the order of submission, and a submission stays whole."""
    batcher = Batcher(as_is, gate.write, batch_max=4, batch_bytes_max=100)
    submissions = [["a"], ["b", "b", "b"], ["c", "c"], ["d" * 60], ["e" * 60], ["f" * 500]]
    futures = []
    for number, operations in enumerate(submissions):
        futures.append(batcher.submit(operations))
        if number == 0:
            assert gate.begun.acquire(timeout=SOON)
    gate.open()
    wait(futures, SOON)
    assert gate.batches == [["a"], ["b", "b", "b"], ["c", "c", "d" * 60], ["e" * 60], ["f" * 500]]
    batcher.close()


def test_a_short_submission_does_not_wait_for_a_long_one_to_be_prepared(gate):
    """While a settlement is being read and checked, a hold that came later is prepared and written."""
    long, go = threading.Event(), threading.Event()

    def prepare(operations: list[str], _: Disclosures) -> list[str]:
        if len(operations[0]) > SHORT_BYTES_MAX:
            long.set()
            assert go.wait(SOON)
        return operations

    gate.open()
    batcher = Batcher(prepare, gate.write)
    settlement = batcher.submit(["x" * (SHORT_BYTES_MAX + 1)])
    assert long.wait(SOON)
    assert texts(batcher.submit(["hold"]).result(SOON)) == ["hold"]
    assert not settlement.done()
    go.set()
    assert settlement.result(SOON)
    batcher.close()


def test_what_cannot_be_prepared_certainly_did_not_happen(gate):
    """A fault while preparing: LedgerUnavailable, nothing was written, and the next one works."""

    def prepare(operations: list[str], _: Disclosures) -> list[str]:
        if "fault" in operations:
            raise ZeroDivisionError
        return operations

    gate.open()
    batcher = Batcher(prepare, gate.write)
    assert isinstance(batcher.submit(["fault"]).exception(SOON), LedgerUnavailable)
    assert texts(batcher.submit(["a"]).result(SOON)) == ["a"]
    assert gate.batches == [["a"]]
    batcher.close()


def test_a_submission_beyond_a_batch_is_refused(gate):
    """More operations than one batch takes are the caller's to cut; the message names the limits."""
    batcher = Batcher(as_is, gate.write, batch_max=2, batch_bytes_max=10)
    for operations in (["a"] * 3, ["a" * 6, "b" * 6]):
        with pytest.raises(LedgerError, match="batch_max"):
            batcher.submit(operations).result(SOON)
    assert gate.batches == []
    batcher.close()


def test_nothing_to_do_is_done_at_once(gate):
    """An empty submission is answered without a batch."""
    batcher = Batcher(as_is, gate.write)
    assert batcher.submit([]).result(0) == []
    assert gate.batches == []


def test_the_queue_is_bounded(gate):
    """Past queue_max callers get LedgerBusy at once; when the queue has emptied it takes operations again."""
    batcher = Batcher(as_is, gate.write, queue_max=3)
    first = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    waiting = [batcher.submit(["b"]) for _ in range(2)]
    with pytest.raises(LedgerBusy, match="queue_max"):
        batcher.submit(["c"]).result(0)
    gate.open()
    wait([first, *waiting], SOON)
    assert texts(batcher.submit(["d"]).result(SOON)) == ["d"]
    assert ["c"] not in gate.batches
    batcher.close()


def test_a_cancelled_submission_is_not_written(gate):
    """Cancelled while it waits: dropped, and its neighbours are not disturbed. Under way: too late."""
    batcher = Batcher(as_is, gate.write)
    first = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    dropped, kept = batcher.submit(["b"]), batcher.submit(["c"])
    assert dropped.cancel()
    assert not first.cancel()
    gate.open()
    assert texts(kept.result(SOON)) == ["c"]
    assert gate.batches == [["a"], ["c"]]
    with pytest.raises(CancelledError):
        dropped.result(0)
    batcher.close()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (LedgerUnavailable("down"), LedgerUnavailable),
        (LedgerOutcomeUnknown("lost"), LedgerOutcomeUnknown),
        (ZeroDivisionError("a fault"), LedgerOutcomeUnknown),
    ],
)
def test_a_failed_batch_fails_all_who_are_in_it_and_no_other(gate, raised, seen):
    """Everyone gets an exception of its own; a fault of the code counts as unknown; the next batch works."""
    batcher = Batcher(as_is, gate.write)
    first = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    second, third = batcher.submit(["b"]), batcher.submit(["c"])
    gate.open(1)
    assert first.result(SOON)
    assert gate.begun.acquire(timeout=SOON)
    gate.error = raised
    gate.open(1)
    errors = [future.exception(SOON) for future in (second, third)]
    assert [type(error) for error in errors] == [seen, seen]
    assert errors[0] is not errors[1]
    gate.error = None
    gate.open()
    assert texts(batcher.submit(["d"]).result(SOON)) == ["d"]
    batcher.close()


def test_close_writes_what_was_submitted_and_takes_nothing_more(gate):
    """What was queued before close is done; what comes after gets LedgerUnavailable, as often as it asks."""
    batcher = Batcher(as_is, gate.write)
    futures = [batcher.submit([str(n)]) for n in range(20)]
    gate.open()
    batcher.close()
    assert all(future.done() and future.exception() is None for future in futures)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="closed"):
            batcher.submit(["late"]).result(0)
    batcher.close()


def test_close_waits_for_a_bounded_time(gate):
    """A write that hangs does not hang close: what was not begun fails, what was begun ends as it ends."""
    batcher = Batcher(as_is, gate.write)
    begun = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    queued = batcher.submit(["b"])
    batcher.close(timeout=0.01)
    gate.open()
    assert texts(begun.result(SOON)) == ["a"]
    with pytest.raises(LedgerUnavailable, match="before this was begun"):
        queued.result(SOON)


def test_close_from_a_callback(gate):
    """Closing in a future's callback, which runs in the batcher's own thread, does not wait for itself."""
    batcher = Batcher(as_is, gate.write)
    closed = threading.Event()

    def close(_: Future[list[Result]]) -> None:
        batcher.close()
        closed.set()

    batcher.submit(["a"]).add_done_callback(close)
    gate.open()
    assert closed.wait(SOON)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_to_open_its_own(gate):
    """The thread does not exist in a forked child: there a submission fails instead of waiting for ever."""
    batcher = Batcher(as_is, gate.write)
    gate.open()
    batcher.submit(["a"]).result(SOON)
    child = os.fork()
    if child == 0:
        error = batcher.submit(["b"]).exception(0)
        batcher.close()
        os._exit(0 if isinstance(error, LedgerUnavailable) and "fork" in str(error) else 1)
    assert os.waitpid(child, 0)[1] == 0
    batcher.close()


def test_questions_are_answered_one_by_one():
    """Each question's answer or error is its own; a fault in one leaves the others alone."""
    reader = Reader()

    def fault() -> None:
        raise ZeroDivisionError

    def down() -> None:
        raise LedgerUnavailable("no file")

    futures = [reader.ask(lambda: 1), reader.ask(fault), reader.ask(down), reader.ask(lambda: 2)]
    assert futures[0].result(SOON) == 1
    assert isinstance(futures[1].exception(SOON), LedgerUnavailable)
    assert str(futures[2].exception(SOON)) == "no file"
    assert futures[3].result(SOON) == 2
    reader.close()
    assert isinstance(reader.ask(lambda: 1).exception(SOON), LedgerUnavailable)


def test_questions_are_bounded():
    """Past queue_max a question is refused, not queued."""
    reader = Reader(queue_max=3)
    begun, go = threading.Event(), threading.Event()

    def slow() -> bool:
        begun.set()
        return go.wait(SOON)

    first = reader.ask(slow)
    assert begun.wait(SOON)
    waiting = [reader.ask(lambda: 1) for _ in range(2)]
    assert isinstance(reader.ask(lambda: 1).exception(SOON), LedgerBusy)
    go.set()
    assert first.result(SOON)
    assert [future.result(SOON) for future in waiting] == [1, 1]
    reader.close()


def test_disclosures_count_as_bytes_that_wait(gate):
    """What a caller submits beside its operations has its place in the queue's limit."""
    batcher = Batcher(as_is, gate.write, batch_bytes_max=10)
    first = batcher.submit(["a"])
    assert gate.begun.acquire(timeout=SOON)
    with pytest.raises(LedgerBusy):
        batcher.submit(["b"], {"sd": "x" * 80}).result(SOON)
    gate.open()
    assert texts(first.result(SOON)) == ["a"]
    batcher.close()


def test_a_wrong_disclosure_displaces_no_right_one():
    right, sd = "right", thumbprint(b"right")
    for given in ([{sd: right}, {sd: "wrong"}], [{sd: "wrong"}, {sd: right}]):
        assert together(given) == {sd: right}

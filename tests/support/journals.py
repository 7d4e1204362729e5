"""Contracts to claim, and what other processes do to a journal in the tests."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tokenmesh.errors import JournalError
from tokenmesh.journal import Claimed, Journal, NewClaim, StoredResponse
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh_chaincode.documents import digest

START = 1_800_000_000.0
ANSWER_S = 60.0
BODY = digest(b"")
RESPONSE = StoredResponse(
    200, [("Content-Type", "text/plain"), ("Set-Cookie", "a=b; c"), ("X", "")], b"hi", "d"
)

_ids = itertools.count(1)
_spawn = multiprocessing.get_context("spawn")


class Blocking:
    """A journal whose answers have arrived: a test of the port waits where it must."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.journal, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            answer = value(*arguments, **options)
            return answer.result(ANSWER_S) if isinstance(answer, Future) else answer

        return call


def new_claim(**changes: Any) -> NewClaim:
    """A contract nobody has seen yet: 5 tokens of an allowance of 1,000."""
    number = next(_ids)
    return NewClaim(
        payer="shop",
        jti=f"contract-{number}",
        contract=f"signed-{number}",
        htm="GET",
        htu="/quote/ACME",
        dig=BODY,
        op="GET /quote/{symbol}",
        tok=5,
        via="allowance-1",
        lane="lane-1",
        seq=number,
        exp=int(START) + 60,
        settle_by=START + 400,
        funds=1_000,
    )._replace(**changes)


def new_hold(**changes: Any) -> NewClaim:
    """A contract paid by a hold of its own."""
    return new_claim(**{"via": "hold", "lane": None, "seq": None, "funds": 5, **changes})


def key(entry: NewClaim) -> tuple[str, str]:
    return (entry.payer, entry.jti)


def fulfil(
    journal: Any,
    entry: NewClaim,
    charged: int | None = None,
    now: float = START,
    by: int | None = None,
    **changes: Any,
) -> bool:
    """Fulfil a claim with the usual response and a receipt named after the contract."""
    done: bool = journal.fulfil(
        *key(entry),
        entry.tok if charged is None else charged,
        RESPONSE._replace(**changes),
        f"receipt-{entry.jti}",
        now,
        by=by,
    )
    return done


def void(journal: Any, entry: NewClaim, now: float = START, by: int | None = None) -> bool:
    done: bool = journal.void(
        *key(entry), "failed", RESPONSE._replace(status=500), f"receipt-{entry.jti}", now, by=by
    )
    return done


def work(journal: Any, count: int = 1, now: float = START, **changes: Any) -> list[NewClaim]:
    """Contracts that were claimed and fulfilled."""
    entries = [new_claim(**changes) for _ in range(count)]
    for entry in entries:
        assert isinstance(journal.claim(entry, now), Claimed)
        assert fulfil(journal, entry, now=now)
    return entries


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls give when they all begin at the same moment, a thread each."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(ANSWER_S)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(ANSWER_S) for future in [pool.submit(run, call) for call in calls]]


class Elsewhere:
    """A journal in another process. ``run(function, ...)`` calls ``function(journal, ...)`` over there."""

    def __init__(self, open_one: Callable[[], Journal]) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self.process: BaseProcess = _spawn.Process(target=_serve, args=(theirs, open_one), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._pipe.send((function, arguments))

    def receive(self, timeout_s: float = ANSWER_S) -> Any:
        assert self._pipe.poll(timeout_s), "the other process did not answer"
        return self._pipe.recv()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.send(function, *arguments)
        return self.receive()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        if number == signal.SIGSTOP:
            os.waitpid(self.process.pid, os.WUNTRACED)
        if number == signal.SIGKILL:
            # Until it has ended, and its locks are free; joining would wait for its children too.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        if self.process.is_alive():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        self.process.join(ANSWER_S)
        self._pipe.close()


def _serve(pipe: Connection, open_one: Callable[[], Journal]) -> None:
    journal = Blocking(open_one())
    while True:
        function, arguments = pipe.recv()
        pipe.send(function(journal, *arguments))


# What other processes are asked to do: functions that can be named from there.


def claim_once(journal: Any, entry: NewClaim, now: float) -> Any:
    return journal.claim(entry, now)


def fulfil_once(journal: Any, entry: NewClaim, now: float) -> bool:
    return fulfil(journal, entry, now=now)


def claim_copies(journal: Any, entry: NewClaim, copies: int, now: float) -> list[Any]:
    return at_once([lambda: journal.claim(entry, now)] * copies)


def take_and_keep(journal: Any, operation: str | None, now: float) -> Any:
    batch = journal.take_batch(100, now)
    if operation is not None:
        assert journal.keep_operation(batch.id, operation)
    return batch


def finish(journal: Any, batch_id: int, now: float) -> bool:
    done: bool = journal.finish_batch(batch_id, {}, "tx-of-the-paused", now)
    return done


def do_calls(journal: Any, payer: str, count: int) -> Counter[str]:
    """Many paid calls, with some settling in between, as one worker of a busy service does them."""
    results: Counter[str] = Counter()
    for number in range(count):
        entry = new_claim(payer=payer, jti=f"{payer}-{number}", lane=payer, seq=number, funds=10**9)
        results[type(journal.claim(entry, START)).__name__] += 1
        results["fulfilled"] += fulfil(journal, entry)
        if number % 20 == 19:
            batch = journal.take_batch(50, START)
            if batch is not None:
                assert journal.keep_operation(batch.id, "operation")
                assert journal.finish_batch(batch.id, {}, "tx", START)
            journal.prune(START)
    return results


def fill_the_disk(journal: Any) -> tuple[str, int, int]:
    """Work until files may not grow, then when they may again: the error, how many contracts were fulfilled
    before it, and what the allowance's sum is after one more."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    message, count = "", 0
    try:
        for count in range(10_000):  # noqa: B007 - counts what went well
            work(journal, funds=10**6)
    except JournalError as error:
        message = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for claim in list(journal.journal._open):
        journal.void(*claim, "failed", None, None, START)
    work(journal, funds=10**6)
    return message, count, journal.allowance_used("allowance-1")


def claim_without_permission(_: Any, path: str) -> str:
    """What is said to a process that may not write the file (no permission matters to root)."""
    if os.geteuid() == 0:
        os.chmod(os.path.dirname(path), 0o555)
        os.setuid(65534)
    try:
        SqliteJournal(path).claim(new_claim(), START)
    except JournalError as error:
        return str(error)
    return "it could be written"


def claim_with_a_child(journal: Any, entry: NewClaim, now: float) -> tuple[Any, int]:
    """Claim, then fork a child that does nothing; the answer and the child's pid."""
    answer = journal.claim(entry, now)
    child = os.fork()
    if child == 0:
        signal.pause()
    return answer, child


def many_calls(journal: Any, count: int) -> tuple[float, float]:
    """So many calls, settled and pruned on the way: how far memory has grown since the first tenth, and the
    journal's size, in MB."""
    before, now = 0.0, START
    for number in range(count):
        if number == count // 10:
            before = _memory_mb()
        entry = new_claim(seq=number, exp=int(now) + 60, settle_by=now + 300, funds=10**9)
        assert isinstance(journal.claim(entry, now), Claimed)
        assert fulfil(journal, entry, now=now)
        if number % 500 == 499:
            batch = journal.take_batch(1_000, now)
            assert journal.finish_batch(batch.id, {}, "tx", now)
            now += 10
            journal.heartbeat(now)
            journal.prune(now)
    return _memory_mb() - before, journal.stats().bytes / 2**20


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20

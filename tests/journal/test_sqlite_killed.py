"""A process killed with SIGKILL between any two statements leaves a journal that holds together.

The same work is done again and again in a forked child that kills itself before its first statement, before
its second, and so on to the last. What it had been told was done must be there; what it had not been told of
is there wholly or not at all; and the next process ends what was left.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.journals import RESPONSE, START, fulfil, key, new_claim, new_hold, void
from support.wallets import Clock
from tokenmesh.journal import Claimed, Ended, NewClaim
from tokenmesh.journal.file import JournalFile
from tokenmesh.journal.sqlite import SqliteJournal

STATEMENTS_MAX = 1_000
LATER = START + 2_000
"""When everything has been retained for long enough, but not settled."""

CHARGED = {"paid": 5, "less": 2, "void": 0, "free": 0, "long": 5, "late": 5}

fork = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def script() -> tuple[dict[str, NewClaim], list[tuple[str, Callable[[Any], Any]]]]:
    """The contracts, and the work as steps with names."""
    entries = {
        name: make(jti=name, settle_by=LATER + 100, **({} if make is new_hold else {"seq": seq}))
        for seq, (name, make) in enumerate(
            {
                "paid": new_claim,
                "less": new_claim,
                "void": new_claim,
                "free": new_claim,
                "held": new_hold,
                "unheld": new_hold,
                "long": new_claim,
                "late": new_claim,
                "open": new_claim,
            }.items()
        )
    }
    batches: list[Any] = []
    refused = {("shop", "less"): "frozen"}

    def take(journal: Any) -> None:
        batches.append(journal.take_batch(10, LATER))

    steps: list[tuple[str, Callable[[Any], Any]]] = [
        *((f"claim {name}", lambda j, e=entry: j.claim(e, START)) for name, entry in entries.items()),
        ("fulfil paid", lambda j: fulfil(j, entries["paid"])),
        ("fulfil less", lambda j: fulfil(j, entries["less"], charged=2)),
        ("void void", lambda j: void(j, entries["void"])),
        ("fulfil free", lambda j: fulfil(j, entries["free"], charged=0)),
        ("fulfil held", lambda j: fulfil(j, entries["held"])),
        ("void unheld", lambda j: void(j, entries["unheld"])),
        ("fulfil long", lambda j: fulfil(j, entries["long"], body=b"x" * 5_000)),
        ("beat", lambda j: j.heartbeat(LATER)),
        ("take first", take),
        ("keep first", lambda j: j.keep_operation(batches[0].id, "operation-1")),
        (
            "finish first",
            lambda j: j.finish_batch(batches[0].id, refused, "tx-1", LATER),
        ),
        ("take holds", take),
        ("finish holds", lambda j: j.finish_batch(batches[1].id, {}, "tx-2", LATER)),
        ("fulfil late", lambda j: fulfil(j, entries["late"], now=LATER)),
        ("take late", take),
        ("keep late", lambda j: j.keep_operation(batches[2].id, "operation-3")),
        ("release late", lambda j: j.release_batch(batches[2].id)),
        ("take again", take),
        ("keep again", lambda j: j.keep_operation(batches[3].id, "operation-4")),
        ("prune", lambda j: j.prune(LATER)),
    ]
    return entries, steps


def run_and_die(path: Path, statement: int) -> tuple[list[str], bool]:
    """Do the work in a child that dies before its ``statement``-th statement: what it had done by then, and
    whether it died of it (and not at its end)."""
    _, steps = script()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def before_each(_: str) -> None:
            nonlocal count
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        connect = JournalFile._connect

        def watched(file: JournalFile) -> sqlite3.Connection:
            connection = connect(file)
            connection.set_trace_callback(before_each)
            return connection

        try:
            JournalFile._connect = watched  # type: ignore[method-assign]
            journal = SqliteJournal(path, retention_s=1_000, leeway_s=0, clock=Clock())
            for name, step in steps:
                answer = step(journal)
                assert answer is not False, name
                os.write(write, f"{name}\n".encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        done = pipe.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child failed after {done[-1:]}"
    return done, status != 0


def check_what_was_done(journal: SqliteJournal, entries: dict[str, NewClaim], done: list[str]) -> None:
    """What the child was told is so."""
    for name, entry in entries.items():
        claim = journal.find(*key(entry))
        gone = claim is None and "take again" in done  # it may have been pruned
        if f"claim {name}" in done and not gone:
            assert claim is not None, f"the claim of {name} was lost"
        if f"fulfil {name}" in done and not gone:
            assert claim is not None
            assert (claim.state, claim.receipt) == ("fulfilled", f"receipt-{name}")
            assert claim.response == RESPONSE._replace(body=b"x" * 5_000 if name == "long" else b"hi")
        if f"void {name}" in done and not gone:
            assert claim is not None
            assert (claim.state, claim.reason) == ("void", "failed")
    less = journal.find("shop", "less")
    if "finish first" in done and less is not None:
        assert (less.lost, less.tx_id) == ("frozen", None)


def check_sums(journal: SqliteJournal, entries: dict[str, NewClaim], done: list[str]) -> None:
    """The allowance's sum is that of its contracts: of those that are kept, and of those dropped."""
    expected = 0
    for name, entry in entries.items():
        claim = journal.find(*key(entry))
        if entry.via == "hold":
            continue
        if claim is None:
            expected += CHARGED[name] if f"claim {name}" in done else 0
        else:
            expected += claim.tok if claim.state in {"open", "abandoned"} else claim.charged
    assert journal.allowance_used("allowance-1") == expected


def check_the_rest_is_ended(journal: SqliteJournal, entries: dict[str, NewClaim], done: list[str]) -> None:
    """Nothing that was claimed is run again, all that is owed is settled once, and nothing is left over."""
    for name, entry in entries.items():
        if journal.find(*key(entry)) is not None:
            assert isinstance(journal.claim(entry, LATER), Ended), name
        elif f"claim {name}" not in done:
            assert isinstance(journal.claim(entry, LATER), Claimed), name
            assert void(journal, entry, now=LATER)
    before = {name for name, entry in entries.items() if is_settled(journal, entry)}
    after: list[str] = []
    while (batch := journal.take_batch(10, LATER)) is not None:
        if "keep first" in done and not before and not after:
            assert batch.operation == "operation-1", "an operation that may have been sent was forgotten"
        after += [item.jti for item in batch.items]
        assert journal.finish_batch(batch.id, {}, "tx-9", LATER)
    assert len(after) == len(set(after)), "a contract was settled twice"
    assert not before & set(after), "a settled contract was settled again"
    for name in ("paid", "less", "held", "long", "late"):
        if f"fulfil {name}" in done:
            assert is_settled(journal, entries[name]), f"{name} is owed and was not settled"
    stats = journal.stats()
    assert (stats.open, stats.unsettled, stats.unsettled_tokens) == (0, 0, 0)


def is_settled(journal: SqliteJournal, entry: NewClaim) -> bool:
    """Whether its settlement is known; a fulfilled contract that was dropped had been settled."""
    claim = journal.find(*key(entry))
    return claim is None or claim.tx_id is not None or claim.lost is not None


@fork
@pytest.mark.slow
def test_killed_between_any_two_statements(tmp_path: Path) -> None:
    """At every one of them the journal holds together, and the next process brings it to its end."""
    entries, steps = script()
    SqliteJournal(tmp_path / "new.db", clock=Clock()).close()
    new = (tmp_path / "new.db").read_bytes()
    for statement in range(1, STATEMENTS_MAX):
        path = tmp_path / f"{statement}.db"
        path.write_bytes(new)
        done, died = run_and_die(path, statement)
        if not died:
            assert len(done) == len(steps)
            break
        journal = SqliteJournal(path, clock=Clock())
        assert journal._upkeep.query("PRAGMA integrity_check") == [("ok",)]
        check_what_was_done(journal, entries, done)
        check_sums(journal, entries, done)
        check_the_rest_is_ended(journal, entries, done)
        journal.close()
    else:
        pytest.fail("the work has no end")
    assert statement > 100, "the work was hardly watched"

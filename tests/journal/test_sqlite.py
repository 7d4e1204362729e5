"""The SQLite journal: everything that the port promises, and what is particular to a file."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from journal.journal_suite import JournalSuite

from support.journals import (
    ANSWER_S,
    START,
    Elsewhere,
    claim_once,
    claim_with_a_child,
    claim_without_permission,
    fill_the_disk,
    fulfil,
    key,
    many_calls,
    new_claim,
    take_and_keep,
    work,
)
from support.wallets import Clock
from tokenmesh.errors import ConfigError, JournalError
from tokenmesh.journal import Claimed, Journal, JournalFull, Running, SequenceUsed, allowances, retention
from tokenmesh.journal.schema import CHUNK
from tokenmesh.journal.sqlite import SqliteJournal

forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class TestSqliteJournal(JournalSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[..., Journal]:
        return partial(SqliteJournal, tmp_path / "journal.db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path, clock=Clock())
    yield journal
    journal.close()


@pytest.fixture
def elsewhere(path: Path) -> Iterator[Callable[..., Elsewhere]]:
    started = []

    def start(**options: Any) -> Elsewhere:
        started.append(Elsewhere(partial(SqliteJournal, path, **options)))
        return started[-1]

    yield start
    for other in started:
        other.close()


def in_a_fork(run: Callable[[], bool]) -> bool:
    """Whether ``run``, in a forked child, gives True; neither silence nor an exception counts."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if run() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Opening


def test_a_new_file_is_for_its_owner_alone(journal: SqliteJournal, path: Path) -> None:
    """It holds responses; its log and the owners' locks are as private."""
    for file in (path, path.with_name("journal.db-wal"), *path.with_name("journal.db-owners").iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_was_stored_is_there_after_opening_again(path: Path) -> None:
    """A restarted service answers what it answered before."""
    first = SqliteJournal(path, clock=Clock())
    (entry,) = work(first)
    first.close()
    second = SqliteJournal(path, clock=Clock())
    assert second.claim(entry, START).out == "fulfilled"  # type: ignore[union-attr]
    second.close()


def test_a_directory_that_is_not_there_is_a_mistake_in_the_url(tmp_path: Path) -> None:
    """The message says which, and what to do."""
    with pytest.raises(ConfigError, match=r"no directory .*nowhere; make it"):
        SqliteJournal(tmp_path / "nowhere" / "journal.db")


def test_another_database_is_left_alone(path: Path) -> None:
    """Nothing of ours is written into somebody else's file."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="not a tokenmesh journal"):
        SqliteJournal(path)
    assert path.read_bytes() == before


def test_another_format_is_not_guessed_at(path: Path) -> None:
    """A journal of a later version is refused, with both numbers."""
    SqliteJournal(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(ConfigError, match="format 99, and this tokenmesh reads 2"):
        SqliteJournal(path)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    """Damaged, or never one."""
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(JournalError, match="damaged or no SQLite file"):
        SqliteJournal(path)


def test_a_closed_journal_says_so(path: Path) -> None:
    """Instead of opening again behind its owner's back."""
    journal = SqliteJournal(path)
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.claim(new_claim(), START)


def test_many_open_a_new_file_at_once(elsewhere: Any) -> None:
    """Four processes that start together make one journal."""
    workers = [elsewhere() for _ in range(4)]
    entry = new_claim()
    answers = [worker.run(claim_once, entry, START) for worker in workers]
    assert sum(isinstance(answer, Claimed) for answer in answers) == 1


# What goes wrong with files


def test_whoever_holds_the_file_is_waited_for(journal: SqliteJournal, path: Path) -> None:
    """Another writer that takes a moment is not noticed."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = threading.Event()
    journal._requests._sleep = lambda seconds: waiting.set()
    release = threading.Thread(target=lambda: waiting.wait(ANSWER_S) and other.execute("COMMIT"))
    release.start()
    assert isinstance(journal.claim(new_claim(), START), Claimed)
    release.join()
    assert waiting.is_set()
    other.close()


def test_but_not_for_ever(path: Path) -> None:
    """Past busy_s_max it is an error in clear words, for requests and for settlement."""
    journal = SqliteJournal(path, busy_s_max=0.1, clock=Clock())
    (entry,) = work(journal)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for attempt in (lambda: journal.claim(new_claim(), START), lambda: journal.take_batch(10, START)):
        with pytest.raises(JournalError, match=r"others have been writing .* for 0.1 s \(busy_s_max\)"):
            attempt()
    found = journal.find(*key(entry))
    assert found is not None, "reading waits for nobody"
    other.execute("COMMIT")
    other.close()
    assert isinstance(journal.claim(new_claim(), START), Claimed)
    journal.close()


def test_a_full_disk_is_named_and_survived(elsewhere: Any) -> None:
    """A limit on file sizes stands for the disk: clear words, nothing half done, and on it goes after."""
    message, before, after = elsewhere().run(fill_the_disk)
    assert re.search("cannot grow: its disk is full", message)
    assert before > 10
    assert after == (before + 1) * 5


def test_a_file_that_may_not_be_written_is_named(elsewhere: Any, path: Path) -> None:
    """With the file and the reason."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        SqliteJournal(directory / "journal.db").close()
        (directory / "journal.db").chmod(0o444)
        directory.chmod(0o555)
        message = elsewhere().run(claim_without_permission, str(directory / "journal.db"))
        directory.chmod(0o755)
    assert re.search(r"journal\.db cannot be opened: Permission denied", message)


# Owners


def test_a_killed_process_is_known_at_once(journal: SqliteJournal, elsewhere: Any) -> None:
    """Its lease has time left, but its lock is free: a retry need not wait."""
    entry = new_claim()
    other = elsewhere()
    assert isinstance(other.run(claim_once, entry, START), Claimed)
    assert isinstance(journal.claim(entry, START), Running)
    other.signal(signal.SIGKILL)
    answer = journal.claim(entry, START)
    assert (answer.out, answer.reason) == ("void", "abandoned")  # type: ignore[union-attr]


def test_a_killed_process_leaves_its_batch_at_once(journal: SqliteJournal, elsewhere: Any) -> None:
    """What it may have sent is sent again by the next."""
    work(journal)
    other = elsewhere()
    batch = other.run(take_and_keep, "operation", START)
    other.signal(signal.SIGKILL)
    assert journal.take_batch(10, START) == batch._replace(operation="operation")


def test_a_dead_parent_is_known_though_its_child_lives(journal: SqliteJournal, elsewhere: Any) -> None:
    """A forked child does not keep its parent's lock."""
    entry = new_claim()
    other = elsewhere()
    answer, child = other.run(claim_with_a_child, entry, START)
    assert isinstance(answer, Claimed)
    try:
        assert isinstance(journal.claim(entry, START), Running)
        other.signal(signal.SIGKILL)
        assert journal.claim(entry, START).out == "void"  # type: ignore[union-attr]
    finally:
        os.kill(child, signal.SIGKILL)


def test_owners_that_are_gone_leave_no_file(journal: SqliteJournal, elsewhere: Any, path: Path) -> None:
    """A service restarted a thousand times has one owner's lock beside its journal."""
    for _ in range(2):
        other = elsewhere()
        other.run(claim_once, new_claim(), START)
        other.signal(signal.SIGKILL)
    directory = path.with_name("journal.db-owners")
    assert len(list(directory.iterdir())) == 3
    journal.prune(START)
    assert len(list(directory.iterdir())) == 1


def test_who_comes_back_in_time_is_not_buried(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that shows life again while its claims are being looked for keeps them."""
    entry = new_claim()
    journal.claim(entry, START)
    other = SqliteJournal(path, clock=Clock())
    query = other._upkeep.query

    def slowly(statement: str, parameters: Any = ()) -> list[Any]:
        rows = query(statement, parameters)
        journal.heartbeat(START + 11)
        return rows

    monkeypatch.setattr(other._upkeep, "query", slowly)
    other.prune(START + 11)
    assert fulfil(journal, entry, now=START + 11)
    other.close()


def test_without_locks_the_lease_decides(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none, an owner is given up when its lease is over, and not before."""

    def no_locks(*arguments: Any) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    first, second = (SqliteJournal(path, clock=Clock()) for _ in range(2))
    entry = new_claim()
    first.claim(entry, START)
    assert isinstance(second.claim(entry, START + 9), Running)
    assert second.claim(entry, START + 11).out == "void"  # type: ignore[union-attr]
    first.close()
    second.close()


# Forks


@forks
def test_parent_and_child_both_go_on(journal: SqliteJournal) -> None:
    """The child is an owner of its own: it can't end its parent's claims, nor the parent lose them by it."""
    before = new_claim()
    journal.claim(before, START)

    def child() -> bool:
        entry = new_claim(jti="the child's", seq=10**6)
        return (
            not fulfil(journal, before)
            and isinstance(journal.claim(before, START), Running)
            and isinstance(journal.claim(entry, START), Claimed)
            and fulfil(journal, entry)
        )

    assert in_a_fork(child)
    assert fulfil(journal, before)
    claim = journal.find("shop", "the child's")
    assert claim is not None
    assert claim.state == "fulfilled"
    assert len(journal.take_batch(10, START).items) == 2  # type: ignore[union-attr]


@forks
def test_a_child_does_not_count_its_parents_claims(path: Path) -> None:
    """It has none of them open, so they take none of its room."""
    journal = SqliteJournal(path, unsettled_max=2, clock=Clock())
    for _ in range(2):
        journal.claim(new_claim(), START)
    entry = new_claim()
    assert journal.claim(entry, START) == JournalFull()
    assert in_a_fork(lambda: isinstance(journal.claim(entry, START), Claimed))
    journal.close()


@forks
def test_a_fork_amid_work_of_other_threads_is_safe(journal: SqliteJournal) -> None:
    """Whatever the other threads hold at that moment, the child can work."""
    stop = threading.Event()

    def worker(lane: str) -> None:
        while not stop.is_set():
            work(journal, lane=lane, funds=10**9)
            journal.prune(START)

    threads = [threading.Thread(target=worker, args=(f"lane-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):

            def child(number: int = number) -> bool:
                entry = new_claim(jti=f"child-{number}", lane="child", seq=number, funds=10**9)
                return isinstance(journal.claim(entry, START), Claimed) and fulfil(journal, entry)

            assert in_a_fork(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(journal.find("shop", f"child-{number}") for number in range(10))


@forks
def test_a_fork_that_python_does_not_see_is_refused(journal: SqliteJournal, monkeypatch: Any) -> None:
    """A connection carried over by some other means is not used: that could damage the file."""
    work(journal)
    pid = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: pid + 1)
    with pytest.raises(JournalError, match="before this process was forked"):
        journal.claim(new_claim(), START)
    monkeypatch.undo()
    work(journal)


# Bounds


def test_a_lane_is_remembered_from_a_floor_on(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of used numbers are bounded; a number below the floor counts as used."""
    monkeypatch.setattr(allowances, "CHUNKS_MAX", 4)
    for seq in range(0, 600, 10):
        assert isinstance(journal.claim(new_claim(seq=seq), START), Claimed)
    journal.prune(START)
    assert journal.claim(new_claim(seq=5), START) == SequenceUsed(), "below the floor"
    assert journal.claim(new_claim(seq=590), START) == SequenceUsed(), "used"
    assert isinstance(journal.claim(new_claim(seq=595), START), Claimed)
    assert isinstance(journal.claim(new_claim(seq=10_000), START), Claimed)
    assert isinstance(journal.claim(new_claim(seq=5, lane="lane-2"), START), Claimed)


def test_numbers_that_are_all_used_take_no_room(journal: SqliteJournal, path: Path) -> None:
    """Whatever their order; one that was left out can still be used, and none can be used twice."""
    chance = Random(7)
    left_out = 1_234
    order = sorted(set(range(3_000)) - {left_out}, key=lambda seq: seq + chance.randrange(100))
    for seq in order:
        assert isinstance(journal.claim(new_claim(seq=seq, funds=10**9), START), Claimed), seq
    with sqlite3.connect(path) as other:
        rows = other.execute("SELECT count(*) FROM numbers WHERE chunk >= 0").fetchone()[0]
    other.close()
    assert rows <= 3_000 // CHUNK - left_out // CHUNK, "those before the gap are gone"
    for seq in (0, left_out - 1, left_out + 1, 2_999):
        assert journal.claim(new_claim(seq=seq, funds=10**9), START) == SequenceUsed(), seq
    assert isinstance(journal.claim(new_claim(seq=left_out, funds=10**9), START), Claimed)
    assert isinstance(journal.claim(new_claim(seq=3_000, funds=10**9), START), Claimed)
    assert journal.claim(new_claim(seq=left_out, funds=10**9), START) == SequenceUsed()


def test_the_log_begins_anew_amid_work(
    journal: SqliteJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under writing without a break it would grow for ever; pruning brings it back to its beginning."""
    monkeypatch.setattr(retention, "WAL_PAGES_MAX", 100)
    done = threading.Event()

    def worker() -> None:
        work(journal, 2_000, funds=10**9)
        done.set()

    thread = threading.Thread(target=worker)
    thread.start()
    while not done.is_set():
        journal.prune(START)
    thread.join()
    assert path.with_name("journal.db-wal").stat().st_size < 20 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_stays_flat(elsewhere: Any) -> None:
    """A hundred thousand calls, settled and pruned, take no memory that stays."""
    other = elsewhere(retention_s=100, leeway_s=0)
    other.send(many_calls, 100_000)
    grown_mb, journal_mb = other.receive(250)
    assert grown_mb < 8
    assert journal_mb < 50

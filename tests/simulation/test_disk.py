"""The simulator's disk does to a file what a real one does: no more and no less."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from simulation.disk import CommitFault, Disk
from simulation.world import Killed, Process, World


class Host:
    """A process with a table of notes in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.disk = Disk()
        self.disk.may_lose_power = True
        self.process = Process(World(), "somebody")
        self.process.start()
        self.path = folder / "notes.db"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE notes (note TEXT)")
        self.connection = self.disk.opener(self.process, "journal")(self.path, isolation_level=None)

    def note(self, text: str) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        execute("INSERT INTO notes VALUES (?)", (text,))
        execute("COMMIT")

    def end(self, *, power: bool) -> list[str]:
        """The process dies, with or without the whole host; what the file holds then."""
        self.process.die()
        self.disk.let_go(self.process)
        if power:
            self.disk.cut_power([self.path])
        with closing(sqlite3.connect(self.path)) as connection:
            return [note for (note,) in connection.execute("SELECT note FROM notes")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("level", "power", "kept"),
    [("FULL", True, ["first", "second"]), ("NORMAL", False, ["first", "second"]), ("NORMAL", True, [])],
)
def test_a_power_cut_takes_back_what_was_not_synced(
    host: Host, level: str, power: bool, kept: list[str]
) -> None:
    """Without a sync a commit outlives its process, and not the host; with one it outlives both."""
    host.connection.execute(f"PRAGMA synchronous={level}")
    host.note("first")
    host.note("second")
    assert host.end(power=power) == kept


def test_a_checkpoint_syncs_what_is_there(host: Host) -> None:
    """What came before it is safe; what comes after it is not."""
    host.connection.execute("PRAGMA synchronous=NORMAL")
    host.note("before")
    host.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    host.note("after")
    assert host.end(power=True) == ["before"]


@pytest.mark.parametrize(("after", "kept"), [(False, ["first"]), (True, ["first", "second"])])
def test_a_kill_at_a_commit_comes_before_it_or_after_it(host: Host, after: bool, kept: list[str]) -> None:
    """And whatever the dead process does to the file from then on has no effect."""
    host.disk.faults["somebody/journal", 2] = CommitFault("kill", after)
    host.note("first")
    with pytest.raises(Killed):
        host.note("second")
    host.process.die()
    with pytest.raises(Killed):
        host.connection.execute("DELETE FROM notes")
    assert host.end(power=False) == kept


def test_a_full_disk_refuses_one_commit(host: Host) -> None:
    """With SQLite's own error; what is rolled back then was never there, and the next commit is taken."""
    host.disk.faults["somebody/journal", 1] = CommitFault("full")
    with pytest.raises(sqlite3.OperationalError) as full:
        host.note("first")
    assert full.value.sqlite_errorcode == sqlite3.SQLITE_FULL
    host.connection.rollback()
    host.note("second")
    assert host.end(power=True) == ["second"]

"""A disk that fails when it is told to, and forgets what was never synced when the power goes.

The journal and the ledger run on real SQLite files, through connections that count. Each commit is an
occasion: for the process to be killed just before or just after it, for the disk to be full or to fail. What
a commit is worth depends on ``PRAGMA synchronous`` of the connection that made it: in WAL mode ``FULL`` syncs
the log at each commit, ``NORMAL`` only at checkpoints. So the first commit that is not synced keeps a copy of
the file as it was, and a power cut puts that back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simulation.world import Killed, Process

FULL = 2
_LEVELS = {"OFF": 0, "NORMAL": 1, "FULL": FULL, "EXTRA": 3}
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_ENDINGS = ("", "-wal", "-shm")
FAILURES = {
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "write": (sqlite3.SQLITE_IOERR_WRITE, "disk I/O error"),
    "sync": (sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"),
}
"""What a failing disk says, and its code."""


class CommitFault(NamedTuple):
    """What happens at a commit: ``kill`` before or after it, or a failure of ``FAILURES``."""

    what: str
    after: bool = False


class Lost(NamedTuple):
    """What a file held when it was synced last."""

    parts: dict[str, bytes]


class Disk:
    """The disk of the one host that all processes run on."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.unsynced: dict[str, Lost] = {}
        self.commits: dict[str, int] = {}
        """Commits so far, by process and kind of file."""
        self.faults: dict[tuple[str, int], CommitFault] = {}
        self.down: dict[str, float] = {}
        """Until when a kind of file cannot be used at all."""
        self.may_lose_power = False
        """Whether it has to remember what was synced."""
        self.troubled: Callable[[], None] = lambda: None
        self.changed: set[str] = set()
        """Kinds of files that were written since somebody looked."""

    def opener(self, process: Process, kind: str) -> Callable[..., sqlite3.Connection]:
        """What ``process`` opens files of a kind (``journal``, ``ledger``) with."""
        life = process.life

        def connect(database: Any, **options: Any) -> sqlite3.Connection:
            connection = sqlite3.connect(database, factory=Connection, **options)
            connection.belongs(self, process, life, kind)
            self.connections.append(connection)
            return connection

        return connect

    def let_go(self, process: Process) -> None:
        """Close what a process that has died had open: what it did not commit never was."""
        for connection in self.connections:
            if connection.process is process:
                # Closing alone would wait for cursors that a frame of the dead still holds.
                with suppress(sqlite3.ProgrammingError):  # it had closed it itself
                    connection.rollback()
                connection.close()
        self.connections = [each for each in self.connections if each.process is not process]

    def cut_power(self, files: list[Path]) -> None:
        """Forget what was not synced. Every process has died, every connection is closed."""
        assert not self.connections, "nobody has a file open when the power is off"
        for path in files:
            lost = self.unsynced.pop(str(path), None)
            if lost is not None:
                for ending in _ENDINGS:
                    Path(f"{path}{ending}").unlink(missing_ok=True)
                for ending, content in lost.parts.items():
                    Path(f"{path}{ending}").write_bytes(content)

    def before_commit(self, connection: Connection) -> CommitFault | None:
        """Count a commit, and say what happens at it; raises what happens before it."""
        name = f"{connection.process.name}/{connection.kind}"
        number = self.commits[name] = self.commits.get(name, 0) + 1
        fault = self.faults.get((name, number))
        if fault is not None:
            self.troubled()
        if fault is not None and not fault.after:
            connection.process.say(f"{fault.what} at its commit {number} to the {connection.kind}")
            if fault.what == "kill":
                raise Killed
            raise _failure(fault.what)
        if connection.level < FULL and self.may_lose_power and connection.path not in self.unsynced:
            self.unsynced[connection.path] = _copy(connection.path)
        return fault

    def after_commit(self, connection: Connection, fault: CommitFault | None) -> None:
        """It is done; raises what happens after it."""
        self.changed.add(connection.kind)
        if connection.level >= FULL:
            self.unsynced.pop(connection.path, None)
        if fault is not None:
            connection.process.say(f"{fault.what} right after a commit to the {connection.kind}")
            if fault.what == "kill":
                raise Killed
            raise _failure(fault.what)

    def checkpointed(self, path: str) -> None:
        """A checkpoint syncs the log before it moves it, and the file after that."""
        self.unsynced.pop(path, None)


class Connection(sqlite3.Connection):
    """A connection of one process in one of its lives."""

    disk: Disk
    process: Process
    kind: str
    path: str

    def belongs(self, disk: Disk, process: Process, life: int, kind: str) -> None:
        """Tell it whose it is."""
        self.disk, self.process, self.life, self.kind = disk, process, life, kind
        self.level = FULL
        self._changes = 0
        (self.path,) = super().execute("SELECT file FROM pragma_database_list").fetchone()

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return super().cursor(Cursor)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        self._check(sql)
        commits = self._commits(sql)
        fault = self.disk.before_commit(self) if commits else None
        cursor = super().cursor(sqlite3.Cursor).execute(sql, parameters)
        if commits:
            self.disk.after_commit(self, fault)
        elif sql.startswith("BEGIN"):
            self._changes = self.total_changes
        elif sql.startswith("PRAGMA"):
            self._note(sql)
        return cursor

    def _check(self, sql: str) -> None:
        process = self.process
        if process.life != self.life or not process.alive:
            raise Killed
        if self.disk.down.get(self.kind, 0) > process.world.now and sql.startswith("BEGIN"):
            raise _error(sqlite3.SQLITE_CANTOPEN, "unable to open database file")

    def _commits(self, sql: str) -> bool:
        """Whether this statement makes something durable: a commit of something, or a write by itself."""
        if sql == "COMMIT":
            return self.total_changes > self._changes
        return not self.in_transaction and sql.startswith(_WRITES)

    def _note(self, sql: str) -> None:
        if sql.startswith("PRAGMA synchronous="):
            self.level = _LEVELS[sql.partition("=")[2]]
        elif sql.startswith("PRAGMA wal_checkpoint"):
            self.disk.checkpointed(self.path)


class Cursor(sqlite3.Cursor):
    """A cursor for statements that are transactions by themselves. One that gives rows is over, and has
    committed, only when they have been fetched."""

    connection: Connection
    _fault: CommitFault | None = None
    _open = False

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        connection = self.connection
        connection._check(sql)
        self._open = connection._commits(sql)
        if self._open:
            self._fault = connection.disk.before_commit(connection)
        super().execute(sql, parameters)
        if self.description is None:
            self._committed()
        return self

    def fetchall(self) -> list[Any]:
        rows = super().fetchall()
        self._committed()
        return rows

    def _committed(self) -> None:
        if self._open:
            self._open = False
            self.connection.disk.after_commit(self.connection, self._fault)


def _copy(path: str) -> Lost:
    return Lost(
        {ending: Path(path + ending).read_bytes() for ending in _ENDINGS[:2] if Path(path + ending).exists()}
    )


def _failure(what: str) -> sqlite3.OperationalError:
    return _error(*FAILURES[what])


def _error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error

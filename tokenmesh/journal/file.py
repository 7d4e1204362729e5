"""The SQLite journal's file: how it is opened, whose turn it is, and what its errors mean."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

from tokenmesh.errors import ConfigError, JournalError
from tokenmesh.journal.schema import APPLICATION_ID, PAGE_BYTES, SCHEMA, SCHEMA_VERSION, TRIGGERS

T = TypeVar("T")
Execute: TypeAlias = Callable[..., Any]
"""``sqlite3.Connection.execute``, within a transaction that somebody else ends."""
Synchronous: TypeAlias = Literal["NORMAL", "FULL"]
Connect: TypeAlias = Callable[..., sqlite3.Connection]
"""``sqlite3.connect``, or a disk of one's own."""

CACHE_KIB = 2_048
AUTOCHECKPOINT_PAGES = 16_384
"""Past so many pages a commit checkpoints by itself: when nobody calls ``prune``, which does it aside."""
CHECKPOINT_TRIES_MAX = 20
PAUSE_S_MIN = 0.000_05
PAUSE_S_MAX = 0.002

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


class JournalFile:
    """One connection to the journal's file, for one thread at a time, as write transactions.

    ``with file as execute:`` waits its turn (other threads, then other processes), begins a transaction that
    may write, and commits it, or rolls it back if an exception comes through. Waiting has a limit,
    ``busy_s_max``; past it, and for every other error of SQLite, :class:`JournalError` is raised.

    An SQLite connection must not be carried across a fork. So connections are closed just before a fork and
    opened again when next used, in parent and child alike.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_s_max: float,
        synchronous: Synchronous,
        random: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        opener: Connect = sqlite3.connect,
    ) -> None:
        self.path = path
        self._busy_s_max = busy_s_max
        self._synchronous = synchronous
        self._random = random
        self._monotonic = monotonic
        self._sleep = sleep
        self._opener = opener
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._told: list[Any] = []
        self._pid = os.getpid()
        self._closed = False
        with _FORKING:
            _FILES.add(self)

    def __enter__(self) -> Execute:
        self._acquire()
        try:
            connection = self._connection
            if connection is None or self._pid != os.getpid():
                connection = self._open()
            self._execute = connection.execute
            try:
                self._execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                self._begin(connection)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise journal_error(error, self.path) from error
            raise
        return self._execute

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._execute("COMMIT")
            else:
                self._rollback()
        except sqlite3.Error as failed:
            self._rollback()
            raise journal_error(failed, self.path) from failed
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise journal_error(error, self.path) from error

    def at_once(self, statement: str, parameters: Sequence[Any]) -> list[Any] | None:
        """Do one statement that writes as a transaction of its own; None if a constraint refused it.

        Gives what the statement has told: the values, in their order, with which it called ``tell``, a
        function that keeps its value for this and is NULL.
        """
        if not self._lock.acquire(False):
            self._acquire()
        try:
            if self._connection is None or self._pid != os.getpid():
                self._open()
            # One cursor for all calls: with one made for each, a paid call takes some 7 µs more.
            cursor, told = self._cursor, self._told
            told.clear()
            try:
                cursor.execute(statement, parameters)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                told.clear()
                self._patiently(lambda: cursor.execute(statement, parameters))
            return told.copy()
        except sqlite3.IntegrityError:
            return None
        except sqlite3.Error as error:
            raise journal_error(error, self.path) from error
        finally:
            self._lock.release()

    def read(self, work: Callable[[Execute], T]) -> T:
        """What ``work`` gives, which only reads: all of it as of one moment, and waiting for no writer."""
        self._acquire()
        try:
            connection = self._connection
            if connection is None or self._pid != os.getpid():
                connection = self._open()
            return self._patiently(lambda: _snapshot(connection, work))
        except sqlite3.Error as error:
            raise journal_error(error, self.path) from error
        finally:
            self._lock.release()

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of one statement that only reads: as of one moment by itself, with no BEGIN about it."""
        if not self._lock.acquire(False):
            self._acquire()
        try:
            if self._connection is None or self._pid != os.getpid():
                self._open()
            cursor = self._cursor
            try:
                return cursor.execute(statement, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                return self._patiently(lambda: cursor.execute(statement, parameters).fetchall())
        except sqlite3.Error as error:
            raise journal_error(error, self.path) from error
        finally:
            self._lock.release()

    def checkpoint(self, pages_max: int) -> None:
        """Move the write-ahead log into the file, beside those who write.

        While others write without a break, the log never comes to its end and grows. Past ``pages_max`` they
        are made to wait while its last pages are moved, so that it begins anew.
        """
        self._acquire()
        try:
            execute = (self._connection or self._open()).execute
            _, pages, _ = execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            for _ in range(CHECKPOINT_TRIES_MAX):
                if pages <= pages_max:
                    break
                blocked, pages, moved = execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not blocked and pages == moved:
                    break
                self._sleep(PAUSE_S_MAX * self._random.random())
        except sqlite3.Error as error:
            # Busy: another process is doing it.
            if not is_busy(error):
                raise journal_error(error, self.path) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close for good; a later use raises :class:`JournalError`."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def before_fork(self) -> None:
        """Let whoever works on the file finish, and close: no connection may exist in two processes."""
        self._lock.acquire()
        self._disconnect()

    def after_fork(self) -> None:
        """In parent and child: go on, with a new connection when one is needed."""
        self._lock.release()

    def _acquire(self) -> None:
        if not self._lock.acquire(timeout=self._busy_s_max):
            raise _too_long(self.path, self._busy_s_max)

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat ``attempt`` while others hold the file. Their transactions take well below a millisecond,
        where SQLite's own waiting would sleep for up to a tenth of a second."""
        deadline = self._monotonic() + self._busy_s_max
        pause = PAUSE_S_MIN
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if self._monotonic() >= deadline:
                    raise _too_long(self.path, self._busy_s_max) from error
            self._sleep(pause * (0.5 + self._random.random()))
            pause = min(pause * 1.5, PAUSE_S_MAX)

    def _rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise JournalError(f"the journal {self.path} is closed")
        if self._connection is not None:
            raise JournalError(
                f"the journal {self.path} was opened before this process was forked, by something that "
                "Python did not notice: open it after the fork, or fork with os.fork"
            )
        self._pid = os.getpid()
        self._connection = self._connect()
        self._cursor = self._connection.cursor()
        self._connection.create_function("tell", 1, self._told.append)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        # One thread at a time, but not always the one that opened it: the lock sees to that.
        connection = self._opener(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            self._patiently(lambda: self._prepare(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        if execute("PRAGMA user_version").fetchone() == (0,):
            _create(connection, self.path)
        application = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise ConfigError(
                f"{self.path} is an SQLite file, but not a tokenmesh journal: check the journal's url"
            )
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} has journal format {version}, and this tokenmesh reads {SCHEMA_VERSION}: "
                "use the version that wrote it"
            )
        execute(f"PRAGMA synchronous={self._synchronous}")
        execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        execute(f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}")
        # Wiping what is deleted would write every page that pruning frees.
        execute("PRAGMA secure_delete=OFF")
        execute("PRAGMA trusted_schema=OFF")

    def _disconnect(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
            self._connection = None


def _snapshot(connection: sqlite3.Connection, work: Callable[[Execute], T]) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection.execute)
    finally:
        connection.rollback()


def create_file(path: Path) -> None:
    """Make the file if there is none, for its owner's eyes only: it holds responses."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except FileNotFoundError as error:
        raise ConfigError(
            f"the journal {path} cannot be made: there is no directory {path.parent}; make it, or check the "
            "journal's url"
        ) from error
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be opened: {error.strerror}") from error


def _create(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a journal; of several processes that try, one does."""
    execute = connection.execute
    tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    # In this order: another process may make it a journal in between, tables and version at once.
    if tables and execute("PRAGMA user_version").fetchone() == (0,):
        raise ConfigError(f"{path} is an SQLite file, but not a tokenmesh journal: check the journal's url")
    execute(f"PRAGMA page_size={PAGE_BYTES}")
    execute("PRAGMA journal_mode=WAL")
    execute("BEGIN IMMEDIATE")
    try:
        if execute("PRAGMA user_version").fetchone() == (0,):
            for statement in (SCHEMA + TRIGGERS).strip().split(";\n"):
                execute(statement)
            execute(f"PRAGMA application_id={APPLICATION_ID}")
            execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the error says that someone else uses the file now (the low byte is the kind of error)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def journal_error(error: sqlite3.Error, path: Path) -> JournalError:
    """What an error of SQLite means to the people who run the service."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    extended = getattr(error, "sqlite_errorcode", 0)
    # A file, or the index that all processes share in one beside it, cannot grow.
    if kind == sqlite3.SQLITE_FULL or extended in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE):
        why = "cannot grow: its disk is full, or a limit on file sizes is reached; free some space"
    elif kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        why = "may not be written: check the permissions of the file, of its directory, and the mount"
    elif kind == sqlite3.SQLITE_CANTOPEN:
        why = "cannot be opened: check that its directory exists and may be written"
    elif kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        why = "is damaged or no SQLite file: move it away and start with a copy, or with a new one"
    else:
        why = "cannot be used"
    return JournalError(f"the journal {path} {why} (nothing was changed; SQLite says: {error})")


def _too_long(path: Path, busy_s_max: float) -> JournalError:
    return JournalError(
        f"others have been writing to the journal {path} for {busy_s_max:g} s (busy_s_max): nothing was "
        "changed, try again later"
    )


_FORKING = threading.RLock()
_FILES: weakref.WeakSet[JournalFile] = weakref.WeakSet()
_paused: list[JournalFile] = []


def _before_fork() -> None:
    _FORKING.acquire()  # until after the fork: one fork at a time, and no file made meanwhile
    _paused[:] = list(_FILES)
    for file in _paused:
        file.before_fork()


def _after_fork() -> None:
    for file in _paused:
        file.after_fork()
    _paused.clear()
    _FORKING.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)

"""The embedded ledger's file: its tables, how it is opened, and what its errors mean to a caller.

SQLite in WAL mode, so that many processes read while one writes, with ``synchronous=FULL``: a commit is on
the disk before it is answered. Six tables, of which the first two are the ledger and the next three follow
from them (``verify`` derives them anew and compares):

- ``transactions``: the chain; ``id`` is the hash of a row's header, which names the ``id`` before it,
- ``operations``: the documents of each transaction and their outcomes; ``at`` = ``n << AT_BITS | position``,
- ``state``: what the rules read and write, ``n`` being the transaction that wrote a key last. ``payer`` and
  ``due`` are there to be searched: ``payer`` has tokens set aside in this row, which may expire at ``due``;
  with no ``payer`` the row may be forgotten some time after ``due``,
- ``contracts``: in which operations a contract id appears,
- ``parties``: which transactions touch a wallet,
- ``disclosures``: of private contracts, with the transaction ``n`` that they came beside: may be deleted.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from tokenmesh.errors import ConfigError, LedgerOutcomeUnknown, LedgerUnavailable

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]
Connect: TypeAlias = Callable[..., sqlite3.Connection]
"""``sqlite3.connect``, or a disk of one's own."""

APPLICATION_ID = 0x746D6C31
SCHEMA_VERSION = 2
AT_BITS = 20
"""Room for the position of an operation within its transaction."""
CHECKPOINT_PAGES = 4_000
CACHE_KIB = 4_096
LOOK_INTERVAL_S = 0.1

SCHEMA: Mapping[str, str] = {
    "transactions": (
        "CREATE TABLE transactions (n INTEGER PRIMARY KEY, id TEXT NOT NULL, time_ms INTEGER NOT NULL, "
        "signer TEXT NOT NULL, x5t TEXT NOT NULL, signature BLOB NOT NULL)"
    ),
    "transactions_by_id": "CREATE UNIQUE INDEX transactions_by_id ON transactions (id)",
    "operations": (
        "CREATE TABLE operations (at INTEGER PRIMARY KEY, issuer TEXT NOT NULL, id TEXT NOT NULL, "
        "act TEXT NOT NULL, outcome TEXT NOT NULL, document BLOB NOT NULL)"
    ),
    "state": (
        "CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL, payer TEXT, due INTEGER, "
        "n INTEGER NOT NULL) WITHOUT ROWID"
    ),
    "state_set_aside": "CREATE INDEX state_set_aside ON state (payer, due) WHERE payer IS NOT NULL",
    "state_forgettable": (
        "CREATE INDEX state_forgettable ON state (due) WHERE payer IS NULL AND due IS NOT NULL"
    ),
    "contracts": (
        "CREATE TABLE contracts (jti TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (jti, at)) WITHOUT ROWID"
    ),
    "parties": (
        "CREATE TABLE parties (wallet TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (wallet, n)) "
        "WITHOUT ROWID"
    ),
    "disclosures": (
        "CREATE TABLE disclosures (sd TEXT PRIMARY KEY, n INTEGER NOT NULL, disclosure TEXT NOT NULL) "
        "WITHOUT ROWID"
    ),
}

_READ_ONLY = "the ledger {} is read-only: give this process the right to write to it and its folder"
_FULL = "the ledger {} cannot grow: its disk is full, or a limit on file sizes is reached"
_NO_ROOM = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says in place of ``SQLITE_FULL`` where a file, or its index for all processes, cannot grow."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LedgerFile:
    """The file at ``path`` as it was when the ledger was opened."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._inode = self._look()
        self._looked_at = clock()

    def check(self) -> None:
        """Raise ``LedgerUnavailable`` if the path names another file now, or none.

        An open file that was removed can still be written to: what is acknowledged would be lost. It looks
        at most once in ``LOOK_INTERVAL_S``.
        """
        now = self._clock()
        if now - self._looked_at < LOOK_INTERVAL_S:
            return
        if self._look() != self._inode:
            raise LedgerUnavailable(
                f"the ledger {self.path} has been replaced by another file since it was opened: nothing "
                "happened; restart this process to use that one"
            )
        self._looked_at = now

    def _look(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError as error:
            raise unavailable(error, self.path) from error


def connect(
    path: Path,
    *,
    busy_s_max: float,
    synchronous: Synchronous = "FULL",
    read_only: bool = False,
    opener: Connect = sqlite3.connect,
) -> sqlite3.Connection:
    """Open the ledger file at ``path``; it must exist. Raises ``sqlite3.Error``.

    In WAL mode nobody waits to read, but for the moment in which a process that comes after a killed one
    puts the file in order: that is what ``busy_s_max`` is for.
    """
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    # One connection serves one thread at a time, but not always the thread that opened it.
    connection = opener(uri, uri=True, timeout=busy_s_max, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        # History keeps everything anyway; wiping what the state drops would only cost writes.
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("PRAGMA trusted_schema=OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def create_tables(connection: sqlite3.Connection) -> None:
    """Make an empty file a ledger file."""
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    for statement in SCHEMA.values():
        connection.execute(statement)


def check_file(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ``ConfigError`` if the file is no ledger, or one of another version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise ConfigError(f"{path} is an SQLite file, but not a tokenmesh ledger: check the ledger's url")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has ledger format {version}, and this tokenmesh reads {SCHEMA_VERSION}: "
            "use the version that wrote it"
        )


def unavailable(error: Exception, path: Path) -> LedgerUnavailable:
    """What a failed statement means to a caller, when certainly nothing was committed."""
    return LedgerUnavailable(f"{_why(error, path)} (nothing happened on the ledger; SQLite says: {error})")


def failed_commit(error: sqlite3.Error, path: Path) -> LedgerUnavailable | LedgerOutcomeUnknown:
    """What a failed COMMIT means to a caller.

    A commit record is written last, so a write that failed leaves none behind. When the failure came later
    (an fsync), it may be in the file, and a crash may bring it to life.
    """
    code = _code(error)
    certain = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM)
    if code & 0xFF in certain or code == sqlite3.SQLITE_IOERR_WRITE:
        return unavailable(error, path)
    return LedgerOutcomeUnknown(
        f"{_why(error, path)} (while committing, so it may have happened: submit the same again; "
        f"SQLite says: {error})"
    )


def lacks_room(error: sqlite3.Error, path: Path) -> bool:
    """Whether the file cannot be read for what is around it, and may itself be well: its index for all
    processes, in a file beside it, has no room or may not be made."""
    code = _code(error)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return not os.access(path.parent, os.W_OK)
    return code == sqlite3.SQLITE_IOERR_SHMSIZE


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the ledger {path} is not there any more"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _READ_ONLY.format(path)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _FULL.format(path)
    if not isinstance(error, sqlite3.Error):
        return f"the ledger {path} cannot be used"
    code = _code(error)
    kind = code & 0xFF
    if kind == sqlite3.SQLITE_FULL or code in _NO_ROOM:
        return _FULL.format(path)
    if kind == sqlite3.SQLITE_READONLY:
        return _READ_ONLY.format(path)
    if kind == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
        return (
            f"the ledger {path} cannot be opened, as its folder is read-only: also who only reads needs an "
            "index beside it, which the first one makes"
        )
    if kind == sqlite3.SQLITE_CANTOPEN:
        return f"the ledger {path} cannot be opened: check the rights on it and its folder"
    if kind in _DAMAGED:
        return f"the ledger {path} is damaged: 'tokenmesh verify' says where"
    return f"the ledger {path} cannot be used"


def _code(error: sqlite3.Error) -> int:
    # Errors that Python's own module raises (a closed connection) carry no code.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR))


def sync_directory(path: Path) -> None:
    """Make the name of a new file durable: fsync its directory."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

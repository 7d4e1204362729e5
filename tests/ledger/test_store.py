"""The ledger's file: what SQLite's errors mean to a caller, and what is certain when a commit fails."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tokenmesh.errors import LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.ledger.store import failed_commit, lacks_room, unavailable

PATH = Path("/somewhere/ledger.db")


def error_of(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "cannot grow"),
        (sqlite3.SQLITE_IOERR_WRITE, "cannot grow"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "cannot grow"),
        (sqlite3.SQLITE_READONLY, "read-only"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "read-only"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_CORRUPT, "tokenmesh verify"),
        (sqlite3.SQLITE_CORRUPT_VTAB, "tokenmesh verify"),
        (sqlite3.SQLITE_NOTADB, "tokenmesh verify"),
        (sqlite3.SQLITE_IOERR_READ, "cannot be used"),
    ],
)
def test_an_error_before_the_commit_is_certain_and_says_what_to_do(code, words):
    """What happened, in words, with SQLite's own behind them; and that nothing happened on the ledger."""
    failure = unavailable(error_of(code), PATH)
    assert isinstance(failure, LedgerUnavailable)
    for part in (words, str(PATH), "nothing happened", "what SQLite says"):
        assert part in str(failure)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file"), "not there any more"),
        (PermissionError(13, "Permission denied"), "read-only"),
        (OSError(30, "Read-only file system"), "read-only"),
        (OSError(28, "No space left on device"), "cannot grow"),
        (OSError(5, "Input/output error"), "cannot be used"),
        (sqlite3.ProgrammingError("no code at all"), "cannot be used"),
    ],
)
def test_other_errors_are_said_too(error, words):
    assert words in str(unavailable(error, PATH))


def test_a_file_beside_which_nothing_may_be_written_may_be_well(tmp_path, monkeypatch):
    """A reader on a disk that is full or read-only lacks the index; that says nothing against the ledger."""
    path = tmp_path / "ledger.db"
    assert lacks_room(error_of(sqlite3.SQLITE_IOERR_SHMSIZE), path)
    assert not lacks_room(error_of(sqlite3.SQLITE_CANTOPEN), path)
    assert not lacks_room(error_of(sqlite3.SQLITE_CORRUPT), path)
    monkeypatch.setattr(os, "access", lambda folder, how: (folder, how) != (tmp_path, os.W_OK))
    assert lacks_room(error_of(sqlite3.SQLITE_CANTOPEN), path)
    assert not lacks_room(error_of(sqlite3.SQLITE_CORRUPT), path)
    assert "its folder is read-only" in str(unavailable(error_of(sqlite3.SQLITE_CANTOPEN), path))


@pytest.mark.parametrize(
    ("code", "certain"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_IOERR_SHMSIZE, False),
        (sqlite3.SQLITE_IOERR, False),
        (sqlite3.SQLITE_ERROR, False),
    ],
)
def test_a_failed_commit_is_certain_only_if_its_record_was_not_written(code, certain):
    """An fsync that failed comes after the commit record: it may come to life again, so it is unknown."""
    failure = failed_commit(error_of(code), PATH)
    assert isinstance(failure, LedgerUnavailable if certain else LedgerOutcomeUnknown)
    assert failure.retryable

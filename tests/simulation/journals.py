"""The auditor's look at the journals: claims and endings as they lie in a payee's file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

_ENDINGS = (("owed", "'fulfilled', charged"), ("unowed", "out, 0"))


class End(NamedTuple):
    """How a contract ended."""

    out: str
    charged: int


class Claim(NamedTuple):
    """A claim as it lies in the file."""

    owner: int
    ended: int | None


class Journal:
    """A payee's journal, read as it lies there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None
        self._marks = {"owed": 0, "unowed": 0}

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self._path, isolation_level=None)
        return self._opened

    def claim(self, payer: str, jti: str) -> Claim | None:
        """The claim of a contract."""
        row = self._connection.execute(
            "SELECT owner, ended FROM claims WHERE payer = ? AND jti = ?", (payer, jti)
        ).fetchone()
        return row and Claim._make(row)

    def end(self, payer: str, jti: str) -> End | None:
        """How a contract has ended."""
        for table, columns in _ENDINGS:
            row = self._connection.execute(
                f"SELECT {columns} FROM {table} WHERE payer = ? AND jti = ?", (payer, jti)
            ).fetchone()
            if row is not None:
                return End._make(row)
        return None

    def new_ends(self) -> list[tuple[str, str, End]]:
        """What has ended since this was asked last."""
        found = []
        for table, columns in _ENDINGS:
            rows = self._connection.execute(
                f"SELECT n, payer, jti, {columns} FROM {table} WHERE n > ? ORDER BY n", (self._marks[table],)
            ).fetchall()
            for n, payer, jti, *end in rows:
                self._marks[table] = n
                found.append((payer, jti, End._make(end)))
        return found

    def lost(self) -> list[Any]:
        """What the ledger refused to settle."""
        return self._connection.execute("SELECT n, code FROM verdicts WHERE code IS NOT NULL").fetchall()

    def close(self) -> None:
        """Let go of the file, until the next question."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

"""The embedded ledger's file against edits of any kind: ``verify`` ends with a report, and says ok only if
every row of every table can still be read as it was.

What may differ unnoticed is what no reader of the ledger ever sees: pages that SQLite has freed, the order
of rows on a page, counters in the file's header.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

from fuzz.chance import Chance
from fuzz.target import Target
from ledger.test_verify_damage import TABLES, everything
from ledger.verify_tools import write_original

from tokenmesh.errors import LedgerUnavailable
from tokenmesh.ledger.verify import verify_ledger


class Ledger(Target):
    name: ClassVar[str] = "ledger"
    share: ClassVar[int] = 3

    def __init__(self, directory: Path) -> None:
        self.original = write_original(directory).path
        self.data = self.original.read_bytes()
        self.rows = everything(self.original)
        self.path = directory / "edited.db"
        with closing(sqlite3.connect(self.original)) as connection:
            self.columns = {
                table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                for table in TABLES
            }

    def one(self, chance: Chance) -> None:
        for leftover in self.path.parent.glob(f"{self.path.name}*"):
            leftover.unlink()
        if chance.one_in(2):
            self.edit_bytes(chance)
        else:
            self.edit_rows(chance)
        with suppress(LedgerUnavailable):
            report = verify_ledger(self.path)
            for finding in report.findings:
                assert finding.text.isascii()
            if report.ok:
                assert everything(self.path) == self.rows

    def edit_bytes(self, chance: Chance) -> None:
        data = bytearray(self.data)
        way = chance.below(8)
        if way == 0:
            del data[chance.below(len(data)) :]
        elif way == 1:  # one page in the place of another
            page = 4096
            pages = len(data) // page
            first, second = chance.below(pages) * page, chance.below(pages) * page
            data[first : first + page] = data[second : second + page]
        elif way == 2:
            data = bytearray(chance.spoil(bytes(data)))
        else:
            for _ in range(chance.pick((1, 1, 1, 4, 50))):
                at = (
                    int(chance.below(2**30) / 2**30 * len(data))
                    if chance.one_in(2)
                    else chance.below(len(data))
                )
                data[at] ^= 1 << chance.below(8)
        self.path.write_bytes(data)
        if chance.one_in(8):  # what a process that was killed may leave beside it, or somebody put there
            beside = self.path.with_name(self.path.name + chance.pick(("-wal", "-journal", "-shm")))
            beside.write_bytes(chance.spoil(self.data[: chance.pick((32, 512, 4096, 9000))]))

    def edit_rows(self, chance: Chance) -> None:
        shutil.copy(self.original, self.path)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for _ in range(1 + chance.below(3)):
                with suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
                    self.edit_row(chance, connection)

    def edit_row(self, chance: Chance, connection: sqlite3.Connection) -> None:
        table = chance.pick(TABLES)
        columns = self.columns[table]
        column = chance.pick(columns)
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        here = f"SELECT {columns[0]} FROM {table} LIMIT 1 OFFSET {chance.below(count)}"
        there = f"SELECT {column} FROM {table} LIMIT 1 OFFSET {chance.below(count)}"
        way = chance.below(6)
        if way == 0:
            connection.execute(f"DELETE FROM {table} WHERE {columns[0]} = ({here})")
        elif way == 1:  # another row's value
            connection.execute(f"UPDATE {table} SET {column} = ({there}) WHERE {columns[0]} = ({here})")
        elif way == 2:  # the same row again, with one thing changed
            names = [name if name != column else "?" for name in columns]
            connection.execute(
                f"INSERT OR REPLACE INTO {table} SELECT {', '.join(names)} FROM {table} "
                f"WHERE {columns[0]} = ({here})",
                (value(chance),),
            )
        elif way == 3:  # the same bytes, of another type
            kind = chance.pick(("BLOB", "TEXT", "INTEGER", "REAL"))
            connection.execute(
                f"UPDATE {table} SET {column} = CAST({column} AS {kind}) WHERE {columns[0]} = ({here})"
            )
        elif way == 4:
            (old,) = connection.execute(
                f"SELECT {column} FROM {table} WHERE {columns[0]} = ({here})"
            ).fetchone()
            octets = old if isinstance(old, bytes) else str(old).encode()
            new: Any = chance.spoil(octets)
            if isinstance(old, str):
                new = new.decode("latin-1")
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {columns[0]} = ({here})", (new,))
        else:
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE {columns[0]} = ({here})", (value(chance),)
            )


def value(chance: Chance) -> Any:
    """A value that a column can hold."""
    found = chance.value()
    if isinstance(found, dict | list):
        return str(found)
    return chance.bytes(20) if chance.one_in(4) else found

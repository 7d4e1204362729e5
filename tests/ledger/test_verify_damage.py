"""Verification of damaged files: bytes changed at random, tables that are not ours, files cut short."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledger.verify_tools import found

from tokenmesh.ledger.verify import verify_ledger

TABLES = ("transactions", "operations", "state", "contracts", "parties")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP INDEX state_set_aside",
        "CREATE TRIGGER more AFTER INSERT ON state BEGIN SELECT 1; END",
        "CREATE TABLE extra (x)",
        "ALTER TABLE parties ADD COLUMN extra",
        "DROP TABLE contracts",
        "PRAGMA application_id=1",
        "PRAGMA user_version=9",
    ],
)
def test_tables_that_are_not_the_ledgers_are_found(written, statement):
    """A trigger or an index that is not ours can change what is read; so can one that is missing."""
    with closing(sqlite3.connect(written.path)) as connection:
        connection.execute(statement)
    assert {one.code for one in found(written).findings} & {"schema", "damaged"}


def everything(path: Path) -> str | None:
    """All rows of all tables and how they are declared, or None if they cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = bytes
            rows = [
                [[(type(value).__name__, value) for value in row] for row in connection.execute(query)]
                for query in (
                    "SELECT name, sql FROM sqlite_master",
                    *(f"SELECT * FROM {table} NOT INDEXED" for table in TABLES),
                )
            ]
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    return repr(rows)


@pytest.mark.parametrize("seed", range(8))
def test_random_edits_of_bytes_never_crash_it_and_never_pass(original, tmp_path, seed):
    """Bytes of the file changed at random: verify always ends with a report, and it is ``ok`` only if every
    row of every table can still be read as it was."""
    chance = random.Random(seed)
    data = original.path.read_bytes()
    before = everything(original.path)
    for round_ in range(25):
        path = tmp_path / f"{round_}.db"
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 1, 4, 50])):
            at = chance.choice([chance.randrange(len(data)), chance.randrange(4096)])
            damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        report = verify_ledger(path)
        if report.ok:
            assert everything(path) == before
        path.unlink()


@pytest.mark.parametrize("length", [0, 1, 100, 5_000, 40_000])
def test_a_file_cut_short_is_a_finding(original, tmp_path, length):
    path = tmp_path / "short.db"
    path.write_bytes(original.path.read_bytes()[:length])
    assert not verify_ledger(path).ok


def test_no_database_at_all_is_a_finding(tmp_path):
    path = tmp_path / "text.db"
    path.write_text("this is not a ledger\n" * 1_000)
    (finding,) = verify_ledger(path).findings
    assert finding.code == "damaged"


def test_every_meaningful_value_counts(original, tmp_path):
    """Each column of each table, one row changed: never ok."""
    with closing(sqlite3.connect(original.path)) as connection:
        columns = [
            (table, row[1], row[2])
            for table in TABLES
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]
    for table, column, kind in columns:
        path = Path(shutil.copy(original.path, tmp_path / "edited.db"))
        changed = {"INTEGER": f"{column} + 7", "TEXT": f"{column} || 'x'", "BLOB": "x'00'"}[kind]
        with closing(sqlite3.connect(path)) as connection, connection:
            key = (
                "key" if table == "state" else "rowid" if table in ("transactions", "operations") else column
            )
            connection.execute(
                f"UPDATE {table} SET {column} = {changed} WHERE {key} = "
                f"(SELECT max({key}) FROM {table} WHERE {column} IS NOT NULL)"
            )
        assert not verify_ledger(path).ok, (table, column)

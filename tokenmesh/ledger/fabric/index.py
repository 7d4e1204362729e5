"""The index of a Fabric ledger's history: a file of this host, made from the blocks, and of them alone.

Its tables are those of the embedded ledger that make history searchable, so the same questions are asked of
it (:class:`tokenmesh.ledger.queries.Questions`); what is left out is the state, which the peers keep.
``blocks`` holds the hash of every block that was taken in, so that the index of another network is seen to
be one; ``funds`` whose an allowance is, as a settlement names it by its id only.

Nothing is lost with it: an index that does not fit, or is damaged, is made anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenmesh.ledger.effects import parties
from tokenmesh.ledger.fabric.recorded import LedgerTransaction
from tokenmesh.ledger.store import AT_BITS, SCHEMA
from tokenmesh_chaincode.state import Value

APPLICATION_ID = 0x746D6832
VERSION = 1
BUSY_S_MAX = 30.0

_SHARED = ("transactions", "transactions_by_id", "operations", "contracts", "parties")
_OWN = (
    "CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL)",
    "CREATE TABLE funds (id TEXT PRIMARY KEY, payer TEXT NOT NULL, payee TEXT NOT NULL) WITHOUT ROWID",
)
_TABLES = ("transactions", "operations", "contracts", "parties", "blocks", "funds")


class IndexedBlock(NamedTuple):
    """What the index takes in of a block."""

    number: int
    hash: bytes
    previous_hash: bytes
    transactions: Sequence[LedgerTransaction]


class NotTheNext(Exception):
    """The block does not follow the last one in the index: the index is of another channel."""


class Index:
    """One connection to the file at ``path`` (None: a temporary file), for one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        self.connection = sqlite3.connect(
            "" if path is None else path, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except BaseException:
            self.connection.close()
            raise

    def _open(self) -> None:
        self.connection.execute("PRAGMA journal_mode=WAL")
        # What a crash of the machine takes away is read from the blocks again.
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute("PRAGMA trusted_schema=OFF")
        self.connection.execute("BEGIN IMMEDIATE")
        marks = (
            *self.connection.execute("PRAGMA application_id").fetchone(),
            *self.connection.execute("PRAGMA user_version").fetchone(),
        )
        if marks == (0, 0):
            for name in _SHARED:
                self.connection.execute(SCHEMA[name])
            for statement in _OWN:
                self.connection.execute(statement)
            self.connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self.connection.execute(f"PRAGMA user_version={VERSION}")
        elif marks != (APPLICATION_ID, VERSION):
            raise sqlite3.DatabaseError("it is no index of a ledger's history, or one of another version")
        self.connection.execute("COMMIT")

    @property
    def next_block(self) -> int:
        """The number of the block that is to be taken in next."""
        (newest,) = self.connection.execute("SELECT coalesce(max(number), -1) FROM blocks").fetchone()
        return int(newest) + 1

    def hash_of(self, number: int) -> bytes | None:
        """The hash of a block; None if it was not taken in."""
        row = self.connection.execute("SELECT hash FROM blocks WHERE number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def take(self, blocks: Iterable[IndexedBlock]) -> None:
        """Take blocks in, all or none; those that another process has taken in meanwhile are passed over.

        Raises :class:`NotTheNext`.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            following = self.next_block
            for block in blocks:
                if block.number < following:
                    continue
                self._check_follows(block, following)
                self._take(block)
                following += 1
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite itself has undone it where there was no room
                self.connection.execute("ROLLBACK")
            raise

    def clear(self) -> None:
        """Forget everything."""
        self.connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()

    def _check_follows(self, block: IndexedBlock, following: int) -> None:
        before = self.hash_of(following - 1) if following else block.previous_hash
        if block.number != following or block.previous_hash != before:
            raise NotTheNext

    def _take(self, block: IndexedBlock) -> None:
        self.connection.execute("INSERT INTO blocks (number, hash) VALUES (?, ?)", (block.number, block.hash))
        for one in block.transactions:
            self._add(one)

    def _add(self, one: LedgerTransaction) -> None:
        (newest,) = self.connection.execute("SELECT max(n) FROM transactions").fetchone()
        n = 0 if one.is_genesis else (newest or 0) + 1
        first = n << AT_BITS
        run = self.connection.execute
        many = self.connection.executemany
        run(
            "INSERT INTO transactions (n, id, time_ms, signer, x5t, signature) VALUES (?, ?, ?, ?, ?, ?)",
            (n, one.tx_id, one.time_ms, one.signer, one.x5t, one.signature),
        )
        many(
            "INSERT INTO operations (at, issuer, id, act, outcome, document) VALUES (?, ?, ?, ?, ?, ?)",
            [(at, *entry[:5]) for at, entry in enumerate(one.entries, first)],
        )
        many(
            "INSERT INTO contracts (jti, at) VALUES (?, ?)",
            [(jti, at) for at, entry in enumerate(one.entries, first) for jti in sorted(entry.contracts)],
        )
        many(
            "INSERT OR IGNORE INTO funds (id, payer, payee) VALUES (?, ?, ?)",
            [
                (key.partition("/")[2], value["payer"], value["payee"])
                for key, value in one.writes.items()
                if value is not None and key.startswith("allowance/")
            ],
        )
        touched = parties(one.writes, _Funds(self.connection))
        many("INSERT INTO parties (wallet, n) VALUES (?, ?)", [(name, n) for name in sorted(touched)])


class _Funds:
    """The allowances as far as their parties: what a settlement's writes do not say."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> Value | None:
        row = self._connection.execute(
            "SELECT json_object('payer', payer, 'payee', payee) FROM funds WHERE id = ?",
            (key.partition("/")[2],),
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, value: Value) -> None:
        raise NotImplementedError("the index is written by blocks only")

    def delete(self, key: str) -> None:
        raise NotImplementedError("the index is written by blocks only")

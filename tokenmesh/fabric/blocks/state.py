"""The state of a channel as its blocks make it: for each key the transaction that wrote it last, its value
where somebody will ask for it, and its own endorsement policy where it has one.

Kept in a temporary SQLite file, so memory does not grow with the channel. Private data are known by their
hashes. A key is named by (namespace, collection, key); the collection of public keys is "".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokenmesh.fabric.blocks.block import HEIGHT_MAX
from tokenmesh.fabric.blocks.rwsets import MetadataWrite, Namespace, Version, Write

VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
"""What a key's own endorsement policy is called among its metadata."""

_TABLES = (
    """
    CREATE TABLE state (namespace TEXT, collection TEXT, key BLOB, block INTEGER NOT NULL,
        tx INTEGER NOT NULL, value BLOB, policy BLOB, expires INTEGER,
        PRIMARY KEY (namespace, collection, key)) WITHOUT ROWID
    """,
    "CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE transactions (id TEXT PRIMARY KEY) WITHOUT ROWID",
)
_PUT = """
    INSERT INTO state (namespace, collection, key, block, tx, value, policy, expires)
    VALUES (?, ?, ?, ?, ?, ?, NULL, ?)
    ON CONFLICT DO UPDATE SET block = excluded.block, tx = excluded.tx, value = excluded.value,
        expires = excluded.expires
"""
_VERSION = "SELECT block, tx FROM state WHERE namespace = ? AND collection = ? AND key = ?"
_VALUE = "SELECT value FROM state WHERE namespace = ? AND collection = '' AND key = ?"
_POLICY = "SELECT policy FROM state WHERE namespace = ? AND collection = ? AND key = ?"
_SET_POLICY = (
    "UPDATE state SET block = ?, tx = ?, policy = ? WHERE namespace = ? AND collection = ? AND key = ?"
)
_DELETE = "DELETE FROM state WHERE namespace = ? AND collection = ? AND key = ?"
_RANGE = """
    SELECT key, block, tx FROM state
    WHERE namespace = :namespace AND collection = '' AND key >= :start
        AND (:end = x'' OR key < :end OR (:last AND key = :end))
    ORDER BY key
"""

Lifetime = Callable[[str, str], int]
"""For how many blocks the private data of (namespace, collection) are kept; 0: for ever."""


class ChannelState:
    """The state after the transactions given to :meth:`apply`.

    ``path`` is where a file may be made. ``keeps`` says of which namespaces the values are kept.
    """

    def __init__(self, path: Path, keeps: Callable[[str], bool]) -> None:
        self._keeps = keeps
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=OFF")
        self.connection.execute("PRAGMA synchronous=OFF")
        for statement in _TABLES:
            self.connection.execute(statement)
        self.connection.execute("BEGIN")

    def close(self) -> None:
        self.connection.close()

    def version(self, namespace: str, collection: str, key: bytes) -> Version | None:
        """Which transaction wrote a key last; None if it is not there."""
        row = self.connection.execute(_VERSION, (namespace, collection, key)).fetchone()
        return None if row is None else Version(*row)

    def value(self, namespace: str, key: bytes) -> bytes | None:
        """The value of a public key, of a namespace whose values are kept."""
        row = self.connection.execute(_VALUE, (namespace, key)).fetchone()
        return None if row is None else row[0]

    def policy(self, namespace: str, collection: str, key: bytes) -> bytes | None:
        """The endorsement policy that a key has of its own."""
        row = self.connection.execute(_POLICY, (namespace, collection, key)).fetchone()
        return None if row is None else row[0]

    def range(
        self, namespace: str, start: bytes, end: bytes, *, last: bool
    ) -> Iterator[tuple[bytes, Version]]:
        """The public keys from ``start`` up to ``end`` (b"": to the last), which is in it if ``last``."""
        rows = self.connection.execute(
            _RANGE, {"namespace": namespace, "start": start, "end": end, "last": last}
        )
        for key, block, tx in rows:
            yield key, Version(block, tx)

    def apply(self, namespaces: Sequence[Namespace], version: Version, lifetime: Lifetime) -> None:
        """What a valid transaction at this place writes."""
        for one in namespaces:
            self._apply(one.name, "", one.writes, one.metadata_writes, version, 0)
            for collection in one.collections:
                blocks = lifetime(one.name, collection.name)
                self._apply(
                    one.name, collection.name, collection.writes, collection.metadata_writes, version, blocks
                )

    def expire(self, block: int) -> None:
        """Private data whose time is over with this block go with it."""
        self.connection.execute("DELETE FROM state WHERE expires <= ?", (block,))

    def note(self, tx_id: str) -> None:
        """A transaction with this id is on the channel, whether or not it is valid."""
        self.connection.execute("INSERT OR IGNORE INTO transactions (id) VALUES (?)", (tx_id,))

    def has(self, tx_id: str) -> bool:
        """Whether there is a transaction with this id."""
        found = self.connection.execute("SELECT 1 FROM transactions WHERE id = ?", (tx_id,)).fetchone()
        return found is not None

    def _apply(
        self,
        namespace: str,
        collection: str,
        writes: Sequence[Write],
        metadata_writes: Sequence[MetadataWrite],
        version: Version,
        lifetime: int,
    ) -> None:
        keeps = not collection and self._keeps(namespace)
        expires = min(version.block + lifetime + 1, HEIGHT_MAX) if lifetime else None
        deleted = [(namespace, collection, one.key) for one in writes if one.value is None]
        self.connection.executemany(
            _PUT,
            [
                (namespace, collection, one.key, *version, one.value if keeps else None, expires)
                for one in writes
                if one.value is not None
            ],
        )
        # A key that a transaction deletes is gone, whatever else it says about it.
        gone = {key for _, _, key in deleted}
        for metadata in metadata_writes:
            policy = dict(metadata.entries).get(VALIDATION_PARAMETER)
            if metadata.key not in gone:
                self.connection.execute(_SET_POLICY, (*version, policy, namespace, collection, metadata.key))
        self.connection.executemany(_DELETE, deleted)

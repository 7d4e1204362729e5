"""The state as the rules see it in the embedded ledger: the file, a cache over it, and a batch's writes."""

from __future__ import annotations

import json
import sqlite3

from tokenmesh_chaincode.state import Value

CACHED_KEYS_MAX = 2_000
"""Keys kept in memory between batches."""

_CACHED = ("wallet/", "balance/", "allowance/", "spent/", "policy", "domain")
"""What is read again and again; holds and operations are read once or twice and then never."""


class StoredState:
    """Reads from one connection; writes are kept in ``writes`` (None: deleted) until :meth:`keep`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[str, Value | None] = {}
        self._version = -1
        self.writes: dict[str, Value | None] = {}
        self.changes = 0
        """How often anything was written: what has not changed this has changed nothing."""

    def begin(self) -> None:
        """Start a batch; what was cached is believed only if nobody else has written since."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self._cache) > CACHED_KEYS_MAX:
            self._cache = {}
            self._version = version
        self.writes = {}

    def keep(self) -> None:
        """The batch's writes are in the file now."""
        for key, value in self.writes.items():
            if key.startswith(_CACHED):
                self._cache[key] = value
        self.writes = {}

    def get(self, key: str) -> Value | None:
        if key in self.writes:
            return self.writes[key]
        return self.peek(key)

    def peek(self, key: str) -> Value | None:
        """The value without this batch's writes; out of a batch it may be what it was some time ago."""
        if key in self._cache:
            return self._cache[key]
        row = self._connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        value: Value | None = None if row is None else json.loads(row[0])
        if key.startswith(_CACHED):
            self._cache[key] = value
        return value

    def put(self, key: str, value: Value) -> None:
        self.writes[key] = value
        self.changes += 1

    def delete(self, key: str) -> None:
        self.writes[key] = None
        self.changes += 1

"""The state as the rules see it in the embedded ledger: the file, a cache over it, and a batch's writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from tokenmesh_chaincode.state import Value

CACHED_KEYS_MAX = 2_000
"""Keys kept in memory between batches."""

_CACHED = ("wallet/", "balance/", "allowance/", "spent/", "policy", "domain")
"""What is read again and again; holds and operations are read once or twice and then never."""


_LOOK = """
    SELECT (SELECT json_array(n, id, time_ms) FROM transactions ORDER BY n DESC LIMIT 1),
        (SELECT json_group_object(key, json(value)) FROM state
            WHERE key IN (SELECT value FROM json_each(?)))
"""


class Head(NamedTuple):
    """The newest transaction."""

    n: int
    tx_id: str
    time_ms: int


class StoredState:
    """Reads from one connection; writes are kept in ``writes`` (None: deleted) until :meth:`keep`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: dict[str, Value | None] = {}
        self._fetched: dict[str, Value | None] = {}
        self._as_of = ""
        self.writes: dict[str, Value | None] = {}
        self.changes = 0
        """How often anything was written: what has not changed this has changed nothing."""

    def begin(self, keys: Iterable[str] = ()) -> Head | None:
        """Start a batch that will read ``keys``, which are read now and at once, but for what is cached.

        Gives the newest transaction (None: there is none). What was cached is believed only if that is the
        one after which it was read.
        """
        self._fetched = dict.fromkeys(key for key in keys if not key.startswith(_CACHED))
        head, fetched = self._connection.execute(_LOOK, (json.dumps([*self._fetched]),)).fetchone()
        self._fetched.update(json.loads(fetched))
        newest = None if head is None else Head(*json.loads(head))
        as_of = "" if newest is None else newest.tx_id
        if as_of != self._as_of or len(self._cache) > CACHED_KEYS_MAX:
            self._cache = {}
            self._as_of = as_of
        self.writes = {}
        return newest

    def keep(self, as_of: str) -> None:
        """The batch's writes are in the file now, as transaction ``as_of``."""
        for key, value in self.writes.items():
            if key.startswith(_CACHED):
                self._cache[key] = value
        self._as_of = as_of
        self._fetched = {}
        self.writes = {}

    def get(self, key: str) -> Value | None:
        if key in self.writes:
            return self.writes[key]
        return self.before(key)

    def before(self, key: str) -> Value | None:
        """The value without this batch's writes."""
        if key in self._fetched:
            return self._fetched[key]
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

"""The state as the rules see it on Fabric: what a transaction has read, and what it will write.

The rules' keys as they are, values in canonical JSON. Reads come in bulk, because each costs a trip to the
peer; writes are kept until :meth:`StubState.flush`, because Fabric never shows a transaction its own.

Beside each hold and each allowance that is open stands a row of an index, ``open/{payer}/{kind}/{id}``: when
it is due, and how many tokens are in it. Questions about a payer range over it; the rules never read it, and
it is written without being read, so it can conflict with nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import canonical
from tokenmesh_chaincode.rules import end_of
from tokenmesh_chaincode.state import Value

INDEX: Final = "open"


class StubState:
    """What the rules read and write in one transaction.

    The record of an operation gets two fields more than the rules give it: ``tx`` and ``time``, the id and
    the time (seconds) of the transaction that recorded it.
    """

    def __init__(self, stub: Stub, time: float) -> None:
        self._stub = stub
        self._time = time
        self._values: dict[str, Value | None] = {}
        self._written: dict[str, Value | None] = {}
        self.changes = 0
        """How often anything was written: what has not changed this has changed nothing."""

    def fetch(self, keys: Iterable[str]) -> None:
        """Read these keys, all at once."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._values]
        if missing:
            for key, data in zip(missing, self._stub.get_states(missing), strict=True):
                self._values[key] = None if data is None else json.loads(data)

    def get(self, key: str) -> Value | None:
        if key not in self._values:
            self.fetch([key])
        return self._values[key]

    def put(self, key: str, value: Value) -> None:
        if key.startswith("op/"):
            value = {**value, "tx": self._stub.tx_id, "time": self._time}
        self._values[key] = self._written[key] = value
        self.changes += 1

    def delete(self, key: str) -> None:
        self._values[key] = self._written[key] = None
        self.changes += 1

    def flush(self) -> None:
        """Hand to the peer what was written, and the index that goes with it."""
        for key, value in self._written.items():
            if value is None:
                self._stub.del_state(key)
            else:
                self._stub.put_state(key, canonical(value))
                self._index(key, value)

    def _index(self, key: str, value: Value) -> None:
        kind, _, rest = key.partition("/")
        if kind == "hold":
            # What a payer has in holds is found by its own name, so the key says nothing twice.
            entry = f"{INDEX}/{value['payer']}/hold/{rest.partition('/')[2]}"
            due = value["exp"] + value["grace_s"] if value["state"] == "open" else None
        elif kind == "allowance":
            entry = f"{INDEX}/{value['payer']}/allowance/{rest}"
            due = None if value["ended"] else end_of(value) + value["grace_s"]
        else:
            return
        if due is None:
            self._stub.del_state(entry)
        else:
            self._stub.put_state(entry, canonical({"due": due, "tokens": value["tokens"]}))

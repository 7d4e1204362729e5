"""State as the rules see it: keys and JSON objects, and nothing else.

No ranges and no queries: on Fabric a range that was read makes a transaction fail when anyone adds to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Value = dict[str, Any]


class State(Protocol):
    """What a ledger hands to the rules.

    What ``get`` returns belongs to the state and may be cached: the rules copy it before they change it.
    """

    def get(self, key: str) -> Value | None: ...

    def put(self, key: str, value: Value) -> None: ...

    def delete(self, key: str) -> None: ...


class MemoryState:
    """State in a dict: for tests, for simulations, and under an :class:`Overlay`."""

    def __init__(self, values: dict[str, Value] | None = None) -> None:
        self.values: dict[str, Value] = {} if values is None else values

    def get(self, key: str) -> Value | None:
        return self.values.get(key)

    def put(self, key: str, value: Value) -> None:
        self.values[key] = value

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def items(self, prefix: str = "") -> Iterator[tuple[str, Value]]:
        """All keys that begin with ``prefix``, sorted, and their values."""
        return ((key, self.values[key]) for key in sorted(self.values) if key.startswith(prefix))


class Overlay:
    """Writes kept apart from the state below until :meth:`commit`, and seen by reads at once.

    Thrown away, nothing has happened: this is what makes an operation all or nothing. ``writes`` maps each
    written key to its value, or to ``None`` if it was deleted.
    """

    def __init__(self, parent: State) -> None:
        self._parent = parent
        self.writes: dict[str, Value | None] = {}

    def get(self, key: str) -> Value | None:
        if key in self.writes:
            return self.writes[key]
        return self._parent.get(key)

    def put(self, key: str, value: Value) -> None:
        self.writes[key] = value

    def delete(self, key: str) -> None:
        self.writes[key] = None

    def commit(self) -> None:
        """Hand all writes to the state below, and begin again."""
        for key, value in self.writes.items():
            if value is None:
                self._parent.delete(key)
            else:
                self._parent.put(key, value)
        self.writes = {}

"""Where all tokens are: how a transaction's writes move the sum, for checking that none is made or lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from tokenmesh_chaincode.state import Value


class Changes(Protocol):
    """The state before a transaction and after it; ``writes`` names what it writes (None: deletes)."""

    @property
    def writes(self) -> Mapping[str, Value | None]: ...

    def get(self, key: str) -> Value | None: ...

    def before(self, key: str) -> Value | None: ...


def movement(state: Changes) -> tuple[int, int]:
    """By how much the writes in ``state`` change what is accounted for, and by how much the supply.

    Accounted for is what lies in balances, credits, open holds and what is left of allowances that have not
    ended. The two must be the same in every transaction.
    """
    accounted = supply = 0
    allowances = set()
    for key in state.writes:
        kind, _, rest = key.partition("/")
        if kind in ("allowance", "spent"):
            allowances.add(rest)
        elif kind == "supply":
            supply += _tokens(state.get(key)) - _tokens(state.before(key))
        elif kind in ("balance", "credit", "hold"):
            accounted += _tokens(state.get(key)) - _tokens(state.before(key))
    for allowance_id in allowances:
        accounted += _left(state.get, allowance_id) - _left(state.before, allowance_id)
    return accounted, supply


def _tokens(value: Value | None) -> int:
    if value is None or value.get("state", "open") != "open":
        return 0
    tokens: int = value["tokens"]
    return tokens


def _left(get: Callable[[str], Value | None], allowance_id: str) -> int:
    allowance = get(f"allowance/{allowance_id}")
    if allowance is None or allowance["ended"]:
        return 0
    return _tokens(allowance) - _tokens(get(f"spent/{allowance_id}"))

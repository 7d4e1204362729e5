"""What follows from a transaction beside the state itself: rows that make history searchable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenmesh_chaincode.documents import Contract
from tokenmesh_chaincode.rules import Outcome, end_of
from tokenmesh_chaincode.state import State, Value

_ABOUT_NOBODY = frozenset({"domain", "policy", "governors", "proposal"})


def marks(key: str, value: Value) -> tuple[str | None, int | None]:
    """The columns ``payer`` and ``due`` of a state row: see :mod:`tokenmesh.ledger.store`."""
    kind = key.partition("/")[0]
    if kind == "op":
        return None, value["exp"]
    if kind == "hold":
        return (value["payer"] if value["state"] == "open" else None), value["exp"] + value["grace_s"]
    if kind == "allowance":
        return (None if value["ended"] else value["payer"]), end_of(value) + value["grace_s"]
    if kind == "proposal":
        return None, value["exp"]
    return None, None


def parties(writes: Mapping[str, Value | None], state: State) -> set[str]:
    """The wallets that a transaction with these writes touches."""
    names: set[str] = set()
    for key, value in writes.items():
        kind, _, rest = key.partition("/")
        if value is None or kind in _ABOUT_NOBODY:
            continue
        if kind in ("hold", "allowance", "spent"):
            terms = state.get(f"allowance/{rest}") if kind == "spent" else value
            if terms is not None:
                names.update((terms["payer"], terms["payee"]))
        else:
            names.add(rest.partition("/")[0])
    return names


def contract_ids(act: str, carried: Iterable[Contract], outcome: Outcome) -> set[str]:
    """The ids of the contracts in an operation: of those whose signature was checked (``carried``), and of
    those that the rules refused before."""
    if act != "settle":
        return set()
    ids = {contract.jti for contract in carried}
    for name in outcome.detail.get("refused", ()):
        payer, _, jti = name.partition("/")
        if payer and jti:  # "#3" is the third, which is no contract and has no id
            ids.add(jti)
    return ids

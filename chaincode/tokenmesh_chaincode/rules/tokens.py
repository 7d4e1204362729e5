"""Tokens that change hands at once: mint, burn, grant, transfer and sweep."""

from __future__ import annotations

from typing import Any, Final

from tokenmesh_chaincode.limits import SWEEP_ITEMS_MAX
from tokenmesh_chaincode.rules.arguments import is_credit_id, is_tokens, is_wallet_name, list_of
from tokenmesh_chaincode.rules.base import (
    Act,
    Argument,
    Call,
    Detail,
    Refusal,
    credit,
    earn,
    issue,
    spend,
    wallet_of,
)


def _mint(call: Call, argument: Argument) -> Detail:
    """New tokens for the governor that asks; if another approved it, a credit for the one that proposed."""
    tokens = argument["tokens"]
    issue(call, tokens)
    if call.by == call.name:
        return {"balance": earn(call, tokens)}
    return {"credit": credit(call, call.by, tokens, "mint")}


def _burn(call: Call, argument: Argument) -> Detail:
    tokens = argument["tokens"]
    issue(call, -tokens)
    return {"balance": spend(call, tokens)}


def _move(call: Call, argument: Argument, why: str) -> Detail:
    to, tokens = argument["to"], argument["tokens"]
    if to == call.name:
        raise Refusal("bad_argument", why="from and to are the same wallet")
    wallet_of(call.state, to)
    balance = spend(call, tokens)
    return {"balance": balance, "credit": credit(call, to, tokens, why)}


def _grant(call: Call, argument: Argument) -> Detail:
    return _move(call, argument, "grant")


def _transfer(call: Call, argument: Argument) -> Detail:
    return _move(call, argument, "transfer")


def _sweep(call: Call, argument: Argument) -> Detail:
    """Credits into the balance. One that is not there was swept before: no reason to refuse the others."""
    swept, tokens = 0, 0
    for row in argument["credits"]:
        key = f"credit/{call.name}/{row}"
        record = call.state.get(key)
        if record is None:
            continue
        call.state.delete(key)
        swept += 1
        tokens += record["tokens"]
    missing = len(argument["credits"]) - swept
    detail: Detail = {"swept": swept, "tokens": tokens, "missing": missing}
    if swept:
        detail["balance"] = earn(call, tokens)
    return detail


def _always(_call: Call, _argument: Argument) -> bool:
    return True


_AMOUNT: Final[dict[str, Any]] = {"tokens": is_tokens}
_TO: Final[dict[str, Any]] = {"to": is_wallet_name, "tokens": is_tokens}

ACTS: Final = {
    "mint": Act(_mint, _AMOUNT, governors_only=True, needs_approval=_always),
    "burn": Act(_burn, _AMOUNT),
    "grant": Act(_grant, _TO, governors_only=True),
    "transfer": Act(_transfer, _TO),
    "sweep": Act(_sweep, {"credits": list_of(is_credit_id, SWEEP_ITEMS_MAX)}, when_frozen=True),
}

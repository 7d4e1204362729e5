"""Tokens set aside: hold, many holds at once, void; open, refill and close an allowance.

Each hold and each allowance is a key of its own. ``grace_s`` is noted in it as policy has it now: a later
change of policy does not move the time until which it can be settled.
"""

from __future__ import annotations

from typing import Final

from tokenmesh_chaincode.documents import is_name
from tokenmesh_chaincode.limits import HOLD_ITEMS_MAX, TOKENS_MAX, VOID_ITEMS_MAX
from tokenmesh_chaincode.rules.arguments import (
    is_allowance_id,
    is_id,
    is_time,
    is_tokens,
    list_of,
    tuple_of,
)
from tokenmesh_chaincode.rules.base import (
    Act,
    Argument,
    Call,
    Detail,
    Refusal,
    check_payee,
    credit,
    end_of,
    spend,
)
from tokenmesh_chaincode.state import Value


def _check_terms(call: Call, tokens: int, exp: int, ttl_s_max: int) -> None:
    if not call.now < exp <= call.now + ttl_s_max:
        raise Refusal("bad_expiry", now=call.now, ttl_s_max=ttl_s_max)
    if tokens > call.policy["tokens_max"]:
        raise Refusal("too_many_tokens", most=call.policy["tokens_max"])


def _hold(call: Call, argument: Argument) -> Detail:
    balance = _place(call, argument["id"], argument["payee"], argument["tokens"], argument["exp"])
    return {"existing": True} if balance is None else {"balance": balance}


def _holds(call: Call, argument: Argument) -> Detail:
    """Many holds of one payer, under one signature: each by itself, in their order."""
    placed = together = 0
    refused: dict[str, str] = {}
    for hold_id, payee, tokens, exp in argument["holds"]:
        try:
            balance = _place(call, hold_id, payee, tokens, exp)
        except Refusal as refusal:
            # Nothing was written: whatever can be refused is looked at before.
            refused[hold_id] = refusal.outcome.code
            continue
        placed += 1
        together += 0 if balance is None else tokens
    return {"placed": placed, "tokens": together, "refused": refused}


def _place(call: Call, hold_id: str, payee: str, tokens: int, exp: int) -> int | None:
    """Set tokens aside for one contract; the balance that is left, or None if they were set aside before."""
    key = f"hold/{call.name}/{hold_id}"
    existing = call.state.get(key)
    if existing is not None:
        if (existing["payee"], existing["tokens"], existing["exp"]) != (payee, tokens, exp):
            raise Refusal("id_reused")
        if existing["state"] != "open":
            raise Refusal("hold_ended", state=existing["state"])
        return None
    _check_terms(call, tokens, exp, call.policy["hold_ttl_s_max"])
    check_payee(call, payee)
    balance = spend(call, tokens)
    call.state.put(
        key,
        {
            "payer": call.name,
            "payee": payee,
            "tokens": tokens,
            "opened_at": call.now,
            "exp": exp,
            "grace_s": call.policy["grace_s"],
            "state": "open",
            "charged": 0,
        },
    )
    return balance


def _void(call: Call, argument: Argument) -> Detail:
    """The payee gives back what was held for it: each hold by itself."""
    voided, refused = 0, {}
    back: dict[str, int] = {}
    for payer, hold_id in argument["holds"]:
        key = f"hold/{payer}/{hold_id}"
        hold = call.state.get(key)
        code = _why_not_void(call, hold)
        if hold is None or code is not None:
            refused[f"{payer}/{hold_id}"] = code
            continue
        call.state.put(key, {**hold, "state": "void"})
        back[payer] = back.get(payer, 0) + hold["tokens"]
        voided += 1
    for payer, tokens in back.items():
        credit(call, payer, tokens, "void")
    return {"voided": voided, "tokens": sum(back.values()), "refused": refused}


def _why_not_void(call: Call, hold: Value | None) -> str | None:
    if hold is None:
        return "unknown_hold"
    if hold["payee"] != call.name:
        return "wrong_payee"
    return None if hold["state"] == "open" else "hold_ended"


def _open(call: Call, argument: Argument) -> Detail:
    payee, tokens, exp = argument["payee"], argument["tokens"], argument["exp"]
    key = f"allowance/{argument['id']}"
    existing = call.state.get(key)
    if existing is not None:
        if (existing["payer"], existing["payee"], existing["tokens"]) != (call.name, payee, tokens):
            raise Refusal("id_reused")
        if existing["ended"] or existing["closed_at"] is not None:
            raise Refusal("allowance_ended")
        return {"existing": True}
    _check_terms(call, tokens, exp, call.policy["allowance_ttl_s_max"])
    check_payee(call, payee)
    balance = spend(call, tokens)
    call.state.put(
        key,
        {
            "payer": call.name,
            "payee": payee,
            "tokens": tokens,
            "opened_at": call.now,
            "exp": exp,
            "grace_s": call.policy["grace_s"],
            "closed_at": None,
            "ended": False,
        },
    )
    return {"balance": balance}


def _own_allowance(call: Call, allowance_id: str) -> Value:
    allowance = call.state.get(f"allowance/{allowance_id}")
    if allowance is None:
        raise Refusal("unknown_allowance")
    if allowance["payer"] != call.name:
        raise Refusal("not_yours")
    return allowance


def _refill(call: Call, argument: Argument) -> Detail:
    allowance = _own_allowance(call, argument["id"])
    if allowance["ended"] or call.now >= end_of(allowance):
        raise Refusal("allowance_ended")
    total = allowance["tokens"] + argument["tokens"]
    most = min(call.policy["tokens_max"], TOKENS_MAX)
    if total > most:
        raise Refusal("too_many_tokens", most=most)
    check_payee(call, allowance["payee"])
    balance = spend(call, argument["tokens"])
    call.state.put(f"allowance/{argument['id']}", {**allowance, "tokens": total})
    return {"balance": balance, "tokens": total}


def _close(call: Call, argument: Argument) -> Detail:
    """Ask for the rest early. What was signed before now can still be settled until the grace is over."""
    allowance = _own_allowance(call, argument["id"])
    if allowance["ended"]:
        raise Refusal("allowance_ended")
    if allowance["closed_at"] is None:
        allowance = {**allowance, "closed_at": call.now}
        call.state.put(f"allowance/{argument['id']}", allowance)
    return {"settle_by": end_of(allowance) + allowance["grace_s"]}


_TERMS: Final = {"payee": is_name, "tokens": is_tokens, "exp": is_time}

ACTS: Final = {
    "hold": Act(_hold, {"id": is_id, **_TERMS}),
    "holds": Act(_holds, {"holds": list_of(tuple_of(is_id, is_name, is_tokens, is_time), HOLD_ITEMS_MAX)}),
    "void": Act(_void, {"holds": list_of(tuple_of(is_name, is_id), VOID_ITEMS_MAX)}, when_frozen=True),
    "open": Act(_open, {"id": is_allowance_id, **_TERMS}),
    "refill": Act(_refill, {"id": is_allowance_id, "tokens": is_tokens}),
    "close": Act(_close, {"id": is_allowance_id}, when_frozen=True),
}

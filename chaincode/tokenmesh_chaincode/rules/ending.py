"""The end of things: expire gives back what was never claimed, forget drops what nobody can need.

Any wallet may ask for both: the rules decide by the transaction's time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX, RECORD_KEEP_S
from tokenmesh_chaincode.rules.arguments import is_allowance_id, is_id, is_wallet_name, list_of, tuple_of
from tokenmesh_chaincode.rules.base import Act, Argument, Call, Detail, credit, end_of
from tokenmesh_chaincode.state import Value


class _Expiry:
    """One expire operation. What it returns to each payer arrives there in one credit."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.back: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def hold(self, payer: str, hold_id: str) -> bool:
        key = f"hold/{payer}/{hold_id}"
        hold = self.call.state.get(key)
        if hold is None:
            return self._refuse(f"{payer}/{hold_id}", "unknown_hold")
        if hold["state"] != "open":
            return self._refuse(f"{payer}/{hold_id}", "hold_ended")
        if self.call.now < hold["exp"] + hold["grace_s"]:
            return self._refuse(f"{payer}/{hold_id}", "not_expired")
        self.call.state.put(key, {**hold, "state": "expired"})
        self.back[payer] = self.back.get(payer, 0) + hold["tokens"]
        return True

    def allowance(self, allowance_id: str) -> bool:
        key = f"allowance/{allowance_id}"
        allowance = self.call.state.get(key)
        if allowance is None:
            return self._refuse(allowance_id, "unknown_allowance")
        if allowance["ended"]:
            return self._refuse(allowance_id, "allowance_ended")
        if self.call.now < end_of(allowance) + allowance["grace_s"]:
            return self._refuse(allowance_id, "not_expired")
        spent = self.call.state.get(f"spent/{allowance_id}")
        rest = allowance["tokens"] - (spent["tokens"] if spent else 0)
        self.call.state.put(key, {**allowance, "ended": True})
        payer = allowance["payer"]
        self.back[payer] = self.back.get(payer, 0) + rest
        return True

    def _refuse(self, name: str, code: str) -> bool:
        self.refused[name] = code
        return False


def _expire(call: Call, argument: Argument) -> Detail:
    expiry = _Expiry(call)
    holds = sum([expiry.hold(payer, hold_id) for payer, hold_id in argument.get("holds", [])])
    allowances = sum([expiry.allowance(allowance_id) for allowance_id in argument.get("allowances", [])])
    for payer, tokens in expiry.back.items():
        credit(call, payer, tokens, "expire")
    return {
        "holds": holds,
        "allowances": allowances,
        "tokens": sum(expiry.back.values()),
        "refused": expiry.refused,
    }


def _is_past(call: Call, moment: int) -> bool:
    return call.now > moment + RECORD_KEEP_S


def _operation_is_past(call: Call, record: Value) -> bool:
    return _is_past(call, record["exp"])


def _hold_is_past(call: Call, hold: Value) -> bool:
    return hold["state"] != "open" and _is_past(call, hold["exp"] + hold["grace_s"])


def _allowance_is_past(call: Call, allowance: Value) -> bool:
    return allowance["ended"] and _is_past(call, allowance["exp"] + allowance["grace_s"])


def _proposal_is_past(call: Call, proposal: Value) -> bool:
    return _is_past(call, proposal["exp"])


def _drop(call: Call, keys: list[str], is_past: Callable[[Call, Value], bool]) -> list[str]:
    """Delete the records that are past; return their keys. Others are left, whatever the reason."""
    dropped = []
    for key in keys:
        record = call.state.get(key)
        if record is not None and is_past(call, record):
            call.state.delete(key)
            dropped.append(key)
    return dropped


def _forget(call: Call, argument: Argument) -> Detail:
    operations = [f"op/{issuer}/{jti}" for issuer, jti in argument.get("operations", [])]
    holds = [f"hold/{payer}/{hold_id}" for payer, hold_id in argument.get("holds", [])]
    allowances = [f"allowance/{allowance_id}" for allowance_id in argument.get("allowances", [])]
    proposals = [f"proposal/{proposal_id}" for proposal_id in argument.get("proposals", [])]
    dropped = _drop(call, operations, _operation_is_past)
    dropped += _drop(call, holds, _hold_is_past)
    ended = _drop(call, allowances, _allowance_is_past)
    for key in ended:
        call.state.delete(f"spent/{key.removeprefix('allowance/')}")
    dropped += ended
    dropped += _drop(call, proposals, _proposal_is_past)
    asked = len(operations) + len(holds) + len(allowances) + len(proposals)
    return {"forgotten": len(dropped), "kept": asked - len(dropped)}


_HOLDS: Final = tuple_of(is_wallet_name, is_id)

ACTS: Final = {
    "expire": Act(
        _expire,
        {
            "holds": list_of(_HOLDS, EXPIRE_ITEMS_MAX),
            "allowances": list_of(is_allowance_id, EXPIRE_ITEMS_MAX),
        },
        optional=frozenset({"holds", "allowances"}),
        when_frozen=True,
    ),
    "forget": Act(
        _forget,
        {
            "operations": list_of(_HOLDS, FORGET_ITEMS_MAX),
            "holds": list_of(_HOLDS, FORGET_ITEMS_MAX),
            "allowances": list_of(is_allowance_id, FORGET_ITEMS_MAX),
            "proposals": list_of(is_id, FORGET_ITEMS_MAX),
        },
        optional=frozenset({"operations", "holds", "allowances", "proposals"}),
        when_frozen=True,
    ),
}

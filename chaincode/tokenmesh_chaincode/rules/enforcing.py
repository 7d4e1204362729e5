"""Enforce: from when on a freeze, a revocation or a new policy counts against what payees have done.

Payees act on such a change as soon as they read it, and nobody can read it before it is in the ledger. When
that is, the rules that write it cannot know: a transaction bears the time at which it was proposed, and may
be recorded much later, if whoever orders or writes is away. So they only note the change, and what came of
it says with which ``enforce`` it is put in force. That is another operation, made by one who has seen the
change in the ledger: by its time all could. Contracts made more than ``propagation_s`` after that time are
the payee's own risk; all others are settled. Until it comes no contract is refused for the change. It needs
one governor: what has been decided is not decided again.
"""

from __future__ import annotations

from typing import Final

from tokenmesh_chaincode.documents import is_name
from tokenmesh_chaincode.rules.arguments import is_thumbprint, is_time, is_tokens, tuple_of
from tokenmesh_chaincode.rules.base import Act, Argument, Call, Detail, wallet_of

is_freeze: Final = tuple_of(is_name, is_time)
"""A wallet's name and its ``frozen_at``: a later freeze is another one."""
is_revocation: Final = tuple_of(is_name, is_thumbprint)


def _enforce(call: Call, argument: Argument) -> Detail:
    """What is in force by now, or has been changed again since it was seen, stays as it is."""
    changes = 0
    if "policy" in argument:
        changes += _enforce_policy(call, argument["policy"])
    if "frozen" in argument:
        changes += _enforce_freeze(call, *argument["frozen"])
    if "revoked" in argument:
        changes += _enforce_revocation(call, *argument["revoked"])
    return {"since": call.now, "changes": changes}


def _enforce_policy(call: Call, version: int) -> bool:
    if call.policy["version"] != version or call.policy["since"] is not None:
        return False
    call.state.put("policy", {**call.policy, "since": call.now})
    return True


def _enforce_freeze(call: Call, name: str, frozen_at: int) -> bool:
    wallet = wallet_of(call.state, name)
    if wallet["frozen_at"] != frozen_at or "frozen_since" in wallet:
        return False
    call.state.put(f"wallet/{name}", {**wallet, "frozen_since": call.now})
    return True


def _enforce_revocation(call: Call, name: str, x5t: str) -> bool:
    wallet = wallet_of(call.state, name)
    certs = [
        {**cert, "revoked_since": call.now}
        if cert["x5t"] == x5t and "revoked_at" in cert and "revoked_since" not in cert
        else cert
        for cert in wallet["certs"]
    ]
    if certs == wallet["certs"]:
        return False
    call.state.put(f"wallet/{name}", {**wallet, "certs": certs})
    return True


ACTS: Final = {
    "enforce": Act(
        _enforce,
        {"policy": is_tokens, "frozen": is_freeze, "revoked": is_revocation},
        optional=frozenset({"policy", "frozen", "revoked"}),
        governors_only=True,
    ),
}

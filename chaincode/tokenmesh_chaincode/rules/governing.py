"""Governance: policy, and what takes several governors.

With a threshold above one, what could undo the threshold takes a proposal: mint, unfreeze, set_policy, a
new governor, another wallet's rotation. The approval that reaches the threshold carries the proposal out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tokenmesh_chaincode.limits import PROPOSAL_TTL_S
from tokenmesh_chaincode.rules.arguments import check_argument, is_act, is_id, is_object
from tokenmesh_chaincode.rules.base import Act, Argument, Call, Detail, Refusal, always, is_frozen
from tokenmesh_chaincode.rules.policy import PolicyError, check_policy
from tokenmesh_chaincode.state import Overlay, Value


def _set_policy(call: Call, argument: Argument) -> Detail:
    """A whole new policy. ``version`` and ``since`` are the rules' to say, whatever the argument says."""
    version = call.policy["version"] + 1
    try:
        policy = check_policy({**argument["policy"], "version": version, "since": None})
    except PolicyError as error:
        raise Refusal("bad_policy", why=str(error)) from error
    governors = call.state.get("governors")
    have = len(governors["names"]) if governors else 0
    if policy["threshold"] > have:
        raise Refusal("bad_policy", why=f"a threshold above the number of governors, which is {have}")
    call.state.put("policy", policy)
    return {"version": version, "enforce": {"policy": version}}


POLICY_ACTS: Final = {
    "set_policy": Act(_set_policy, {"policy": is_object}, governors_only=True, needs_approval=always),
}


class Proposals:
    """Propose and approve, over the acts that may need approval."""

    def __init__(self, acts: Mapping[str, Act]) -> None:
        self._acts = {name: act for name, act in acts.items() if act.needs_approval is not None}

    def acts(self) -> dict[str, Act]:
        return {
            "propose": Act(
                self._propose, {"act": is_act, "arg": is_object}, governors_only=True, when_frozen=True
            ),
            "approve": Act(self._approve, {"proposal": is_id}, governors_only=True, when_frozen=True),
        }

    def _act(self, call: Call, name: str) -> Act:
        act = self._acts.get(name)
        if act is None:
            raise Refusal("bad_argument", why=f"act is one of: {', '.join(sorted(self._acts))}")
        # A frozen governor has no say, but may help to unfreeze: else one governor could lock out all.
        if is_frozen(call.wallet) and name != "unfreeze":
            raise Refusal("frozen", wallet=call.name)
        return act

    def _propose(self, call: Call, argument: Argument) -> Detail:
        act = self._act(call, argument["act"])
        check_argument(act, argument["arg"])
        if call.state.get(f"proposal/{call.id}") is not None:
            raise Refusal("id_reused")
        proposal = {
            "act": argument["act"],
            "arg": argument["arg"],
            "by": call.name,
            "approved": [call.name],
            "exp": call.now + PROPOSAL_TTL_S,
            "done": False,
        }
        # What could not be carried out now is refused at once, not at the last approval.
        act.run(replace(call, state=Overlay(call.state)), argument["arg"])
        return self._count(call, call.id, proposal)

    def _approve(self, call: Call, argument: Argument) -> Detail:
        proposal = call.state.get(f"proposal/{argument['proposal']}")
        if proposal is None:
            raise Refusal("unknown_proposal")
        self._act(call, proposal["act"])
        if proposal["done"] or call.now >= proposal["exp"]:
            raise Refusal("proposal_ended", done=proposal["done"])
        if call.name in proposal["approved"]:
            raise Refusal("already_approved")
        approved = [*proposal["approved"], call.name]
        return self._count(call, argument["proposal"], {**proposal, "approved": approved})

    def _count(self, call: Call, proposal_id: str, proposal: Value) -> Detail:
        """Note the approvals; carry the proposal out if there are enough. If that is refused, all is."""
        votes = sum(self._has_vote(call, name, proposal["act"]) for name in proposal["approved"])
        done = votes >= call.policy["threshold"]
        call.state.put(f"proposal/{proposal_id}", {**proposal, "done": done})
        detail: Detail = {"proposal": proposal_id, "approved": votes, "done": done}
        if done:
            run = self._acts[proposal["act"]].run
            detail["result"] = run(replace(call, by=proposal["by"]), proposal["arg"])
        return detail

    def _has_vote(self, call: Call, name: str, act: str) -> bool:
        wallet = call.state.get(f"wallet/{name}")
        if wallet is None or wallet["role"] != "governor":
            return False
        return act == "unfreeze" or not is_frozen(wallet)

"""A change counts against payees once it was certain to be in the ledger, not from when it was proposed."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy, authority, wallet
from tokenmesh_chaincode.rules import Outcome

PROPAGATION_S = 5
DENY_ALL = {"payer": "*", "payee": "*", "operation": "*", "effect": "deny"}
LATE_S = 40
"""How long after it was proposed a change is recorded: whoever orders was away."""


def economy_of(**more: Any) -> Economy:
    economy = Economy(tokens=100, propagation_s=PROPAGATION_S, **more)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=START + 3600).ok
    return economy


def code_of(economy: Economy, seq: int, iat: int) -> str:
    contract = economy.contract(via="a", lane="l", seq=seq, jti=f"c-{seq}", iat=iat)
    detail = economy.submit("bob", "settle", items=[[contract, 1]]).detail
    return str(detail["refused"].get(f"alice/c-{seq}", "ok"))


def change(economy: Economy, what: str) -> Outcome:
    arguments: dict[str, tuple[str, dict[str, Any]]] = {
        "frozen": ("freeze", {"name": "alice"}),
        "payee_frozen": ("freeze", {"name": "bob"}),
        "revoked_certificate": ("revoke", {"name": "alice", "x5t": wallet("alice").x5t}),
        "forbidden": ("set_policy", {"policy": {**economy.state.values["policy"], "rules": [DENY_ALL]}}),
    }
    act, argument = arguments[what]
    return economy.submit("root", act, **argument)


CHANGES = pytest.mark.parametrize("what", ["frozen", "payee_frozen", "revoked_certificate", "forbidden"])


@CHANGES
def test_a_change_that_was_recorded_late_costs_no_payee_its_work(what: str) -> None:
    economy = economy_of()
    changed = change(economy, what)
    economy.now = START + LATE_S
    assert code_of(economy, 1, START + LATE_S) == "ok"
    economy.enforce(changed)
    assert code_of(economy, 2, START + LATE_S + PROPAGATION_S) == "ok"
    economy.now += 60
    assert code_of(economy, 3, START + LATE_S + PROPAGATION_S) == "ok"
    assert code_of(economy, 4, START + LATE_S + PROPAGATION_S + 1) == what


@CHANGES
def test_it_is_put_in_force_once(what: str) -> None:
    economy = economy_of()
    changed = change(economy, what)
    economy.enforce(changed)
    economy.now += 60
    again = economy.submit("root", "enforce", **changed.detail["enforce"])
    assert again.detail == {"since": economy.now, "changes": 0}
    assert code_of(economy, 1, START + PROPAGATION_S + 1) == what


def test_the_name_of_a_change_is_that_of_no_other() -> None:
    """Whoever names a change that is not there, or not there any more, puts nothing in force."""
    economy = economy_of()
    first = change(economy, "frozen")
    economy.submit("root", "unfreeze", name="alice")
    economy.now += 10
    change(economy, "frozen")
    policy, newer = change(economy, "forbidden"), change(economy, "forbidden")
    for outdated in (first, policy):
        detail = economy.submit("root", "enforce", **outdated.detail["enforce"]).detail
        assert detail["changes"] == 0
    assert economy.submit("root", "enforce", policy=newer.detail["version"] + 1).detail["changes"] == 0
    other = authority().wallet("alice")
    assert economy.submit("root", "enforce", revoked=["alice", other.x5t]).detail["changes"] == 0
    assert economy.submit("root", "enforce", revoked=["alice", wallet("alice").x5t]).detail["changes"] == 0


def test_unfreezing_ends_it_and_a_later_freeze_begins_anew() -> None:
    economy = economy_of()
    economy.enforce(change(economy, "frozen"))
    economy.now += 60
    assert economy.submit("root", "unfreeze", name="alice").ok
    changed = change(economy, "frozen")
    assert code_of(economy, 1, economy.now) == "ok"
    economy.enforce(changed)
    assert code_of(economy, 2, economy.now + PROPAGATION_S + 1) == "frozen"


def test_several_at_once() -> None:
    economy = economy_of()
    argument = change(economy, "frozen").detail["enforce"] | change(economy, "forbidden").detail["enforce"]
    assert economy.submit("root", "enforce", **argument).detail == {"since": START, "changes": 2}
    assert economy.submit("root", "enforce").detail == {"since": START, "changes": 0}


def test_one_governor_does_it_and_nobody_else() -> None:
    economy = economy_of(governors=("root", "second", "third"), threshold=2)
    changed = change(economy, "frozen")
    for name in ("alice", "bob"):
        assert economy.submit(name, "enforce", **changed.detail["enforce"]).code in ("frozen", "not_governor")
    assert economy.submit("second", "enforce", **changed.detail["enforce"]).detail["changes"] == 1
    proposed = {**economy.state.values["policy"], "rules": [DENY_ALL]}
    economy.submit("root", "propose", _jti="p", act="set_policy", arg={"policy": proposed})
    approved = economy.submit("second", "approve", proposal="p").detail["result"]
    assert economy.submit("third", "enforce", **approved["enforce"]).detail["changes"] == 1
    assert economy.state.values["policy"]["since"] == START


@pytest.mark.parametrize(
    "argument",
    [
        {"policy": 0},
        {"policy": "2"},
        {"policy": True},
        {"frozen": "alice"},
        {"frozen": ["alice"]},
        {"frozen": ["alice", -1]},
        {"frozen": ["Alice", START]},
        {"revoked": ["alice", "x"]},
        {"everything": True},
    ],
)
def test_an_argument_without_its_form_is_refused(argument: dict[str, Any]) -> None:
    assert economy_of().submit("root", "enforce", **argument).code == "bad_argument"


def test_a_wallet_that_is_not_there() -> None:
    x5t = wallet("alice").x5t
    for argument in ({"frozen": ["nobody", START]}, {"revoked": ["nobody", x5t]}):
        assert economy_of().submit("root", "enforce", **argument).code == "unknown_wallet"

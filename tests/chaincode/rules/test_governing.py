"""Policy, and what takes several governors: no single one mints, unfreezes or changes the rules."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy, authority, wallet
from tokenmesh_chaincode.limits import PROPOSAL_TTL_S

GOVERNORS = ("gov-a", "gov-b", "gov-c")


def several(threshold: int = 2, **more: Any) -> Economy:
    return Economy(governors=GOVERNORS, threshold=threshold, **more)


def policy_of(economy: Economy, **changes: Any) -> dict[str, Any]:
    return {**economy.state.values["policy"], **changes}


def test_one_governor_sets_policy_where_one_suffices() -> None:
    economy = Economy()
    economy.now += 10
    policy = policy_of(economy, grace_s=77, version=900, since=5)
    told = economy.submit("root", "set_policy", policy=policy).detail
    assert told == {"version": 2, "enforce": {"policy": 2}}
    assert economy.state.get("policy") == {**policy, "version": 2, "since": None}
    assert economy.submit("alice", "set_policy", policy=policy).code == "not_governor"


@pytest.mark.parametrize(
    "changes", [{"grace_s": 0}, {"threshold": 2}, {"default": "maybe"}, {"more": 1}, {"rules": [{}]}]
)
def test_a_policy_without_its_form_is_refused_and_the_reason_given(changes: dict[str, Any]) -> None:
    economy = Economy()
    outcome = economy.submit("root", "set_policy", policy=policy_of(economy, **changes))
    assert outcome.code == "bad_policy"
    assert outcome.detail["why"]


@pytest.mark.parametrize(
    ("act", "argument"),
    [
        ("mint", {"tokens": 5}),
        ("unfreeze", {"name": "alice"}),
        ("set_policy", {"policy": {}}),
        ("register", {"name": "gov-d", "cert": wallet("gov-d").pem, "role": "governor"}),
        ("rotate", {"name": "alice", "cert": authority().wallet("alice").pem}),
        ("rotate", {"name": "gov-b", "cert": authority().wallet("gov-b").pem}),
    ],
)
def test_what_one_governor_cannot_do_alone(act: str, argument: dict[str, Any]) -> None:
    assert several().submit("gov-a", act, **argument).code == "needs_approval"


def test_what_one_governor_still_does_alone() -> None:
    economy = several()
    cert = authority().wallet("gov-a").pem
    for act, argument in (
        ("freeze", {"name": "alice"}),
        ("register", {"name": "carol", "cert": wallet("carol").pem, "role": "service"}),
        ("update", {"name": "carol", "url": None}),
        ("rotate", {"name": "gov-a", "cert": cert}),
    ):
        assert economy.submit("gov-a", act, **argument).ok, act
    assert (
        economy.submit("alice", "rotate", name="alice", cert=authority().wallet("alice").pem).code == "frozen"
    )


def test_the_approval_that_reaches_the_threshold_carries_it_out() -> None:
    economy = several(threshold=3)
    detail = economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 50}).detail
    assert detail == {"proposal": "p", "approved": 1, "done": False}
    assert economy.submit("gov-a", "approve", proposal="p").code == "already_approved"
    detail = economy.submit("gov-b", "approve", proposal="p").detail
    assert detail == {"proposal": "p", "approved": 2, "done": False}
    assert economy.submit("gov-b", "approve", proposal="p").code == "already_approved"
    assert economy.supply() == 0
    outcome = economy.submit("gov-c", "approve", _jti="x", proposal="p")
    assert outcome.detail["done"]
    assert outcome.detail["result"] == {"credit": "gov-c:x"}
    assert economy.credits("gov-a") == economy.supply() == economy.accounted() == 50


def test_a_proposal_is_carried_out_once() -> None:
    economy = several()
    economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 50})
    assert economy.submit("gov-b", "approve", proposal="p").ok
    assert economy.submit("gov-c", "approve", proposal="p").code == "proposal_ended"
    assert economy.supply() == 50


def test_only_governors_propose_and_approve() -> None:
    economy = several()
    assert economy.submit("alice", "propose", act="mint", arg={"tokens": 5}).code == "not_governor"
    economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 5})
    assert economy.submit("alice", "approve", proposal="p").code == "not_governor"
    assert economy.submit("gov-b", "approve", proposal="q").code == "unknown_proposal"


def test_a_proposal_has_its_time() -> None:
    economy = several()
    economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 5})
    economy.submit("gov-a", "propose", _jti="q", act="mint", arg={"tokens": 5})
    economy.now = START + PROPOSAL_TTL_S - 1
    assert economy.submit("gov-b", "approve", proposal="p").ok
    economy.now += 1
    assert economy.submit("gov-b", "approve", proposal="q").code == "proposal_ended"


@pytest.mark.parametrize(
    ("act", "argument", "code"),
    [
        ("transfer", {"to": "alice", "tokens": 5}, "bad_argument"),
        ("nothing", {}, "bad_argument"),
        ("mint", {"tokens": 0}, "bad_argument"),
        ("mint", {}, "bad_argument"),
        ("set_policy", {"policy": {"rules": "\u00e9"}}, "bad_policy"),
        ("unfreeze", {"name": "nobody"}, "unknown_wallet"),
        ("register", {"name": "gov-d", "cert": "x", "role": "governor"}, "bad_certificate"),
    ],
)
def test_what_could_not_be_carried_out_is_not_proposed(act: str, argument: dict[str, Any], code: str) -> None:
    economy = several()
    assert economy.submit("gov-a", "propose", _jti="p", act=act, arg=argument).code == code
    assert economy.state.get("proposal/p") is None


def test_two_governors_cannot_use_one_proposal_id() -> None:
    economy = several()
    economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 5})
    assert economy.submit("gov-b", "propose", _jti="p", act="mint", arg={"tokens": 9}).code == "id_reused"


def test_an_approval_whose_act_is_refused_does_not_count() -> None:
    economy = several()
    argument = {"name": "gov-d", "cert": wallet("gov-d").pem, "role": "service"}
    economy.submit("gov-a", "propose", _jti="p", act="register", arg=argument)
    economy.submit("gov-a", "register", **{**argument, "cert": authority().wallet("gov-d").pem})
    assert economy.submit("gov-b", "approve", proposal="p").code == "name_taken"
    proposal = economy.state.get("proposal/p")
    assert proposal is not None
    assert (proposal["approved"], proposal["done"]) == (["gov-a"], False)


def test_where_one_suffices_a_proposal_is_carried_out_at_once() -> None:
    economy = Economy()
    detail = economy.submit("root", "propose", act="mint", arg={"tokens": 5}).detail
    assert detail["done"]
    assert economy.balance("root") == economy.supply() == 5


def test_governors_are_added_and_policy_is_changed_by_approval() -> None:
    economy = several()
    argument = {"name": "gov-d", "cert": wallet("gov-d").pem, "role": "governor"}
    economy.submit("gov-a", "propose", _jti="p", act="register", arg=argument)
    assert economy.submit("gov-b", "approve", proposal="p").ok
    four = {"policy": policy_of(economy, threshold=4)}
    assert economy.submit("gov-d", "propose", _jti="q", act="set_policy", arg=four).ok
    assert economy.submit("gov-c", "approve", proposal="q").ok
    assert economy.state.values["policy"]["threshold"] == 4
    five = {"policy": policy_of(economy, threshold=5)}
    assert economy.submit("gov-a", "propose", act="set_policy", arg=five).code == "bad_policy"


def test_a_wallet_whose_key_is_lost_is_rotated_by_several() -> None:
    economy = several()
    new = authority().wallet("alice")
    argument = {"name": "alice", "cert": new.pem}
    economy.submit("gov-a", "propose", _jti="p", act="rotate", arg=argument)
    assert economy.submit("gov-b", "approve", proposal="p").ok
    assert economy.submit("alice", "sweep", signer=new, credits=[]).ok


def test_a_frozen_governor_has_no_vote_and_its_earlier_one_does_not_count() -> None:
    economy = several()
    economy.submit("gov-a", "propose", _jti="p", act="mint", arg={"tokens": 5})
    economy.submit("gov-b", "freeze", name="gov-a")
    assert economy.submit("gov-a", "propose", act="mint", arg={"tokens": 5}).code == "frozen"
    assert economy.submit("gov-b", "approve", proposal="p").detail["approved"] == 1
    assert economy.supply() == 0
    assert economy.submit("gov-c", "approve", proposal="p").detail["done"]
    assert economy.supply() == 5


def test_one_governor_cannot_lock_out_the_others() -> None:
    """Whoever freezes all other governors is overruled by as many of them as the threshold asks for."""
    economy = several()
    for name in ("gov-a", "gov-b"):
        assert economy.submit("gov-c", "freeze", name=name).ok
    economy.submit("gov-a", "propose", _jti="p", act="unfreeze", arg={"name": "gov-a"})
    assert economy.submit("gov-b", "approve", proposal="p").detail["done"]
    assert economy.submit("gov-a", "freeze", name="gov-c").ok


@pytest.mark.parametrize(
    "argument",
    [
        {},
        {"act": "mint"},
        {"act": 5, "arg": {}},
        {"act": "mint", "arg": []},
        {"act": "mint", "arg": {}, "x": 1},
    ],
)
def test_arguments_without_their_form(argument: dict[str, Any]) -> None:
    economy = several()
    assert economy.submit("gov-a", "propose", _arg=argument).code == "bad_argument"
    assert economy.submit("gov-a", "approve", _arg=argument).code == "bad_argument"

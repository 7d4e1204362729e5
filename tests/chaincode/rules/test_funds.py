"""Holds and allowances: tokens are set aside once, for one payee, for a time that policy bounds."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy
from tokenmesh_chaincode.limits import HOLD_ITEMS_MAX, VOID_ITEMS_MAX


def test_a_hold_sets_tokens_aside() -> None:
    economy = Economy(tokens=100)
    outcome = economy.submit("alice", "hold", id="h", payee="bob", tokens=30, exp=START + 60)
    assert outcome.detail == {"balance": 70}
    assert economy.state.get("hold/alice/h") == {
        "payer": "alice",
        "payee": "bob",
        "tokens": 30,
        "opened_at": START,
        "exp": START + 60,
        "grace_s": 300,
        "state": "open",
        "charged": 0,
    }
    assert economy.accounted() == economy.supply()


def test_many_holds_are_what_as_many_operations_would_be() -> None:
    """Each is judged by itself, in the order they stand; what is refused leaves the others alone."""
    exp = START + 60
    items = [
        ["a", "bob", 30, exp],
        ["b", "bob", 80, exp],
        ["c", "nobody", 1, exp],
        ["a", "bob", 30, exp],
        ["d", "alice", 1, exp],
        ["e", "bob", 1, START],
        ["f", "bob", 70, exp],
        ["a", "bob", 31, exp],
        ["g", "bob", 1, exp],
    ]
    one, many = Economy(tokens=100), Economy(tokens=100)
    outcomes = {}
    for hold_id, payee, tokens, until in items:
        outcome = one.submit("alice", "hold", id=hold_id, payee=payee, tokens=tokens, exp=until)
        outcomes.setdefault(outcome.code, []).append(hold_id)
    assert outcomes == {
        "ok": ["a", "a", "f"],
        "insufficient_funds": ["b", "g"],
        "unknown_wallet": ["c"],
        "bad_argument": ["d"],
        "bad_expiry": ["e"],
        "id_reused": ["a"],
    }
    refused = {hold: code for code, holds in outcomes.items() if code != "ok" for hold in holds}
    detail = many.submit("alice", "holds", holds=items).detail
    assert detail == {"placed": 3, "tokens": 100, "refused": refused}
    assert dict(many.state.items("hold/")) == dict(one.state.items("hold/"))
    assert many.balance("alice") == one.balance("alice") == 0
    assert many.accounted() == many.supply()


def test_many_holds_of_a_frozen_wallet_or_without_their_form_are_refused_as_one() -> None:
    economy = Economy(tokens=100)
    good = ["a", "bob", 1, START + 60]
    for bad in (["a", "bob", 0, START + 60], ["a", "bob", 1], ["a/b", "bob", 1, START + 60], "a"):
        assert economy.submit("alice", "holds", holds=[good, bad]).code == "bad_argument"
    assert economy.submit("alice", "holds", holds=[good] * (HOLD_ITEMS_MAX + 1)).code == "bad_argument"
    economy.submit("root", "freeze", name="alice")
    assert economy.submit("alice", "holds", holds=[good]).code == "frozen"
    assert dict(economy.state.items("hold/")) == {}


def test_an_allowance_sets_tokens_aside() -> None:
    economy = Economy(tokens=100)
    outcome = economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 60)
    assert outcome.detail == {"balance": 70}
    assert economy.state.get("allowance/a") == {
        "payer": "alice",
        "payee": "bob",
        "tokens": 30,
        "opened_at": START,
        "exp": START + 60,
        "grace_s": 300,
        "closed_at": None,
        "ended": False,
    }
    assert economy.accounted() == economy.supply()


@pytest.mark.parametrize("act", ["hold", "open"])
def test_the_same_funds_asked_for_twice_are_set_aside_once(act: str) -> None:
    """A consumer that was killed before it had the answer asks again, with an operation of another id."""
    economy = Economy(tokens=100)
    terms: dict[str, Any] = {"id": "x", "payee": "bob", "tokens": 30, "exp": START + 60}
    assert economy.submit("alice", act, **terms).ok
    assert economy.submit("alice", act, **terms).detail == {"existing": True}
    assert economy.balance("alice") == 70
    for changes in ({"tokens": 31}, {"payee": "root"}):
        assert economy.submit("alice", act, **{**terms, **changes}).code == "id_reused"


def test_holds_of_two_payers_may_have_one_id_and_allowances_may_not() -> None:
    economy = Economy(tokens=100)
    terms: dict[str, Any] = {"id": "x", "tokens": 30, "exp": START + 60}
    assert economy.submit("alice", "hold", payee="bob", **terms).ok
    assert economy.submit("bob", "hold", payee="alice", **terms).ok
    assert economy.submit("alice", "open", payee="bob", **terms).ok
    assert economy.submit("bob", "open", payee="alice", **terms).code == "id_reused"


@pytest.mark.parametrize(("act", "limit"), [("hold", 100), ("open", 200)])
def test_the_expiry_lies_ahead_and_within_policy(act: str, limit: int) -> None:
    economy = Economy(tokens=100, hold_ttl_s_max=100, allowance_ttl_s_max=200)
    for exp, code in ((0, "bad_expiry"), (1, "ok"), (limit, "ok"), (limit + 1, "bad_expiry")):
        outcome = economy.submit("alice", act, id=f"x{exp}", payee="bob", tokens=1, exp=START + exp)
        assert outcome.code == code


@pytest.mark.parametrize("act", ["hold", "open"])
def test_what_cannot_be_set_aside(act: str) -> None:
    economy = Economy(("alice", "bob", "ice"), tokens=100, tokens_max=50)
    economy.submit("root", "freeze", name="ice")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("insufficient_funds", {"tokens": 50}),
        ("too_many_tokens", {"tokens": 51}),
        ("unknown_wallet", {"payee": "carol"}),
        ("payee_frozen", {"payee": "ice"}),
        ("bad_argument", {"payee": "alice"}),
        ("bad_argument", {"tokens": 0}),
        ("bad_argument", {"tokens": "1"}),
        ("bad_argument", {"id": "a/b"}),
        ("bad_argument", {"id": ""}),
        ("bad_argument", {"exp": "soon"}),
    ]
    economy.submit("alice", "transfer", to="bob", tokens=60)
    for code, changes in cases:
        terms: dict[str, Any] = {"id": "x", "payee": "bob", "tokens": 1, "exp": START + 60, **changes}
        assert economy.submit("alice", act, **terms).code == code, changes
    assert economy.balance("alice") == 40


def test_no_allowance_is_called_hold() -> None:
    """``via: "hold"`` in a contract means the other way to pay."""
    economy = Economy(tokens=100)
    terms: dict[str, Any] = {"id": "hold", "payee": "bob", "tokens": 1, "exp": START + 60}
    assert economy.submit("alice", "open", **terms).code == "bad_argument"
    assert economy.submit("alice", "hold", **terms).ok


def test_a_refill_adds_tokens_and_no_time() -> None:
    economy = Economy(tokens=100, tokens_max=60)
    economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 60)
    assert economy.submit("alice", "refill", id="a", tokens=20).detail == {"balance": 50, "tokens": 50}
    assert economy.submit("alice", "refill", id="a", tokens=11).code == "too_many_tokens"
    assert economy.submit("alice", "refill", id="a", tokens=10).ok
    assert economy.submit("bob", "refill", id="a", tokens=1).code == "not_yours"
    assert economy.submit("alice", "refill", id="b", tokens=1).code == "unknown_allowance"
    economy.now += 60
    assert economy.submit("alice", "refill", id="a", tokens=1).code == "allowance_ended"
    assert economy.accounted() == economy.supply()


def test_a_refill_needs_funds_and_a_payee_that_is_not_frozen() -> None:
    economy = Economy(tokens=100)
    economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 60)
    assert economy.submit("alice", "refill", id="a", tokens=71).code == "insufficient_funds"
    economy.submit("root", "freeze", name="bob")
    assert economy.submit("alice", "refill", id="a", tokens=1).code == "payee_frozen"


def test_closing_starts_the_grace_once() -> None:
    economy = Economy(tokens=100, grace_s=40)
    economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 600)
    economy.now += 10
    assert economy.submit("bob", "close", id="a").code == "not_yours"
    assert economy.submit("alice", "close", id="a").detail == {"settle_by": START + 50}
    economy.now += 10
    assert economy.submit("alice", "close", id="a").detail == {"settle_by": START + 50}
    assert economy.submit("alice", "refill", id="a", tokens=1).code == "allowance_ended"
    again = economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 600)
    assert again.code == "allowance_ended"
    economy.now += 30
    assert economy.submit("bob", "expire", allowances=["a"]).detail["tokens"] == 30
    assert economy.submit("alice", "close", id="a").code == "allowance_ended"
    assert economy.submit("alice", "close", id="b").code == "unknown_allowance"


def test_a_close_after_the_expiry_does_not_lengthen_the_grace() -> None:
    economy = Economy(tokens=100, grace_s=40)
    economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 60)
    economy.now += 90
    assert economy.submit("alice", "close", id="a").detail == {"settle_by": START + 100}


def test_the_payee_voids_holds_and_the_tokens_go_back() -> None:
    economy = Economy(tokens=100)
    for hold_id in ("h1", "h2"):
        economy.submit("alice", "hold", id=hold_id, payee="bob", tokens=30, exp=START + 60)
    holds = [["alice", "h1"], ["alice", "h2"], ["alice", "h3"], ["alice", "h1"]]
    detail = economy.submit("bob", "void", holds=holds).detail
    assert detail == {
        "voided": 2,
        "tokens": 60,
        "refused": {"alice/h3": "unknown_hold", "alice/h1": "hold_ended"},
    }
    assert economy.credits("alice") == 60
    assert economy.accounted() == economy.supply()
    again = economy.submit("alice", "hold", id="h1", payee="bob", tokens=30, exp=START + 60)
    assert again.code == "hold_ended"


def test_nobody_but_the_payee_voids() -> None:
    economy = Economy(tokens=100)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=30, exp=START + 60)
    for caller in ("alice", "root"):
        detail = economy.submit(caller, "void", holds=[["alice", "h"]]).detail
        assert detail == {"voided": 0, "tokens": 0, "refused": {"alice/h": "wrong_payee"}}
    too_many = [["alice", "h"]] * (VOID_ITEMS_MAX + 1)
    assert economy.submit("bob", "void", holds=too_many).code == "bad_argument"

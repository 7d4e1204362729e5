"""Expire and forget: tokens come back when nobody can claim them, records go when nobody needs them."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy
from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX, PROPOSAL_TTL_S, RECORD_KEEP_S


def with_funds() -> Economy:
    economy = Economy(tokens=100, grace_s=300)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=20, exp=START + 60)
    economy.submit("alice", "open", id="a", payee="bob", tokens=30, exp=START + 600)
    return economy


def test_a_hold_expires_when_its_grace_is_over_and_not_a_second_before() -> None:
    economy = with_funds()
    economy.now = START + 359
    detail = economy.submit("bob", "expire", holds=[["alice", "h"]]).detail
    assert detail == {"holds": 0, "allowances": 0, "tokens": 0, "refused": {"alice/h": "not_expired"}}
    economy.now = START + 360
    detail = economy.submit("bob", "expire", holds=[["alice", "h"]]).detail
    assert detail == {"holds": 1, "allowances": 0, "tokens": 20, "refused": {}}
    assert economy.credits("alice") == 20
    assert economy.accounted() == economy.supply()


def test_an_allowance_expires_with_what_was_not_settled() -> None:
    economy = with_funds()
    contract = economy.contract(via="a", lane="l", seq=1)
    economy.submit("bob", "settle", items=[[contract, 4]])
    economy.now = START + 899
    assert economy.submit("bob", "expire", allowances=["a"]).detail["refused"] == {"a": "not_expired"}
    economy.now = START + 900
    assert economy.submit("bob", "expire", allowances=["a"]).detail["tokens"] == 26
    assert economy.credits("alice") == 26
    assert economy.accounted() == economy.supply()


def test_an_allowance_that_was_closed_expires_when_the_grace_from_then_is_over() -> None:
    economy = with_funds()
    economy.submit("alice", "close", id="a")
    economy.now = START + 299
    assert economy.submit("bob", "expire", allowances=["a"]).detail["refused"] == {"a": "not_expired"}
    economy.now = START + 300
    assert economy.submit("bob", "expire", allowances=["a"]).detail["tokens"] == 30


def test_everything_expires_once_in_one_credit_a_payer() -> None:
    economy = with_funds()
    economy.now = START + 10_000
    holds, allowances = [["alice", "h"], ["alice", "h"], ["bob", "h"]], ["a", "a", "b"]
    text = economy.operation("root", "expire", _jti="e", holds=holds, allowances=allowances)
    assert economy.apply(text).detail == {
        "holds": 1,
        "allowances": 1,
        "tokens": 50,
        "refused": {
            "alice/h": "hold_ended",
            "bob/h": "unknown_hold",
            "a": "allowance_ended",
            "b": "unknown_allowance",
        },
    }
    assert economy.state.get("credit/alice/root:e") == {"tokens": 50, "from": "root", "why": "expire"}


def test_a_captured_hold_does_not_expire() -> None:
    economy = with_funds()
    economy.submit("bob", "settle", items=[[economy.contract(jti="h", tok=20), 20]])
    economy.now = START + 10_000
    detail = economy.submit("alice", "expire", holds=[["alice", "h"]]).detail
    assert detail["refused"] == {"alice/h": "hold_ended"}


def test_a_wallet_may_expire_its_own_and_get_it_in_its_own_row() -> None:
    economy = with_funds()
    economy.now = START + 10_000
    economy.submit("alice", "expire", _jti="e", holds=[["alice", "h"]])
    assert economy.state.get("credit/alice/e") is not None


def forgotten(economy: Economy, **what: Any) -> int:
    outcome = economy.submit("bob", "forget", **what)
    asked = sum(len(items) for items in what.values())
    assert outcome.detail["forgotten"] + outcome.detail["kept"] == asked
    return int(outcome.detail["forgotten"])


def test_an_operation_is_remembered_for_as_long_as_it_could_be_repeated() -> None:
    economy = with_funds()
    text = economy.operation("alice", "transfer", _jti="t", _exp=START + 300, to="bob", tokens=1)
    first = economy.apply(text)
    economy.now = START + 300 + RECORD_KEEP_S
    assert forgotten(economy, operations=[["alice", "t"]]) == 0
    assert economy.apply(text) == first
    economy.now += 1
    assert forgotten(economy, operations=[["alice", "t"], ["alice", "none"]]) == 1
    assert economy.apply(text).code == "expired"
    assert economy.balance("alice") == 49


def test_a_hold_is_remembered_until_its_contract_cannot_be_settled() -> None:
    economy = with_funds()
    economy.now = START + 360 + RECORD_KEEP_S + 1
    assert forgotten(economy, holds=[["alice", "h"]]) == 0, "it is still open: its tokens are there"
    economy.submit("bob", "expire", holds=[["alice", "h"]])
    economy.now -= 1
    assert forgotten(economy, holds=[["alice", "h"]]) == 0
    economy.now += 1
    assert forgotten(economy, holds=[["alice", "h"], ["alice", "none"]]) == 1
    assert economy.accounted() == economy.supply()


def test_an_allowance_is_forgotten_with_what_was_spent_of_it() -> None:
    economy = with_funds()
    economy.submit("bob", "settle", items=[[economy.contract(via="a", lane="l", seq=1), 4]])
    economy.submit("alice", "close", id="a")
    economy.now = START + 10_000
    assert forgotten(economy, allowances=["a"]) == 0, "its tokens are still there"
    economy.now = START + 300
    economy.submit("bob", "expire", allowances=["a"])
    economy.now = START + 900 + RECORD_KEEP_S
    assert forgotten(economy, allowances=["a"]) == 0, "contracts may bear its id until its first expiry"
    economy.now += 1
    assert forgotten(economy, allowances=["a"]) == 1
    assert economy.state.get("allowance/a") is None
    assert economy.state.get("spent/a") is None
    assert economy.accounted() == economy.supply()


def test_a_proposal_is_forgotten_after_its_time() -> None:
    economy = Economy(governors=("root", "second"), threshold=2)
    economy.submit("root", "propose", _jti="p", act="mint", arg={"tokens": 5})
    economy.now = START + PROPOSAL_TTL_S + RECORD_KEEP_S
    assert forgotten(economy, proposals=["p"]) == 0
    economy.now += 1
    assert forgotten(economy, proposals=["p"]) == 1


@pytest.mark.parametrize(
    ("act", "field", "item", "most"),
    [
        ("expire", "holds", ["alice", "h"], EXPIRE_ITEMS_MAX),
        ("expire", "allowances", "a", EXPIRE_ITEMS_MAX),
        ("forget", "operations", ["alice", "h"], FORGET_ITEMS_MAX),
        ("forget", "holds", ["alice", "h"], FORGET_ITEMS_MAX),
        ("forget", "allowances", "a", FORGET_ITEMS_MAX),
        ("forget", "proposals", "p", FORGET_ITEMS_MAX),
    ],
)
def test_one_operation_ends_so_many_and_no_more(act: str, field: str, item: Any, most: int) -> None:
    economy = Economy()
    assert economy.submit("alice", act, **{field: [item] * most}).ok
    assert economy.submit("alice", act, **{field: [item] * (most + 1)}).code == "bad_argument"
    assert economy.submit("alice", act, **{field: [5]}).code == "bad_argument"

"""Mint, burn, grant, transfer and sweep: who may, what moves, and that supply is what was minted."""

from __future__ import annotations

import pytest

from support.economy import Economy
from tokenmesh_chaincode.limits import SWEEP_ITEMS_MAX, TOKENS_MAX


def test_a_governor_mints_into_its_own_balance_and_grants_from_it() -> None:
    economy = Economy()
    assert economy.submit("root", "mint", tokens=1000).detail == {"balance": 1000}
    outcome = economy.submit("root", "grant", _jti="g-1", to="alice", tokens=300)
    assert outcome.detail == {"balance": 700, "credit": "root:g-1"}
    assert economy.state.get("credit/alice/root:g-1") == {"tokens": 300, "from": "root", "why": "grant"}
    assert economy.supply() == economy.accounted() == 1000


@pytest.mark.parametrize(
    ("act", "argument"), [("mint", {"tokens": 5}), ("grant", {"to": "bob", "tokens": 5})]
)
def test_a_service_does_neither(act: str, argument: dict[str, object]) -> None:
    economy = Economy(tokens=100)
    assert economy.submit("alice", act, **argument).code == "not_governor"
    assert economy.supply() == economy.accounted() == 200


def test_a_grant_cannot_exceed_what_was_minted() -> None:
    economy = Economy()
    economy.submit("root", "mint", tokens=10)
    assert economy.submit("root", "grant", to="alice", tokens=11).code == "insufficient_funds"


def test_a_transfer_arrives_as_a_credit_that_the_payee_sweeps() -> None:
    economy = Economy(tokens=100)
    row = economy.submit("alice", "transfer", to="bob", tokens=40).detail["credit"]
    assert (economy.balance("alice"), economy.balance("bob")) == (60, 100)
    outcome = economy.submit("bob", "sweep", credits=[row])
    assert outcome.detail == {"swept": 1, "tokens": 40, "missing": 0, "balance": 140}
    assert economy.credits("bob") == 0
    assert economy.accounted() == economy.supply() == 200


def test_a_credit_is_swept_once_and_by_its_owner_only() -> None:
    economy = Economy(tokens=100)
    row = economy.submit("alice", "transfer", to="bob", tokens=40).detail["credit"]
    assert economy.submit("alice", "sweep", credits=[row]).detail == {"swept": 0, "tokens": 0, "missing": 1}
    assert economy.submit("bob", "sweep", credits=[row, row]).detail["missing"] == 1
    assert economy.submit("bob", "sweep", credits=[row]).detail["swept"] == 0
    assert economy.balance("bob") == 140


def test_a_sweep_takes_so_many_credits_and_no_more() -> None:
    economy = Economy()
    assert economy.submit("alice", "sweep", credits=["x"] * SWEEP_ITEMS_MAX).ok
    assert economy.submit("alice", "sweep", credits=["x"] * (SWEEP_ITEMS_MAX + 1)).code == "bad_argument"


def test_transfers_to_nobody_and_to_oneself() -> None:
    economy = Economy(tokens=100)
    assert economy.submit("alice", "transfer", to="carol", tokens=1).code == "unknown_wallet"
    assert economy.submit("alice", "transfer", to="alice", tokens=1).code == "bad_argument"
    assert economy.balance("alice") == 100


def test_a_balance_is_spent_to_the_last_token_and_never_below() -> None:
    economy = Economy(tokens=100)
    assert economy.submit("alice", "transfer", to="bob", tokens=101).code == "insufficient_funds"
    assert economy.submit("alice", "transfer", to="bob", tokens=100).ok
    assert economy.submit("alice", "transfer", to="bob", tokens=1).code == "insufficient_funds"


def test_burning_takes_from_the_supply() -> None:
    economy = Economy(tokens=100)
    assert economy.submit("alice", "burn", tokens=30).detail == {"balance": 70}
    assert economy.submit("alice", "burn", tokens=71).code == "insufficient_funds"
    assert economy.supply() == economy.accounted() == 170


def test_no_number_grows_beyond_what_json_can_count() -> None:
    economy = Economy()
    assert economy.submit("root", "mint", tokens=TOKENS_MAX).ok
    assert economy.submit("root", "mint", tokens=1).code == "too_many_tokens"
    assert economy.supply() == economy.accounted() == TOKENS_MAX
    row = economy.submit("root", "grant", to="alice", tokens=TOKENS_MAX).detail["credit"]
    economy.submit("root", "mint", tokens=1)
    more = economy.submit("root", "grant", to="alice", tokens=1).detail["credit"]
    assert economy.submit("alice", "sweep", credits=[row, more]).code == "too_many_tokens"
    assert economy.credits("alice") == TOKENS_MAX + 1
    assert economy.submit("alice", "sweep", credits=[row]).ok


def test_an_id_that_was_forgotten_and_used_again_loses_no_tokens() -> None:
    """The credit's and the supply's rows are named after the operation: a second one adds to the first."""
    economy = Economy()
    economy.submit("root", "mint", _jti="m", tokens=10)
    economy.submit("root", "grant", _jti="g", to="alice", tokens=10)
    economy.now += 10_000
    forgotten = economy.submit("alice", "forget", operations=[["root", "m"], ["root", "g"]])
    assert forgotten.detail["forgotten"] == 2
    economy.submit("root", "mint", _jti="m", tokens=7)
    economy.submit("root", "grant", _jti="g", to="alice", tokens=7)
    assert economy.credits("alice") == 17
    assert economy.supply() == economy.accounted() == 17

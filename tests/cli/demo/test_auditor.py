"""The auditor notices every lie: each test spoils honest evidence in one way."""

from __future__ import annotations

from typing import Any

import pytest

from tokenmesh.cli.demo.auditor import Account, Evidence, Run, Settled, audit
from tokenmesh.cli.demo.tally import Passage

HONEST = Settled("frontend", "cart", "c1", "GET /carts/{shopper}", offered=3, charged=3)
KEY = HONEST.key


def passage(out: str | None = "fulfilled", charged: int = 3, lost: bool = False, jti: str = "c1") -> Passage:
    return Passage("cart", "GET /carts/x", "frontend", jti, 200, 1.0, lost, "receipt", out, charged)


def evidence(**spoilt: Any) -> Evidence:
    """One call of three tokens, in good order; ``spoilt`` replaces parts of it."""
    honest = Evidence(
        settled=[HONEST],
        runs=[Run("cart", "frontend", "c1")],
        passages=[passage(lost=True), passage()],
        forged=[],
        claims={KEY: 3},
        unsettled={"cart": 0},
        offers={("cart", "GET /carts/{shopper}"): 3},
        accounts={"frontend": Account(100, 97, 0, 0, 0), "cart": Account(0, 1, 2, 0, 0)},
        minted=100,
        supply=100,
        accounted=100,
        verify=[],
    )
    return honest._replace(**spoilt)


def broken(**spoilt: Any) -> dict[str, int]:
    """The checks that fail, and how often."""
    return {check.name: check.figure for check in audit(evidence(**spoilt)) if not check.ok}


def test_honest_evidence_passes() -> None:
    """Nothing is found where nothing is wrong, and a lost response tried again is nothing wrong."""
    assert broken() == {}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"settled": [HONEST, HONEST]},
        {"settled": [HONEST._replace(charged=4)], "claims": {KEY: 4}},
        {"settled": [HONEST._replace(offered=9, charged=9)], "claims": {KEY: 9}},
        {"runs": []},
        {"runs": [Run("cart", "shopper", "c1")]},
        {"claims": {}},
        {"claims": {KEY: None}},
        {"claims": {KEY: 2}},
        {"passages": [passage("void", 0)]},
    ],
    ids=[
        "twice",
        "above the contract",
        "above the offer",
        "no run",
        "another's run",
        "no claim",
        "void claim",
        "another amount",
        "void receipt",
    ],
)
def test_overcharging_is_found(spoilt: dict[str, Any]) -> None:
    """A contract settled twice, for too much, or for no work."""
    assert broken(**spoilt)["overcharged"] >= 1


def test_a_handler_that_ran_twice_is_found() -> None:
    """Two notes of one contract; the same id of another payer is another contract."""
    assert broken(runs=[Run("cart", "frontend", "c1")] * 2) == {"double_runs": 1}
    assert broken(runs=[Run("cart", "frontend", "c1"), Run("cart", "shopper", "c1")]) == {}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"unsettled": {"cart": 2}},
        {"passages": [passage(jti="c2")]},
        {"passages": [passage(charged=2)]},
        {"passages": [passage(), passage(charged=2)]},
    ],
    ids=["journal", "receipt without settlement", "receipt for less", "two receipts"],
)
def test_work_that_was_not_settled_is_found(spoilt: dict[str, Any]) -> None:
    """Fulfilled in the journal or by receipt, but not on the ledger, or not to the token."""
    assert broken(**spoilt)["unsettled"] == 1


def test_a_free_call_needs_no_settlement() -> None:
    """A receipt over zero tokens, or for nothing owed, leaves no trace on the ledger and needs none."""
    assert broken(passages=[passage(), passage(charged=0, jti="c2"), passage("void", 0, jti="c3")]) == {}


def test_stranded_tokens_are_counted() -> None:
    """The figure is tokens, not wallets."""
    accounts = {"frontend": Account(100, 90, 0, 5, 2), "cart": Account(0, 1, 2, 0, 0)}
    assert broken(accounts=accounts) == {"stranded_tokens": 7}


@pytest.mark.parametrize("spoilt", [{"supply": 101}, {"minted": 99}, {"accounted": 98}])
def test_a_supply_that_changed_is_found(spoilt: dict[str, int]) -> None:
    """Made, existing and accounted for must be the same number."""
    assert "supply" in broken(**spoilt)


def test_books_that_do_not_agree_are_found() -> None:
    """A wallet with a token too many, a receipt the ledger knows nothing of, a forged receipt."""
    accounts = {"frontend": Account(100, 98, 0, 0, 0), "cart": Account(0, 1, 2, 0, 0)}
    assert broken(accounts=accounts) == {"books": 1}
    assert broken(passages=[passage(charged=9)])["books"] == 1
    assert broken(forged=["x" * 1_000]) == {"books": 1}


def test_findings_of_verify_count() -> None:
    """What the replay of the ledger found is taken over as it is."""
    assert broken(verify=["transaction 7: a changed amount"]) == {"verify": 1}

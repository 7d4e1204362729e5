"""Settle: tokens move for contracts that hold, each judged by itself, to the second and to the token."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Authority, Economy, wallet
from tokenmesh_chaincode.limits import RECORD_KEEP_S, SETTLE_ITEMS_MAX, SKIPPED_ITEMS_MAX


def with_allowance(tokens: int = 50, exp: int = 600, **policy: Any) -> Economy:
    economy = Economy(("alice", "bob", "carol"), tokens=100, **policy)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=tokens, exp=START + exp).ok
    return economy


def settle(economy: Economy, *items: tuple[str, int], by: str = "bob", **more: Any) -> dict[str, Any]:
    outcome = economy.submit(by, "settle", items=[list(item) for item in items], **more)
    assert outcome.ok, outcome
    assert economy.accounted() == economy.supply()
    return outcome.detail


def code_of(economy: Economy, charged: int = 5, *, by: str = "bob", **claims: Any) -> str:
    """What becomes of one contract in a settlement of its own."""
    claims = {"via": "a", "lane": "l", "seq": 1, "jti": "c", **claims}
    if claims["via"] == "hold":
        claims |= {"lane": None, "seq": None}
    before = economy.accounted()
    detail = settle(economy, (economy.contract(**claims), charged), by=by)
    assert economy.accounted() == before
    if detail["settled"]:
        assert detail == {"settled": 1, "tokens": charged, "refused": {}}
        return "ok"
    assert detail["tokens"] == 0
    (code,) = detail["refused"].values()
    return str(code)


def test_contracts_of_an_allowance_become_one_credit_of_the_payee() -> None:
    economy = with_allowance()
    items = [(economy.contract(via="a", lane="l", seq=seq), 3 + seq % 2) for seq in range(1, 11)]
    text = economy.operation("bob", "settle", _jti="s-1", items=[list(item) for item in items])
    assert economy.apply(text).detail == {"settled": 10, "tokens": 35, "refused": {}}
    assert economy.state.get("credit/bob/s-1") == {"tokens": 35, "from": "bob", "why": "settle"}
    assert economy.state.get("spent/a") == {"tokens": 35, "lanes": {"l": [[1, 10]]}}
    assert economy.accounted() == economy.supply()
    assert economy.submit("bob", "sweep", credits=["s-1"]).detail["balance"] == 135


def test_a_contract_is_settled_once_whoever_asks_how_often() -> None:
    economy = with_allowance()
    contract = economy.contract(via="a", lane="l", seq=1, jti="c")
    assert settle(economy, (contract, 5))["settled"] == 1
    assert settle(economy, (contract, 5))["refused"] == {"alice/c": "already_settled"}
    twice = economy.contract(via="a", lane="l", seq=2, jti="d")
    detail = settle(economy, (twice, 5), (twice, 5))
    assert (detail["settled"], detail["refused"]) == (1, {"alice/d": "already_settled"})
    assert economy.credits("bob") == 10


def test_one_bad_contract_does_not_hinder_the_others() -> None:
    economy = with_allowance()
    items = [(economy.contract(via="a", lane="l", seq=seq, jti=f"c{seq}"), 5) for seq in range(6)]
    header, claims, signature = items[2][0].split(".")
    items[2] = (f"{header}.{claims}.{signature[:-6]}AAAAAA", 5)
    items[4] = ("not a contract", 5)
    detail = settle(economy, *items)
    assert detail == {
        "settled": 4,
        "tokens": 20,
        "refused": {"alice/c2": "bad_signature", "#4": "not_a_contract"},
    }
    assert economy.state.get("spent/a") == {"tokens": 20, "lanes": {"l": [[0, 1], [3, 3], [5, 5]]}}


def test_two_payers_with_one_contract_id_are_told_apart() -> None:
    economy = with_allowance()
    economy.submit("carol", "open", id="b", payee="bob", tokens=5, exp=START + 600)
    mine = economy.contract(via="a", lane="l", seq=1, jti="same")
    hers = economy.contract("carol", via="b", lane="l", seq=1, jti="same", tok=6)
    assert settle(economy, (mine, 5), (hers, 6)) == {
        "settled": 1,
        "tokens": 5,
        "refused": {"carol/same": "allowance_used_up"},
    }


def test_whose_contract_it_is() -> None:
    economy = with_allowance()
    stranger = Authority().wallet("alice")

    class Impostor:
        name, x5t = "alice", wallet("alice").x5t
        sign = staticmethod(wallet("carol").sign)

    assert code_of(economy, signer=wallet("carol")) == "wrong_signer"
    assert code_of(economy, signer=stranger) == "unknown_certificate"
    assert code_of(economy, signer=Impostor()) == "bad_signature"
    assert code_of(economy, payer="dave") == "unknown_wallet"
    assert code_of(economy, payer="carol") == "wrong_payer"
    assert code_of(economy, payee="carol") == "wrong_payee"
    assert code_of(economy, by="carol") == "wrong_payee"
    assert code_of(economy, by="carol", payee="carol") == "wrong_payee"
    assert code_of(economy, dom="x" * 43) == "wrong_domain"
    assert code_of(economy, via="b") == "unknown_allowance"
    assert code_of(economy) == "ok"


def test_what_is_charged_is_at_most_what_was_offered() -> None:
    economy = with_allowance()
    assert code_of(economy, 6) == "charged_too_much"
    assert code_of(economy, 5) == "ok"
    assert code_of(economy, 0, seq=2) == "ok"
    assert economy.state.get("spent/a") == {"tokens": 5, "lanes": {"l": [[1, 2]]}}


def test_an_allowance_is_used_up_to_its_last_token() -> None:
    economy = with_allowance(tokens=12)
    assert code_of(economy, 5, seq=1) == "ok"
    assert code_of(economy, 8, seq=2, tok=8) == "allowance_used_up"
    assert code_of(economy, 7, seq=2, tok=8) == "ok"
    assert code_of(economy, 1, seq=3) == "allowance_used_up"
    assert code_of(economy, 0, seq=3) == "ok"
    economy.submit("alice", "refill", id="a", tokens=5)
    assert code_of(economy, 5, seq=4) == "ok"


def test_an_allowance_can_be_settled_until_the_last_second_of_its_grace() -> None:
    economy = with_allowance(exp=600, grace_s=300)
    in_time: dict[str, Any] = {"iat": START + 590, "exp": START + 600}
    assert code_of(economy, iat=START + 590, exp=START + 601) == "outlives_funds"
    economy.now = START + 899
    assert code_of(economy, **in_time) == "ok"
    assert economy.submit("alice", "expire", allowances=["a"]).detail["refused"] == {"a": "not_expired"}
    economy.now = START + 900
    assert code_of(economy, seq=2, **in_time) == "too_late"
    assert economy.submit("alice", "expire", allowances=["a"]).detail["tokens"] == 45
    assert code_of(economy, seq=2, **in_time) == "allowance_ended"


def test_an_allowance_that_was_closed_can_be_settled_for_its_grace() -> None:
    """The payee may not have heard of it: what the payer signed, then or since, it settles."""
    economy = with_allowance(exp=600, grace_s=100)
    economy.now = START + 50
    economy.submit("alice", "close", id="a")
    economy.now = START + 149
    assert code_of(economy, seq=1, iat=START + 49) == "ok"
    assert code_of(economy, seq=2, iat=START + 60) == "ok"
    economy.now = START + 150
    assert code_of(economy, seq=3, iat=START + 49) == "too_late"


def test_a_change_of_policy_does_not_move_the_end_of_what_is_open() -> None:
    economy = with_allowance(exp=600, grace_s=300)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=5, exp=START + 600)
    policy = {**economy.state.values["policy"], "grace_s": 1}
    assert economy.submit("root", "set_policy", policy=policy).ok
    economy.now = START + 899
    claims: dict[str, Any] = {"iat": START + 590, "exp": START + 600}
    assert code_of(economy, **claims) == "ok"
    assert code_of(economy, via="hold", jti="h", **claims) == "ok"


def test_a_contract_is_not_older_than_what_pays_for_it() -> None:
    """An allowance id that was forgotten, and opened again, must not pay for contracts of the first one."""
    economy = with_allowance()
    economy.submit("alice", "hold", id="h", payee="bob", tokens=5, exp=START + 600)
    for via, jti in (("a", "c"), ("hold", "h")):
        early = START - RECORD_KEEP_S
        assert code_of(economy, via=via, jti=jti, iat=early - 1) == "before_funds"
        assert code_of(economy, via=via, jti=jti, iat=early) == "ok"


def test_an_old_contract_under_an_allowance_that_was_forgotten_and_opened_again() -> None:
    economy = with_allowance(exp=600, grace_s=300)
    contract = economy.contract(via="a", lane="l", seq=1, jti="c", exp=START + 600, iat=START + 599)
    assert settle(economy, (contract, 5))["settled"] == 1
    economy.now = START + 900
    economy.submit("alice", "expire", allowances=["a"])
    economy.now += RECORD_KEEP_S + 1
    assert economy.submit("bob", "forget", allowances=["a"]).detail["forgotten"] == 1
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=50, exp=economy.now + 600).ok
    assert settle(economy, (contract, 5))["refused"] == {"alice/c": "before_funds"}


def test_a_hold_is_captured_once_and_its_rest_goes_back() -> None:
    economy = with_allowance()
    economy.submit("alice", "hold", id="h", payee="bob", tokens=30, exp=START + 60)
    contract = economy.contract(jti="h", tok=30)
    text = economy.operation("bob", "settle", _jti="s", items=[[contract, 12]])
    assert economy.apply(text).detail == {"settled": 1, "tokens": 12, "refused": {}}
    assert economy.credits("bob") == 12
    assert economy.state.get("credit/alice/bob:s") == {"tokens": 18, "from": "bob", "why": "rest"}
    hold = economy.state.get("hold/alice/h")
    assert hold is not None
    assert (hold["state"], hold["charged"]) == ("captured", 12)
    assert settle(economy, (contract, 12))["refused"] == {"alice/h": "already_settled"}
    assert economy.accounted() == economy.supply()


def test_what_a_hold_does_not_pay_for() -> None:
    economy = with_allowance(grace_s=300)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=4, exp=START + 60)
    economy.submit("alice", "hold", id="v", payee="bob", tokens=4, exp=START + 60)
    economy.submit("bob", "void", holds=[["alice", "v"]])
    assert code_of(economy, via="hold", jti="none") == "unknown_hold"
    assert code_of(economy, via="hold", jti="h", payee="carol", by="carol") == "wrong_payee"
    assert code_of(economy, via="hold", jti="h", payer="carol") == "unknown_hold"
    assert code_of(economy, via="hold", jti="v", charged=4) == "hold_ended"
    assert code_of(economy, via="hold", jti="h", charged=5) == "charged_too_much"
    assert code_of(economy, via="hold", jti="h", charged=3, tok=2) == "charged_too_much"
    assert code_of(economy, via="hold", jti="h", charged=4, exp=START + 61) == "outlives_funds"
    late: dict[str, Any] = {"via": "hold", "jti": "h", "charged": 4, "iat": START + 59, "exp": START + 60}
    economy.now = START + 360
    assert code_of(economy, **late) == "too_late"
    economy.now = START + 359
    assert code_of(economy, **late) == "ok"


def test_what_was_made_after_a_freeze_is_not_settled_and_what_was_made_before_is() -> None:
    economy = with_allowance(propagation_s=5)
    frozen = economy.submit("root", "freeze", name="alice")
    economy.now = START + 10
    economy.enforce(frozen)
    economy.now = START + 30
    assert code_of(economy, seq=1, iat=START + 10) == "ok"
    assert code_of(economy, seq=2, iat=START + 15) == "ok"
    assert code_of(economy, seq=3, iat=START + 16) == "frozen"
    economy.submit("root", "unfreeze", name="alice")
    assert code_of(economy, seq=3, iat=START + 16) == "ok"


def test_a_frozen_payee_settles_what_it_earned_before() -> None:
    economy = with_allowance(propagation_s=5)
    economy.enforce(economy.submit("root", "freeze", name="bob"))
    assert code_of(economy, seq=1, iat=START + 5) == "ok"
    assert code_of(economy, seq=2, iat=START + 6) == "payee_frozen"


def test_policy_forbids_what_was_made_after_it() -> None:
    economy = with_allowance(propagation_s=5)
    rule = {"payer": "ali*", "payee": "bob", "operation": "GET /quote/*", "effect": "deny"}
    policy = {**economy.state.values["policy"], "rules": [rule]}
    set_policy = economy.submit("root", "set_policy", policy=policy)
    economy.now = START + 10
    economy.enforce(set_policy)
    economy.now = START + 60
    assert code_of(economy, seq=1, iat=START + 15) == "ok"
    assert code_of(economy, seq=2, iat=START + 16) == "forbidden"
    assert code_of(economy, seq=3, iat=START + 16, op="POST /order") == "ok"


def test_lanes_count_each_for_itself() -> None:
    economy = with_allowance()
    for lane in ("l1", "l2"):
        for seq in (1, 2):
            assert code_of(economy, lane=lane, seq=seq) == "ok"
    assert code_of(economy, lane="l1", seq=2) == "already_settled"


def test_the_payee_closes_gaps_by_skipping() -> None:
    economy = with_allowance()
    items = [(economy.contract(via="a", lane="l", seq=seq), 5) for seq in (1, 3, 5)]
    skipped = [["a", "l", 2], ["a", "l", 4], ["a", "l", 4], ["b", "l", 1]]
    detail = settle(economy, *items, skipped=skipped)
    assert detail == {"settled": 3, "tokens": 15, "refused": {}, "skipped": 2}
    assert economy.state.get("spent/a") == {"tokens": 15, "lanes": {"l": [[1, 5]]}}
    assert code_of(economy, seq=2) == "already_settled"


def test_nobody_skips_in_anothers_allowance() -> None:
    economy = with_allowance()
    for by in ("alice", "carol"):
        assert settle(economy, by=by, skipped=[["a", "l", 1]])["skipped"] == 0
    assert economy.state.get("spent/a") is None


def test_a_settlement_of_nothing_writes_nothing_but_its_outcome() -> None:
    economy = with_allowance()
    before = set(economy.state.values)
    text = economy.operation("bob", "settle", _jti="s", items=[])
    assert economy.apply(text).detail == {"settled": 0, "tokens": 0, "refused": {}}
    assert set(economy.state.values) - before == {"op/bob/s"}


@pytest.mark.parametrize(
    "argument",
    [
        {},
        {"items": {}},
        {"items": [[]]},
        {"items": [["x"]]},
        {"items": [["x", "5"]]},
        {"items": [["x", -1]]},
        {"items": [["x", True]]},
        {"items": [[5, 5]]},
        {"items": [["x", 5, 5]]},
        {"items": ["x"]},
        {"items": [["x", 1]] * (SETTLE_ITEMS_MAX + 1)},
        {"items": [], "skipped": [["a", "l"]]},
        {"items": [], "skipped": [["a", "l", -1]]},
        {"items": [], "skipped": [["hold", "l", 1]]},
        {"items": [], "skipped": [["a", "l", 1]] * (SKIPPED_ITEMS_MAX + 1)},
        {"items": [], "more": 1},
    ],
    ids=lambda argument: str(argument)[:40],
)
def test_arguments_without_their_form(argument: dict[str, Any]) -> None:
    assert Economy().submit("bob", "settle", _arg=argument).code == "bad_argument"


def test_a_batch_as_large_as_may_be() -> None:
    economy = with_allowance()
    detail = settle(economy, *[("x", 1)] * SETTLE_ITEMS_MAX)
    assert len(detail["refused"]) == SETTLE_ITEMS_MAX

"""Private contracts in settlements: judged by their disclosures, replayed without, never half settled."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy, wallet
from tokenmesh_chaincode.documents import conceal, disclose, new_salt, parse_contract, sign
from tokenmesh_chaincode.rules import Context, Outcome, apply, default_policy
from tokenmesh_chaincode.state import MemoryState

DENY_ORDERS = [{"payer": "*", "payee": "bob", "operation": "POST /orders", "effect": "deny"}]


def with_allowance(tokens: int = 50, **policy: Any) -> Economy:
    economy = Economy(("alice", "bob", "carol"), tokens=100, **policy)
    assert economy.submit("alice", "open", id="a", payee="bob", tokens=tokens, exp=START + 600).ok
    economy.now += 10
    return economy


def private(economy: Economy, seq: int, **claims: Any) -> str:
    return economy.private_contract(via="a", lane="l", seq=seq, jti=f"c{seq}", **claims)


def settling(economy: Economy, *texts: str, **more: Any) -> str:
    return economy.operation("bob", "settle", items=[[text, 5] for text in texts], **more)


def copy_of(economy: Economy) -> dict[str, Any]:
    return dict(economy.state.values)


def test_a_private_contract_settles_with_its_disclosure() -> None:
    economy = with_allowance()
    outcome = economy.apply(settling(economy, private(economy, 1), _jti="s"))
    private_part = {"contracts": 1, "forbidden": []}
    assert outcome.detail == {"settled": 1, "tokens": 5, "refused": {}, "private": private_part}
    assert economy.state.values["credit/bob/s"]["tokens"] == 5
    assert economy.accounted() == economy.supply()


def test_a_private_contract_captures_a_hold_as_any_other() -> None:
    economy = Economy(tokens=100)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=8, exp=START + 60)
    detail = economy.apply(settling(economy, economy.private_contract(jti="h"))).detail
    assert (detail["settled"], detail["tokens"]) == (1, 5)
    assert economy.state.values["hold/alice/h"]["state"] == "captured"
    assert economy.accounted() == economy.supply()


def test_private_and_open_contracts_settle_together() -> None:
    economy = with_allowance()
    texts = [economy.contract(via="a", lane="l", seq=1), private(economy, 2), private(economy, 3)]
    detail = economy.apply(settling(economy, *texts)).detail
    assert (detail["settled"], detail["private"]) == (3, {"contracts": 2, "forbidden": []})


@pytest.mark.parametrize("kept", [None, "of another contract", "not a disclosure"])
def test_without_its_disclosure_nothing_happens_and_no_trace_is_left(kept: str | None) -> None:
    """Who carries the operation cannot make another one of it by losing what came beside it."""
    economy = with_allowance()
    open_one, hidden = economy.contract(via="a", lane="l", seq=1), private(economy, 2)
    sd = parse_contract(hidden).body.sd or ""
    whole = dict(economy.disclosures)
    economy.disclosures.clear()
    if kept == "of another contract":
        economy.disclosures[sd] = conceal(economy.contract_body(), new_salt())[1]
    elif kept is not None:
        economy.disclosures[sd] = kept
    before = copy_of(economy)
    text = settling(economy, open_one, hidden)
    outcome = economy.apply(text)
    assert not outcome.ok
    assert outcome.code == ("bad_disclosure" if kept == "not a disclosure" else "undisclosed")
    assert outcome.detail == {"items": [1]}
    assert economy.state.values == before
    economy.disclosures = whole
    assert economy.apply(text).detail["settled"] == 2


def test_done_once_it_needs_no_disclosure_to_be_asked_again() -> None:
    economy = with_allowance()
    text = settling(economy, private(economy, 1))
    first = economy.apply(text)
    economy.disclosures.clear()
    assert economy.apply(text) == first


def test_policy_judges_by_what_is_disclosed() -> None:
    economy = with_allowance(rules=DENY_ORDERS)
    texts = [
        private(economy, 1),
        private(economy, 2, op="POST /orders"),
        economy.contract(via="a", lane="l", seq=3, jti="c3", op="POST /orders"),
    ]
    detail = economy.apply(settling(economy, *texts)).detail
    assert detail["refused"] == {"alice/c2": "forbidden", "alice/c3": "forbidden"}
    assert detail["private"] == {"contracts": 2, "forbidden": [1]}
    assert detail["settled"] == 1


def test_a_settlement_without_private_contracts_says_nothing_of_them() -> None:
    economy = with_allowance()
    assert (
        "private" not in economy.apply(settling(economy, economy.contract(via="a", lane="l", seq=1))).detail
    )


def test_a_disclosure_in_the_settlement_itself_is_no_contract() -> None:
    """What goes to the ledger is public: a payee cannot publish a disclosure there by mistake."""
    economy = with_allowance()
    text = private(economy, 1)
    (disclosure,) = economy.disclosures.values()
    detail = economy.apply(settling(economy, f"{text}~{disclosure}")).detail
    assert detail["refused"] == {"#0": "not_a_contract"}


def replayed(start: dict[str, Any], text: str, now: int, recorded: Outcome | None) -> tuple[Outcome, Any]:
    state = MemoryState(dict(start))
    return apply(state, text, Context(now), recorded=recorded), state.values


def test_a_replay_without_disclosures_comes_to_the_same() -> None:
    economy = with_allowance(rules=DENY_ORDERS)
    hidden = [private(economy, seq, op="POST /orders" if seq % 2 else "GET /a") for seq in range(6)]
    late = private(economy, 0, op="GET /b")
    text = settling(economy, *hidden, late, economy.contract(via="a", lane="l", seq=9))
    before = copy_of(economy)
    recorded = economy.apply(text)
    assert recorded.detail["private"] == {"contracts": 7, "forbidden": [1, 3, 5]}
    outcome, after = replayed(before, text, economy.now, recorded)
    assert outcome == recorded
    assert after == economy.state.values


def test_two_contracts_of_one_id_are_told_apart_in_a_replay() -> None:
    """Of one payer and id, one allowed and one forbidden: the numbers of the items say which."""
    economy = with_allowance(rules=DENY_ORDERS)
    texts = [
        economy.private_contract(via="a", lane="l", seq=seq, jti="twin", op=op)
        for seq, op in enumerate(["GET /a", "POST /orders"])
    ]
    text = settling(economy, *texts)
    before = copy_of(economy)
    recorded = economy.apply(text)
    assert recorded.detail["settled"] == 1
    outcome, after = replayed(before, text, economy.now, recorded)
    assert (outcome, after) == (recorded, economy.state.values)


def test_a_replay_believes_nothing_else_of_what_was_recorded() -> None:
    """A record that pays for a signature that does not hold, or leaves a contract out, shows."""
    economy = with_allowance()
    forged, _ = conceal(economy.contract_body(via="a", lane="l", seq=2), new_salt())
    text = settling(economy, private(economy, 1), sign(forged, wallet("carol")))
    before = copy_of(economy)
    detail = {"settled": 2, "tokens": 10, "refused": {}, "private": {"contracts": 2, "forbidden": []}}
    outcome, _ = replayed(before, text, economy.now, Outcome(True, "ok", detail))
    assert outcome.detail["settled"] == 1
    forbidden = {"contracts": 2, "forbidden": [0, "1", None, True]}
    outcome, _ = replayed(before, text, economy.now, Outcome(True, "ok", {**detail, "private": forbidden}))
    assert outcome.detail["private"] == {"contracts": 2, "forbidden": [0]}


@pytest.mark.parametrize("detail", [{}, {"private": 1}, {"private": {}}, {"private": {"forbidden": 3}}])
def test_a_record_of_no_form_does_not_stop_a_replay(detail: dict[str, Any]) -> None:
    economy = with_allowance()
    text = settling(economy, private(economy, 1))
    outcome, _ = replayed(copy_of(economy), text, economy.now, Outcome(True, "ok", detail))
    assert outcome.detail["settled"] == 1


def test_in_a_replay_a_disclosure_that_is_there_decides_against_the_record() -> None:
    economy = with_allowance(rules=DENY_ORDERS)
    text = settling(economy, private(economy, 1, op="POST /orders"))
    said = Outcome(True, "ok", {"private": {"contracts": 1, "forbidden": []}})
    state = MemoryState(copy_of(economy))
    outcome = apply(state, text, Context(economy.now), disclosures=economy.disclosures, recorded=said)
    assert outcome.detail["private"]["forbidden"] == [0]


def test_who_has_the_disclosure_can_show_whose_it_is() -> None:
    economy = with_allowance()
    body = parse_contract(private(economy, 1)).body
    assert disclose(body, economy.disclosures[body.sd or ""]).op == "GET /quote/{symbol}"


def test_policy_of_before_does_not_ask() -> None:
    """A contract made before the policy could be known is not judged by it, private or not."""
    economy = with_allowance()
    hidden = private(economy, 1, op="POST /orders")
    economy.now += 1
    economy.submit("root", "set_policy", policy={**default_policy(), "rules": DENY_ORDERS})
    detail = economy.apply(settling(economy, hidden)).detail
    assert (detail["settled"], detail["private"]["forbidden"]) == (1, [])

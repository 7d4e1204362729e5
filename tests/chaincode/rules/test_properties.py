"""Whatever wallets ask for, in whatever order: supply is conserved, nothing is negative, ids hold."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.economy import Economy
from tokenmesh_chaincode.rules import NOT_RECORDED, Outcome

SERVICES = ("alice", "bob", "carol")
WALLETS = (*SERVICES, "root")

_wallets = st.sampled_from(WALLETS)
_ids = st.sampled_from(["x", "y", "z"])
_tokens = st.one_of(st.integers(1, 40), st.integers(90, 130), st.just(2**53 - 1))
_seconds = st.integers(-5, 130)
_seqs = st.integers(0, 6)

# A contract, before it is signed: who pays, by what, how much is offered, how much is charged.
_contracts = st.tuples(
    _wallets, st.one_of(_ids, st.just("hold")), _ids, _seqs, st.integers(0, 40), st.integers(0, 45), _seconds
)
_acts = st.one_of(
    st.tuples(st.just("mint"), st.fixed_dictionaries({"tokens": _tokens})),
    st.tuples(st.just("burn"), st.fixed_dictionaries({"tokens": _tokens})),
    st.tuples(
        st.sampled_from(["grant", "transfer"]), st.fixed_dictionaries({"to": _wallets, "tokens": _tokens})
    ),
    st.tuples(
        st.sampled_from(["hold", "open"]),
        st.fixed_dictionaries({"id": _ids, "payee": _wallets, "tokens": _tokens, "exp": _seconds}),
    ),
    st.tuples(st.just("refill"), st.fixed_dictionaries({"id": _ids, "tokens": _tokens})),
    st.tuples(st.just("close"), st.fixed_dictionaries({"id": _ids})),
    st.tuples(st.just("settle"), st.fixed_dictionaries({"items": st.lists(_contracts, max_size=4)})),
    st.tuples(st.just("skip"), st.lists(st.tuples(_ids, st.just("l"), _seqs), max_size=3)),
    st.tuples(
        st.just("void"), st.fixed_dictionaries({"holds": st.lists(st.tuples(_wallets, _ids), max_size=2)})
    ),
    st.tuples(
        st.sampled_from(["expire", "forget"]),
        st.fixed_dictionaries(
            {
                "holds": st.lists(st.tuples(_wallets, _ids), max_size=3),
                "allowances": st.lists(_ids, max_size=3),
            }
        ),
    ),
    st.tuples(st.just("sweep"), st.just({})),
    st.tuples(st.sampled_from(["freeze", "unfreeze"]), st.fixed_dictionaries({"name": _wallets})),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 100, 700])),
)
_steps = st.lists(st.tuples(_wallets, _acts), min_size=1, max_size=25)


def argument_of(economy: Economy, caller: str, act: str, drawn: Any) -> tuple[str, dict[str, Any]]:
    """A drawn step as an operation's argument: times become absolute, contracts are signed."""
    if act == "skip":
        return "settle", {"items": [], "skipped": [list(entry) for entry in drawn]}
    if act == "sweep":
        rows = [key.split("/", 2)[2] for key, _ in economy.state.items(f"credit/{caller}/")]
        return act, {"credits": rows}
    if act == "settle":
        items = []
        for payer, via, jti, seq, tok, charged, seconds in drawn["items"]:
            numbers = {} if via == "hold" else {"lane": "l", "seq": seq}
            exp = economy.now + max(seconds, 1)
            text = economy.contract(payer, caller, via=via, jti=jti, tok=tok, exp=exp, **numbers)
            items.append([text, charged])
        return act, {"items": items}
    if "exp" in drawn:
        return act, {**drawn, "exp": economy.now + drawn["exp"]}
    return act, {
        name: [list(x) if isinstance(x, tuple) else x for x in value] if isinstance(value, list) else value
        for name, value in drawn.items()
    }


def numbers_in(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_in(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    return [value] if isinstance(value, int) else []


def check(economy: Economy) -> None:
    """What must hold of every state."""
    assert economy.accounted() == economy.supply()
    for prefix in ("balance/", "credit/", "hold/", "allowance/", "spent/"):
        for key, record in economy.state.items(prefix):
            assert min(numbers_in(record), default=0) >= 0, key
    for key, spent in economy.state.items("spent/"):
        allowance = economy.state.values[f"allowance/{key.removeprefix('spent/')}"]
        assert spent["tokens"] <= allowance["tokens"]
    for _, hold in economy.state.items("hold/"):
        assert hold["charged"] <= hold["tokens"]


@settings(max_examples=150, deadline=None)
@given(_steps)
def test_supply_is_conserved_and_nothing_is_ever_negative(steps: list[tuple[str, tuple[str, Any]]]) -> None:
    economy = Economy(
        SERVICES, tokens=100, grace_s=20, hold_ttl_s_max=100, allowance_ttl_s_max=100, propagation_s=0
    )
    done: list[tuple[str, Outcome]] = []
    for caller, (act, drawn) in steps:
        if act == "wait":
            economy.now += drawn
            continue
        name, argument = argument_of(economy, caller, act, drawn)
        text = economy.operation(caller, name, _arg=argument)
        before = copy.deepcopy(economy.state.values)
        outcome = economy.apply(text)
        check(economy)
        if outcome.code in NOT_RECORDED:
            assert economy.state.values == before
        else:
            done.append((text, outcome))
        if not outcome.ok:
            changed = {key for key in economy.state.values if economy.state.values[key] != before.get(key)}
            assert all(key.startswith("op/") for key in changed), "a refusal changes nothing but its record"
            assert economy.state.values.keys() >= before.keys()
    after = copy.deepcopy(economy.state.values)
    assert [economy.apply(text) for text, _ in done] == [outcome for _, outcome in done]
    assert economy.state.values == after, "what was done before does nothing when it is asked for again"


@settings(max_examples=60, deadline=None)
@given(_steps)
def test_the_same_operations_give_the_same_state(steps: list[tuple[str, tuple[str, Any]]]) -> None:
    """What every peer relies on: state follows from the texts and the times, and from nothing else."""
    first = Economy(SERVICES, tokens=100)
    second = Economy(SERVICES, tokens=100)
    assert first.domain == second.domain
    for caller, (act, drawn) in steps:
        if act == "wait":
            first.now = second.now = first.now + drawn
            continue
        name, argument = argument_of(first, caller, act, drawn)
        text = first.operation(caller, name, _arg=argument)
        assert first.apply(text) == second.apply(text)
    assert first.state.values == second.state.values


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(_seqs, st.integers(1, 5)), min_size=1, max_size=12), st.randoms())
def test_whatever_is_settled_in_whatever_batches_no_contract_pays_twice(
    numbers: list[tuple[int, int]], random: Any
) -> None:
    economy = Economy(tokens=1000)
    economy.submit("alice", "open", id="x", payee="bob", tokens=500, exp=economy.now + 600)
    signed = {seq: economy.contract(via="x", lane="l", seq=seq, jti=f"c{seq}", tok=5) for seq, _ in numbers}
    for _ in range(4):
        items = [[signed[seq], charged] for seq, charged in numbers]
        random.shuffle(items)
        assert economy.submit("bob", "settle", items=items[: random.randint(0, len(items))]).ok
    spent = economy.state.get("spent/x") or {"tokens": 0, "lanes": {}}
    used = sum(last - first + 1 for ranges in spent["lanes"].values() for first, last in ranges)
    assert used <= len(signed)
    assert spent["tokens"] <= 5 * used
    assert economy.credits("bob") == spent["tokens"]

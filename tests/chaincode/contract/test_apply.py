"""``apply``: a batch of operations in one transaction, judged by the rules and by nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.chaincode_economy import ChaincodeEconomy
from support.economy import START, Economy, wallet
from support.peers import Creator, MemoryPeer, MemoryStub
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract
from tokenmesh_chaincode.documents import canonical, verify_many
from tokenmesh_chaincode.limits import APPLY_OPERATIONS_MAX, TX_TIME_SKEW_S_MAX
from tokenmesh_chaincode.rules import NOT_RECORDED

END = START + 600


@pytest.fixture
def economy() -> ChaincodeEconomy:
    return ChaincodeEconomy(tokens=10_000)


def hold(economy: Economy, hold_id: str, tokens: int = 5, **claims: Any) -> str:
    return economy.operation("alice", "hold", id=hold_id, payee="bob", tokens=tokens, exp=END, **claims)


def simulate(economy: ChaincodeEconomy, *texts: str | bytes, **options: Any) -> tuple[MemoryStub, list[Any]]:
    """Endorse a batch without committing it."""
    economy.results(hold(economy, "first", _jti="first"))  # so that the peer has the economy's state
    stub, answer = economy.peer.simulate("apply", *texts, **options)
    return stub, json.loads(answer)


def test_each_operation_has_its_result_with_the_transaction_that_recorded_it(
    economy: ChaincodeEconomy,
) -> None:
    """Done, refused with a record, turned away without one, done before: in their order."""
    again = hold(economy, "x")
    ((*_, earlier, then),) = economy.results(again)
    economy.now += 10
    done, refused, away, repeated = economy.results(
        hold(economy, "y"), hold(economy, "z", 10**6), "nonsense", again
    )
    assert done == [True, "ok", {"balance": 9_990}, done[3], START + 10]
    assert refused == [False, "insufficient_funds", refused[2], done[3], START + 10]
    assert away == [False, "not_an_operation", away[2], "", START + 10]
    assert repeated == [True, "ok", {"balance": 9_995}, earlier, then]
    assert (then, earlier) != (START + 10, done[3])


def test_operations_of_a_batch_see_what_those_before_them_have_done(economy: ChaincodeEconomy) -> None:
    """Fabric never shows a transaction its own writes; the rules see them all the same."""
    paid = economy.contract(jti="x")
    settle = economy.operation("bob", "settle", _jti="s", items=[[paid, 3]])
    results = economy.results(
        hold(economy, "x"),
        settle,
        settle,
        economy.operation("bob", "sweep", credits=["s"]),
        economy.operation("alice", "sweep", credits=["bob:s"]),
    )
    assert [result[2].get("balance") for result in results] == [9_995, None, None, 10_003, 9_997]
    assert results[1] == results[2]
    assert (economy.balance("bob"), economy.credits("bob"), economy.credits("alice")) == (10_003, 0, 0)


def test_an_operation_that_is_refused_leaves_the_others_alone(economy: ChaincodeEconomy) -> None:
    texts = [hold(economy, f"h{at}", 4_000) for at in range(5)]
    assert [result[1] for result in economy.results(*texts)] == ["ok"] * 2 + ["insufficient_funds"] * 3
    assert economy.balance("alice") == 2_000
    assert economy.accounted() == economy.supply()


def test_a_batch_that_changes_nothing_writes_nothing(economy: ChaincodeEconomy) -> None:
    """So the client need not have it ordered: no result bears this transaction's id."""
    before = hold(economy, "x")
    economy.results(before)
    stub, results = simulate(economy, before, "nonsense", hold(economy, "y", _exp=START - 1))
    assert stub.writes == {}
    assert stub.tx_id not in [result[3] for result in results]


@pytest.mark.parametrize("count", [0, APPLY_OPERATIONS_MAX + 1])
def test_a_batch_of_nothing_or_of_too_much(economy: ChaincodeEconomy, count: int) -> None:
    with pytest.raises(ContractError, match=r"^bad_argument: apply takes 1 to 1000 operations"):
        simulate(economy, *["nonsense"] * count)


def test_the_largest_batch(economy: ChaincodeEconomy) -> None:
    results = economy.results(*(hold(economy, f"h{at}") for at in range(APPLY_OPERATIONS_MAX)))
    assert all(result[0] for result in results)
    assert economy.balance("alice") == 10_000 - 5 * APPLY_OPERATIONS_MAX


@pytest.mark.parametrize(
    ("off", "fine"),
    [
        (-TX_TIME_SKEW_S_MAX, True),
        (TX_TIME_SKEW_S_MAX, True),
        (-TX_TIME_SKEW_S_MAX - 0.01, False),
        (TX_TIME_SKEW_S_MAX + 0.01, False),
    ],
)
def test_who_sends_a_transaction_cannot_choose_its_time(
    economy: ChaincodeEconomy, off: float, fine: bool
) -> None:
    """What has expired stays expired, and nothing expires before its time."""
    text = hold(economy, "x")
    if fine:
        _, ((*_, time),) = simulate(economy, "nonsense", at=START + off)
        assert time == START + off
    else:
        with pytest.raises(ContractError, match=r"^clock_skewed: the proposal is from \d+, and here it is "):
            simulate(economy, text, at=START + off)


def test_the_time_is_cut_to_a_millisecond(economy: ChaincodeEconomy) -> None:
    """What is told is exactly what is kept, whatever the clocks' resolution."""
    _, ((*_, time),) = simulate(economy, "nonsense", at=START + 0.123456)
    assert time == START + 0.123
    stub, _ = simulate(economy, hold(economy, "x", _jti="x"), at=START + 0.5)
    assert json.loads(stub.writes["op/alice/x"] or b"")["time"] == START + 0.5


def test_whoever_carries_it_the_signed_document_decides(economy: ChaincodeEconomy) -> None:
    """An administrator of an organisation gets nothing that the document's signer has no right to."""
    texts = [
        economy.operation("bob", "mint", tokens=5),
        economy.operation("alice", "transfer", signer=wallet("bob"), to="bob", tokens=5),
        hold(economy, "x"),
    ]
    answers = []
    for creator in (Creator(), Creator("ServicesMSP", ("client",)), Creator("OtherMSP", ())):
        _, results = simulate(economy, *texts, by=creator)
        answers.append([result[:3] for result in results])
    assert answers[0] == answers[1] == answers[2]
    assert [result[1] for result in answers[0]] == ["not_governor", "wrong_signer", "ok"]


def test_all_endorsers_come_to_the_same(economy: ChaincodeEconomy) -> None:
    """Response and writes follow from the proposal and the state, byte by byte; clocks may differ."""
    texts = [hold(economy, f"h{at}") for at in range(3)]
    stub, answer = simulate(economy, *texts)
    other = MemoryPeer(TokenmeshContract(lambda: START + 20), lambda: START)
    other.state = economy.peer.state
    again = MemoryStub(other.state, [b"apply", *(text.encode() for text in texts)], START * 10**9, Creator())
    again.tx_id = stub.tx_id
    assert json.loads(TokenmeshContract(lambda: START + 20)(again)) == answer
    assert again.writes == stub.writes


def test_values_are_canonical_json(economy: ChaincodeEconomy) -> None:
    economy.results(hold(economy, "x"), economy.operation("alice", "close", id="none"))
    assert all(canonical(json.loads(value)) == value for value in economy.peer.state.values())


def test_all_that_a_batch_needs_is_fetched_in_two_trips(economy: ChaincodeEconomy) -> None:
    """However many operations there are; and never by a range, which would conflict with everything."""
    for allowance in ("a", "b"):
        economy.submit("alice", "open", id=allowance, payee="bob", tokens=100, exp=END)
    economy.submit("alice", "hold", id="h", payee="bob", tokens=5, exp=END)
    items = [[economy.contract(via=via, lane="l", seq=seq), 1] for via in ("a", "b") for seq in range(20)]
    items.append([economy.contract(jti="h"), 5])
    stub, _ = simulate(
        economy,
        economy.operation("bob", "settle", items=items),
        economy.operation("alice", "refill", id="a", tokens=5),
        economy.operation("alice", "close", id="b"),
        economy.operation("bob", "expire", holds=[["alice", "h"]], allowances=["a", "b"]),
        economy.operation("root", "mint", tokens=5),
        economy.operation("root", "grant", to="bob", tokens=5),
        economy.operation("bob", "sweep", credits=["x", "y"]),
        *(hold(economy, f"h{at}") for at in range(20)),
    )
    assert stub.trips <= 2
    assert stub.ranges == []


def test_a_settlement_does_not_touch_the_payers_balance(economy: ChaincodeEconomy) -> None:
    """While the payer places holds, its payees settle: neither makes the other's transaction invalid."""
    economy.submit("alice", "hold", id="h", payee="bob", tokens=5, exp=END)
    stub, _ = simulate(economy, economy.operation("bob", "settle", items=[[economy.contract(jti="h"), 5]]))
    payers, _ = economy.peer.simulate("apply", hold(economy, "x"))
    assert economy.peer.commit(payers)
    assert economy.peer.commit(stub)


def test_of_two_transactions_with_one_operation_only_one_counts(economy: ChaincodeEconomy) -> None:
    """Endorsed twice before either was committed: the record of the operation makes the second invalid."""
    text = hold(economy, "x")
    first, _ = simulate(economy, text)
    second, _ = economy.peer.simulate("apply", text)
    assert economy.peer.commit(first)
    assert not economy.peer.commit(second)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_any_bytes_get_an_outcome(texts: list[bytes]) -> None:
    economy = ChaincodeEconomy(services=())
    economy.results("nonsense")
    stub, answer = economy.peer.simulate("apply", *texts)
    assert all(not ok and code in NOT_RECORDED for ok, code, *_ in json.loads(answer))
    assert stub.writes == {}


def test_where_no_ledger_has_begun_every_operation_is_turned_away() -> None:
    peer = MemoryPeer(TokenmeshContract(lambda: START), lambda: START)
    stub, answer = peer.simulate("apply", Economy().operation("alice", "sweep", credits=[]))
    assert [result[1] for result in json.loads(answer)] == ["no_domain"]
    assert stub.writes == {}


@pytest.mark.parametrize("function", ["", "init", "Apply", "x" * 1_000])
def test_a_function_that_does_not_exist(function: str) -> None:
    peer = MemoryPeer(TokenmeshContract(lambda: START), lambda: START)
    with pytest.raises(ContractError, match="only genesis, apply, ask") as caught:
        peer.simulate(function)
    assert len(str(caught.value)) < 200


def test_signatures_are_checked_in_one_call_by_what_was_handed_in(economy: ChaincodeEconomy) -> None:
    """So an endorser can use every processor; and what was done before costs one signature, not all again."""
    asked: list[int] = []

    def counting(pairs: Any) -> list[bool]:
        asked.append(len(pairs))
        return verify_many(pairs)

    for at in range(3):
        economy.submit("alice", "hold", id=f"h{at}", payee="bob", tokens=5, exp=END)
    items = [[economy.contract(jti=f"h{at}"), 5] for at in range(3)]
    settle = economy.operation("bob", "settle", items=items).encode()
    texts = [settle, hold(economy, "x").encode(), b"nonsense"]
    chaincode = TokenmeshContract(lambda: START, verify_many=counting)
    stub = MemoryStub(economy.peer.state, [b"apply", *texts], START * 10**9, Creator())
    assert [result[1] for result in json.loads(chaincode(stub))] == ["ok", "ok", "not_an_operation"]
    assert asked == [5]
    assert economy.peer.commit(stub)
    chaincode(MemoryStub(economy.peer.state, [b"apply", settle], START * 10**9, Creator()))
    assert asked == [5, 0]

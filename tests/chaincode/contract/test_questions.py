"""``ask``: every question about the state, answered as the state is, within bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chaincode_economy import ChaincodeEconomy
from support.economy import START, Economy
from support.peers import MemoryPeer
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract, questions, scan
from tokenmesh_chaincode.documents import canonical
from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX, SWEEP_ITEMS_MAX

END = START + 600
OVER = END + 300
FORGOTTEN = OVER + 601


@pytest.fixture
def economy() -> ChaincodeEconomy:
    return ChaincodeEconomy(("alice", "bob", "carol"), tokens=10_000)


def hold(economy: Economy, hold_id: str, tokens: int = 5, exp: int = END) -> None:
    assert economy.submit("alice", "hold", id=hold_id, payee="bob", tokens=tokens, exp=exp).ok


def allowance(economy: Economy, name: str, tokens: int = 100, payee: str = "bob", exp: int = END) -> None:
    assert economy.submit("alice", "open", id=name, payee=payee, tokens=tokens, exp=exp).ok


def all_pages(economy: ChaincodeEconomy, question: str, *arguments: Any) -> list[Any]:
    """What all pages of an answer have together."""
    items, cursor = [], ""
    while True:
        page = economy.ask(question, *arguments, cursor)
        items += page["items"]
        cursor = page["next"]
        if not cursor:
            return items


def test_the_domain_its_policy_and_its_wallets(economy: ChaincodeEconomy) -> None:
    assert economy.ask("domain") == economy.domain
    assert economy.ask("policy") == economy.state.values["policy"]
    assert economy.ask("wallet", "nobody") is None
    found = economy.ask("wallet", "root")
    record = economy.state.values["wallet/root"]
    assert found.pop("certificates") == record["certs"]
    assert found == {name: value for name, value in record.items() if name != "certs"}
    assert [one["name"] for one in all_pages(economy, "wallets")] == ["alice", "bob", "carol", "root"]


def test_before_a_ledger_has_begun_there_is_nothing() -> None:
    peer = MemoryPeer(TokenmeshContract(lambda: START), lambda: START)
    expected = {
        "domain": "",
        "policy": {},
        "wallets": {"items": [], "next": ""},
        "supply": {"minted": 0, "burned": 0, "accounted": 0},
    }
    for question, answer in expected.items():
        assert json.loads(peer.simulate("ask", question, "[]")[1]) == answer


def test_a_balance_is_made_of_four_parts(economy: ChaincodeEconomy) -> None:
    hold(economy, "h", 7)
    hold(economy, "i", 8)
    allowance(economy, "a", 100)
    economy.submit("bob", "settle", items=[[economy.contract(via="a", lane="l", seq=0), 4]])
    economy.submit("bob", "void", holds=[["alice", "i"]])
    assert economy.ask("balance", "alice") == {"spendable": 9_885, "credits": 8, "held": 7, "allowed": 96}
    assert economy.ask("balance", "bob") == {"spendable": 10_000, "credits": 4, "held": 0, "allowed": 0}
    assert economy.ask("balance", "nobody") == {"spendable": 0, "credits": 0, "held": 0, "allowed": 0}


def test_a_name_that_begins_like_another_is_another(economy: ChaincodeEconomy) -> None:
    """``alice`` and ``alice-2``, ``alice.2``, ``alice0``: ranges end where the name does."""
    others = ("alice-2", "alice.2", "alice0")
    economy = ChaincodeEconomy(("alice", "bob", *others), tokens=100)
    for name in others:
        assert economy.submit(name, "hold", id="h", payee="bob", tokens=5, exp=END).ok
        assert economy.submit(name, "transfer", to="bob" if name == "alice0" else "alice0", tokens=1).ok
    assert economy.ask("balance", "alice") == {"spendable": 100, "credits": 0, "held": 0, "allowed": 0}
    assert economy.ask("expirable", OVER, 10, "alice")["holds"] == []
    assert economy.ask("credits", "alice", 10) == []


def test_credits_as_a_sweep_takes_them(economy: ChaincodeEconomy) -> None:
    for at in range(3):
        economy.submit("root" if at else "carol", "transfer", _jti=f"t{at}", to="bob", tokens=at + 1)
    found = economy.ask("credits", "bob", 10)
    assert found == [{"id": "carol:t0", "tokens": 1}]  # the others had nothing to give
    assert economy.submit("bob", "sweep", credits=[row["id"] for row in found]).detail["swept"] == 1


def test_one_hold_and_one_allowance(economy: ChaincodeEconomy) -> None:
    hold(economy, "h", 7)
    allowance(economy, "a")
    assert economy.ask("hold", "alice", "h") == {"id": "h", **economy.state.values["hold/alice/h"]}
    expected = {"id": "a", "spent": 0, "lanes": {}, **economy.state.values["allowance/a"]}
    assert economy.ask("allowance", "a") == expected
    economy.submit("bob", "settle", items=[[economy.contract(via="a", lane="l", seq=3), 4]])
    assert economy.ask("allowance", "a") == {**expected, "spent": 4, "lanes": {"l": [[3, 3]]}}
    assert economy.ask("hold", "bob", "h") is None
    assert economy.ask("allowance", "h") is None


def test_allowances_that_have_not_ended(economy: ChaincodeEconomy) -> None:
    allowance(economy, "a", payee="bob")
    allowance(economy, "b", payee="carol")
    allowance(economy, "c", payee="bob", exp=START + 10)
    hold(economy, "h")
    economy.now = START + 320
    assert economy.submit("bob", "expire", allowances=["c"]).detail["allowances"] == 1
    assert [one["id"] for one in all_pages(economy, "allowances", "alice", None)] == ["a", "b"]
    assert [one["id"] for one in all_pages(economy, "allowances", "alice", "carol")] == ["b"]
    assert all_pages(economy, "allowances", "bob", None) == []


def test_proposals_that_can_still_be_approved() -> None:
    economy = ChaincodeEconomy(governors=("root", "second"), threshold=2)
    for name in ("p", "q", "r"):
        assert economy.submit("root", "propose", _jti=name, _arg={"act": "mint", "arg": {"tokens": 5}}).ok
    assert economy.submit("second", "approve", proposal="q").ok
    found = all_pages(economy, "proposals", START)
    assert [one["id"] for one in found] == ["p", "r"]
    assert found[0] == {
        "id": "p",
        "act": "mint",
        "arg": {"tokens": 5},
        "by": "root",
        "approved": ["root"],
        "exp": found[0]["exp"],
    }
    assert all_pages(economy, "proposals", found[0]["exp"]) == []


def test_what_can_be_expired_and_what_forgotten(economy: ChaincodeEconomy) -> None:
    hold(economy, "h")
    hold(economy, "later", exp=END + 1_000)
    allowance(economy, "a")
    empty = {"holds": [], "allowances": [], "next": ""}
    assert economy.ask("expirable", OVER - 1, 10, None) == empty
    assert economy.ask("expirable", OVER, 10, "bob") == empty
    found = economy.ask("expirable", OVER, 10, None)
    assert found == economy.ask("expirable", OVER, 10, "alice")
    assert found == {"holds": [["alice", "h"]], "allowances": ["a"], "next": ""}
    economy.now = OVER
    del found["next"]
    assert economy.submit("bob", "expire", _arg=found).detail["tokens"] == 105
    assert economy.ask("expirable", OVER, 10, None) == empty
    past = economy.ask("forgettable", FORGOTTEN, 100)
    assert past.pop("next") == ""
    assert (past["holds"], past["allowances"]) == ([["alice", "h"]], ["a"])
    economy.now = FORGOTTEN
    outcome = economy.submit("bob", "forget", _arg=past)
    assert (outcome.detail["kept"], outcome.detail["forgotten"]) == (0, 5)
    assert [key for key in economy.peer.state if "/a" in key and "/alice" not in key] == []


def test_a_closed_allowance_can_be_forgotten_only_when_its_expiry_is_past(economy: ChaincodeEconomy) -> None:
    """``forget`` would keep it, so nobody is sent to ask for it again and again."""
    allowance(economy, "a")
    economy.submit("alice", "close", id="a")
    economy.now = START + 300
    assert economy.submit("bob", "expire", allowances=["a"]).detail["allowances"] == 1
    assert economy.ask("forgettable", FORGOTTEN - 1, 100)["allowances"] == []
    assert economy.ask("forgettable", FORGOTTEN, 100)["allowances"] == ["a"]


def test_supply_accounts_for_every_token(economy: ChaincodeEconomy) -> None:
    economy.submit("root", "mint", tokens=50)
    economy.submit("alice", "burn", tokens=7)
    hold(economy, "h", 9)
    allowance(economy, "a", 100)
    economy.submit("bob", "settle", items=[[economy.contract(via="a", lane="l", seq=0), 4]])
    assert economy.ask("supply") == {"minted": 30_050, "burned": 7, "accounted": 30_043}


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.sampled_from("hijk"), st.integers(1, 9)),
        st.tuples(st.just("open"), st.sampled_from("abc"), st.integers(1, 50)),
        st.tuples(st.just("refill"), st.sampled_from("abc"), st.integers(1, 9)),
        st.tuples(st.just("close"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("capture"), st.sampled_from("hijk"), st.integers(0, 9)),
        st.tuples(st.just("settle"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("void"), st.sampled_from("hijk"), st.just(0)),
        st.tuples(st.just("expire"), st.sampled_from("hijkabc"), st.just(0)),
        st.tuples(st.just("forget"), st.sampled_from("hijkabc"), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from([10, 400, 1_000])),
    ),
    min_size=1,
    max_size=20,
)


def operation(economy: Economy, act: str, name: str, number: int, at: int) -> str:
    until = economy.now + 60
    if act in ("hold", "open"):
        return economy.operation("alice", act, id=name, payee="bob", tokens=number, exp=until)
    if act == "refill":
        return economy.operation("alice", act, id=name, tokens=number)
    if act == "close":
        return economy.operation("alice", act, id=name)
    if act in ("capture", "settle"):
        by: dict[str, Any] = {"jti": name} if act == "capture" else {"via": name, "lane": "l", "seq": at}
        text = economy.contract(tok=9, exp=economy.now + 30, **by)
        return economy.operation("bob", "settle", items=[[text, number]])
    if act == "void":
        return economy.operation("bob", act, holds=[["alice", name]])
    return economy.operation("bob", act, holds=[["alice", name]], allowances=[name])


@settings(max_examples=60, deadline=None)
@given(_steps, st.integers(1, 4))
def test_the_index_says_what_the_records_say(steps: list[tuple[str, str, int]], batch: int) -> None:
    """Whatever happens, in whatever batches: sums by the index are the sums of the records themselves."""
    economy = ChaincodeEconomy(tokens=500)
    texts: list[str] = []
    for at, (act, name, number) in enumerate(steps):
        if act != "wait":
            texts.append(operation(economy, act, name, number, at))
        if texts and (len(texts) == batch or act == "wait" or at == len(steps) - 1):
            economy.results(*texts)
            texts = []
        if act == "wait":
            economy.now += number
    assert economy.ask("supply")["accounted"] == economy.accounted() == 1_000
    held = {key: row for key, row in economy.state.items("hold/") if row["state"] == "open"}
    balance = economy.ask("balance", "alice")
    assert balance["held"] == sum(row["tokens"] for row in held.values())
    open_still = [key.partition("/")[2] for key, row in economy.state.items("allowance/") if not row["ended"]]
    assert [one["id"] for one in all_pages(economy, "allowances", "alice", None)] == open_still
    far = economy.ask("expirable", economy.now + 10**6, 100, None)
    assert far["allowances"] == open_still
    assert [f"hold/{payer}/{name}" for payer, name in far["holds"]] == list(held)


def test_pages_of_wallets_and_allowances(economy: ChaincodeEconomy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past LISTED_MAX there is a next page, and all pages together are everything, once."""
    for at in range(7):
        allowance(economy, f"a{at}", payee="carol" if at % 3 == 0 else "bob")
    monkeypatch.setattr(questions, "LISTED_MAX", 2)
    monkeypatch.setattr(scan, "PAGE_ROWS", 3)
    for question, arguments in (("wallets", ()), ("allowances", ("alice", None))):
        first = economy.ask(question, *arguments)
        assert len(first["items"]) == 2
        assert first["next"]
    assert [one["name"] for one in all_pages(economy, "wallets")] == ["alice", "bob", "carol", "root"]
    assert [one["id"] for one in all_pages(economy, "allowances", "alice", "carol")] == ["a0", "a3", "a6"]


def test_going_round_what_is_over_in_bounded_stretches(
    economy: ChaincodeEconomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No question looks at more than SCANNED_MAX rows; with ``next`` as the cursor nothing is left out."""
    for at in range(9):
        hold(economy, f"h{at}", exp=START + (1_000 if at < 4 else 10))
    monkeypatch.setattr(questions, "SCANNED_MAX", 4)
    first = economy.ask("expirable", OVER, 100, None)
    assert (first["holds"], first["next"]) == ([], "open/alice/hold/h4")
    second = economy.ask("expirable", OVER, 100, None, first["next"])
    assert [name for _, name in second["holds"]] == ["h4", "h5", "h6", "h7"]
    third = economy.ask("expirable", OVER, 100, None, second["next"])
    assert ([name for _, name in third["holds"]], third["next"]) == (["h8"], "")
    found, cursor, rounds = [], "", 0
    while cursor or not rounds:
        answer = economy.ask("forgettable", FORGOTTEN, 100, cursor)
        found += answer["operations"]
        cursor, rounds = answer["next"], rounds + 1
    assert len(found) == 9
    assert rounds > 3


@pytest.mark.parametrize(
    ("question", "arguments", "limit"),
    [
        ("expirable", (OVER, 10**9, None), EXPIRE_ITEMS_MAX),
        ("forgettable", (FORGOTTEN, 10**9), FORGET_ITEMS_MAX),
        ("credits", ("bob", 10**9), SWEEP_ITEMS_MAX),
    ],
)
def test_no_answer_is_longer_than_an_operation_may_be(
    economy: ChaincodeEconomy, question: str, arguments: tuple[Any, ...], limit: int
) -> None:
    values = economy.state.values
    for at in range(limit + 5):
        values[f"credit/bob/c{at}"] = {"tokens": 1}
        values[f"op/alice/o{at}"] = {"exp": START, "digest": "", "outcome": {}}
    for part in range(5):
        size = limit // 5 + 1
        economy.results(
            *(
                economy.operation("alice", "hold", id=f"h{part}-{at}", payee="bob", tokens=1, exp=END)
                for at in range(size)
            )
        )
    answer = economy.ask(question, *arguments)
    found = answer if isinstance(answer, list) else [one for part in answer.values() for one in part]
    listed = [one for one in found if isinstance(one, (list, dict))]
    assert len(listed) == limit


@pytest.mark.parametrize(
    "parameters",
    [
        [],
        ["wallet"],
        ["wallet", '["alice"]', "[]"],
        ["nothing", "[]"],
        ["wallet", "nonsense"],
        ["wallet", "{}"],
        ["wallet", "[" * 4_000],
        ["wallet", '["' + "x" * 5_000 + '"]'],
        ["wallet", "[]"],
        ["wallet", '["alice","bob"]'],
        ["wallet", "[5]"],
        ["wallet", '["../root"]'],
        ["hold", '["alice","a/b"]'],
        ["credits", '["alice",-1]'],
        ["credits", '["alice",true]'],
        ["expirable", "[1.5,1,null]"],
        ["expirable", "[-1,1,null]"],
        ["expirable", "[1,1]"],
        ["wallets", "[5]"],
        ["wallets", '["' + "x" * 300 + '"]'],
        ["allowances", '["alice",""]'],
        [b"\xff", "[]"],
    ],
)
def test_a_question_without_its_form(parameters: list[Any]) -> None:
    peer = MemoryPeer(TokenmeshContract(lambda: START), lambda: START)
    with pytest.raises(ContractError, match=r"^bad_argument: ") as caught:
        peer.simulate("ask", *parameters)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("cursor", ["", "z", "wallet/", "wallet/b", "\uffff", "allowance/zz", "op/zzz/"])
@pytest.mark.parametrize("question", ["wallets", "forgettable"])
def test_a_cursor_leads_nowhere_else(economy: ChaincodeEconomy, question: str, cursor: str) -> None:
    """Whatever stands in it, only rows of the question's own kind are looked at."""
    hold(economy, "h")
    arguments: list[Any] = [] if question == "wallets" else [FORGOTTEN * 2, 100]
    answer = economy.ask(question, *arguments, cursor)
    whole = economy.ask(question, *arguments)
    for kind, items in whole.items():
        assert kind == "next" or all(item in items for item in answer[kind])


def test_questions_write_nothing_and_are_not_bound_to_the_time(economy: ChaincodeEconomy) -> None:
    """An old proposal may ask: what is answered is the state, whatever the time."""
    economy.ask("policy")
    stub, answer = economy.peer.simulate("ask", "balance", canonical(["alice"]), at=START - 10_000)
    assert json.loads(answer)["spendable"] == 10_000
    assert stub.writes == {}

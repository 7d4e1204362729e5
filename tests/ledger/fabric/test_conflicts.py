"""Conflict keys: two operations of which one writes what the other reads have one in common."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from itertools import combinations

import pytest

from support.economy import Economy, wallet
from tokenmesh.ledger.fabric.conflicts import ENFORCE, GOVERNANCE, conflict_keys
from tokenmesh_chaincode.documents import parse_contract
from tokenmesh_chaincode.rules import ACTS, default_policy

EXPIRED_S = 10**6
READ_BY_ALL = ("domain", "policy", "governors", "wallet/")
"""Only governance writes these; whatever meets it on the way is tried again."""
SWEPT = "credit/"
"""Known to the one who sweeps it only once the operation that made it is done."""


class Recorded(Economy):
    """An economy that notes, of each operation, its act, its keys, and what the rules read and wrote."""

    def __init__(self, **options):
        super().__init__(**options)
        self.done: list[tuple[str, frozenset[str], set[str], set[str]]] = []
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        state = self.state
        self.state = self
        self.get = lambda key: (self.reads.add(key), state.get(key))[1]
        self.put = lambda key, value: (self.writes.add(key), state.put(key, value))[1]
        self.delete = lambda key: (self.writes.add(key), state.delete(key))[1]

    def do(self, caller, act, /, **claims):
        text = self.operation(caller, act, **claims)
        self.reads, self.writes = set(), set()
        outcome = self.apply(text)
        assert outcome.ok, outcome
        self.done.append((act, conflict_keys(text), self.reads, self.writes))
        return outcome.detail


@pytest.fixture(scope="module")
def everything() -> Recorded:
    """Each act at least once, done for real."""
    all_ = Recorded(tokens=1_000, governors=("root", "second"))
    exp = all_.now + 300
    all_.do("root", "mint", tokens=100)
    credit = all_.do("root", "grant", to="alice", tokens=10)["credit"]
    all_.do("alice", "sweep", credits=[credit])
    all_.do("alice", "transfer", to="bob", tokens=10)
    all_.do("bob", "burn", tokens=5)
    for name in ("h1", "h2", "h3"):
        all_.do("alice", "hold", id=name, payee="bob", tokens=5, exp=exp)
    all_.do("alice", "holds", holds=[["h4", "bob", 5, exp], ["h5", "bob", 5, exp]])
    for name in ("allowance-1", "allowance-2", "allowance-3"):
        all_.do("alice", "open", id=name, payee="bob", tokens=50, exp=exp)
    all_.do("alice", "refill", id="allowance-1", tokens=5)
    by_hold = all_.contract(jti="h1")
    by_allowance = all_.contract(via="allowance-1", lane="l", seq=0)
    all_.do("bob", "settle", items=[[by_hold, 5], [by_allowance, 5]])
    by_other = all_.contract(via="allowance-2", lane="l", seq=0)
    all_.do("bob", "settle", items=[[by_other, 5]], skipped=[["allowance-3", "l", 0]])
    all_.do("bob", "void", holds=[["alice", "h2"], ["alice", "h4"]])
    all_.do("alice", "close", id="allowance-1")
    all_.do("alice", "update", name="alice", url="http://127.0.0.1:1")
    frozen = all_.do("root", "freeze", name="alice")
    all_.do("root", "enforce", **frozen["enforce"])
    all_.do("root", "unfreeze", name="alice")
    set_policy = all_.do("root", "set_policy", policy={**default_policy(), "threshold": 2})
    all_.do("root", "enforce", **set_policy["enforce"])
    proposal = all_.do("root", "propose", act="mint", arg={"tokens": 5})["proposal"]
    all_.do("second", "approve", proposal=proposal)
    all_.now += EXPIRED_S
    all_.do("bob", "expire", holds=[["alice", "h3"]], allowances=["allowance-3"])
    first = parse_contract(by_hold).body.jti
    all_.do(
        "bob",
        "forget",
        holds=[["alice", first]],
        allowances=["allowance-3"],
        operations=[["alice", "nothing"]],
        proposals=[proposal],
    )
    return all_


def test_the_economy_has_done_nearly_every_act(everything):
    """Left out are those that change a wallet's certificates or roll: governance, as others here."""
    left_out = set(ACTS) - {act for act, *_ in everything.done}
    assert left_out <= {"register", "rotate", "revoke"}


def test_who_writes_what_another_reads_has_a_key_in_common_with_it(everything):
    for (act, keys, reads, writes), (other, other_keys, other_reads, other_writes) in combinations(
        everything.done, 2
    ):
        meets = (writes & (other_reads | other_writes)) | (other_writes & reads)
        meets = {key for key in meets if not key.startswith((*READ_BY_ALL, SWEPT))}
        assert not meets or keys & other_keys, f"{act} and {other} meet at {meets}"


def test_what_only_governance_writes_is_written_with_its_key(everything):
    for act, keys, _, writes in everything.done:
        if any(key.startswith(READ_BY_ALL) for key in writes):
            assert GOVERNANCE in keys, act


def test_what_has_nothing_to_do_with_each_other_has_no_key_in_common():
    """Two payers; one payee's settlements of two allowances; holds and the settlement of other holds."""
    economy = Economy(("alice", "bob", "carol"))
    keys = [
        conflict_keys(economy.operation(caller, act, **argument))
        for caller, act, argument in [
            ("alice", "hold", {"id": "1", "payee": "bob", "tokens": 1, "exp": 1}),
            ("carol", "transfer", {"to": "alice", "tokens": 1}),
            ("bob", "settle", {"items": [[economy.contract(via="one", lane="l", seq=0), 1]]}),
            ("bob", "settle", {"items": [[economy.contract(via="two", lane="l", seq=0), 1]]}),
            ("bob", "settle", {"items": [[economy.contract(jti="2"), 1]]}),
            ("bob", "void", {"holds": [["alice", "3"]]}),
            ("root", "freeze", {"name": "alice"}),
        ]
    ]
    for one, other in combinations(keys, 2):
        assert not one & other


def test_what_a_contract_says_in_a_string_is_not_taken_for_a_claim():
    """An operation's name may look like one; and blanks may stand where JSON allows them."""
    economy = Economy()
    tricky = economy.contract(via="right", op='GET "via":"wrong"', lane="l", seq=0)
    keys = conflict_keys(economy.operation("bob", "settle", items=[[tricky, 1]]))
    assert "allowance/right" in keys
    assert not any("wrong" in key for key in keys)
    spaced = urlsafe_b64encode(b'{ "via" : "hold" , "iss" : "alice", "jti":\t"h" }').decode()
    assert "hold/alice/h" in conflict_keys(economy.operation("bob", "settle", items=[[f"x.{spaced}.y", 1]]))


def test_copies_of_an_operation_keep_together():
    text = Economy().operation("bob", "void", holds=[])
    assert conflict_keys(text) & conflict_keys(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "a.b.c",
        "a.W10.c",
        "a.bnVsbA.c",
        "\ud800.\ud800",
        "[" * 100_000,
        "a." + "W1tb" * 50_000,
    ],
)
def test_a_text_that_is_no_operation_has_no_keys(text):
    """Whatever it is: the rules will say so, and it is in nobody's way."""
    assert conflict_keys(text) == frozenset()


def test_arguments_of_any_shape_are_read_without_an_error():
    """What the rules will refuse still has to travel to them."""
    economy = Economy()
    for argument in (
        {"items": 5},
        {"items": [5, [], [5], [[]], ["x"]], "skipped": [5, [], {}]},
        {"holds": {}, "operations": [5, None, [1, 2, 3]], "allowances": 7, "proposals": "x"},
        {"id": {"a": []}},
    ):
        for act in ("settle", "void", "expire", "forget", "hold", "holds", "open", "nothing"):
            assert conflict_keys(economy.operation("alice", act, _arg=argument, signer=wallet("alice")))


def test_the_operation_whose_time_counts_is_told_from_others():
    economy = Economy()
    for act, argument in (("enforce", {"policy": 2}), ("freeze", {"name": "alice"}), ("hold", {"id": "1"})):
        assert (ENFORCE in conflict_keys(economy.operation("root", act, **argument))) == (act == "enforce")

"""What is read ahead of an operation: the keys that the rules ask for are the keys that were forecast."""

from __future__ import annotations

from typing import Any

import pytest

from support.economy import START, Economy, wallet
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.prepared import Prepared, apply_prepared, keys_read, keys_read_next
from tokenmesh_chaincode.rules import ACTS, Context, Outcome
from tokenmesh_chaincode.state import MemoryState, Value

END = START + 600


class Watched(MemoryState):
    """Notes which keys are read."""

    def __init__(self, values: dict[str, Value]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str) -> Value | None:
        self.asked.add(key)
        return super().get(key)


class Watching(Economy):
    """An economy that compares, operation by operation, what was forecast with what was read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tokens=1_000, **options)
        self.surprises: dict[str, set[str]] = {}
        self.needless: dict[str, set[str]] = {}

    def apply(self, text: str) -> Outcome:
        one = Prepared(text)
        forecast = {*keys_read(one), *keys_read_next(one, self.state)}
        watched = Watched(self.state.values)
        outcome = apply_prepared(watched, one, Context(self.now))
        assert one.signed is not None
        act = one.signed.body.act
        self.surprises.setdefault(act, set()).update(watched.asked - forecast)
        self.needless.setdefault(act, set()).update(forecast - watched.asked)
        return outcome


def live(economy: Economy) -> None:
    """A life with every act in it, each ending well at least once."""

    def do(caller: str, act: str, /, **argument: Any) -> None:
        outcome = economy.submit(caller, act, **argument)
        assert outcome.ok, outcome

    do("root", "mint", tokens=50)
    do("root", "burn", tokens=5)
    do("root", "grant", to="alice", tokens=5)
    do("alice", "transfer", to="bob", tokens=5)
    rows = [key.split("/", 2)[2] for key, _ in economy.state.items("credit/bob/")]
    do("bob", "sweep", credits=[*rows, "gone"])
    for hold in ("h", "i", "j"):
        do("alice", "hold", id=hold, payee="bob", tokens=5, exp=START + 60)
    do("alice", "holds", holds=[["k", "bob", 5, START + 60], ["l", "carol", 5, START + 60]])
    do("bob", "void", holds=[["alice", "i"], ["alice", "gone"]])
    for allowance in ("a", "b"):
        do("alice", "open", id=allowance, payee="bob", tokens=50, exp=END)
    do("alice", "refill", id="a", tokens=5)
    items = [
        [economy.contract(jti="h", exp=START + 50), 3],
        *([economy.contract(via="a", lane="l", seq=seq), 5] for seq in range(3)),
    ]
    do("bob", "settle", items=items, skipped=[["b", "l", 0], ["gone", "l", 0]])
    do("alice", "close", id="a")
    economy.now = END + 300
    do("bob", "expire", holds=[["alice", "j"]], allowances=["a", "b", "gone"])
    economy.now = END + 2_000
    do(
        "bob",
        "forget",
        holds=[["alice", "h"]],
        allowances=["a"],
        operations=[["bob", "gone"]],
        proposals=["x"],
    )
    do("root", "register", name="dave", cert=wallet("dave").pem, role="service")
    do("alice", "update", name="alice", url="http://alice")
    do("alice", "rotate", name="alice", cert=wallet("alice").pem)
    do("root", "revoke", name="bob", x5t=wallet("bob").x5t)
    do("root", "freeze", name="alice")
    do("root", "enforce", frozen=["alice", economy.now], revoked=["bob", wallet("bob").x5t])
    do("root", "unfreeze", name="alice")
    policy = {**economy.state.values["policy"], "threshold": 2}
    do("root", "set_policy", policy=policy)
    proposal = new_id()
    do("root", "propose", _jti=proposal, act="mint", arg={"tokens": 5})
    do("second", "approve", proposal=proposal)


def test_what_the_rules_read_was_forecast() -> None:
    """But for what governors do now and then, nothing is asked for one key at a time."""
    economy = Watching(services=("alice", "bob", "carol"), governors=("root", "second"))
    live(economy)
    assert economy.surprises.keys() == ACTS.keys()
    rare = {
        "register",
        "update",
        "rotate",
        "freeze",
        "unfreeze",
        "revoke",
        "set_policy",
        "enforce",
        "propose",
        "approve",
    }
    assert {act: keys for act, keys in economy.surprises.items() if keys and act not in rare} == {}


def test_what_others_write_is_not_read_for_nothing() -> None:
    """On Fabric a key that was read and is written meanwhile costs the transaction: none is read in vain."""
    economy = Watching(services=("alice", "bob", "carol"), governors=("root", "second"))
    live(economy)
    needless = {key for keys in economy.needless.values() for key in keys}
    assert not {key for key in needless if key.startswith(("balance/", "wallet/", "hold/"))}


STRANGE: list[dict[str, Any]] = [
    {"items": "x", "skipped": 5},
    {"items": [["nonsense", 5], [5], [], None], "skipped": [[], [5], None]},
    {"items": [["x", 5]] * 2_001},
    {"holds": [["h", "bob", 5, 2_000_000_000, 1], ["h", "bob", "5", 1], [["h"], "bob", 5, 1]]},
    {"holds": 5, "allowances": None, "operations": [["a"]], "proposals": [[]], "credits": [5]},
    {"holds": [["a", "b", "c"]], "credits": ["\u0000", "a/b"], "operations": [["alice", "../x"]]},
    {"holds": [["alice", "h"]] * 1_001, "credits": ["x"] * 1_001},
    {"id": "a/b", "payee": "../root", "to": 5, "name": None, "proposal": {}},
    {"id": "\u0000", "payee": ["a"], "to": "A", "name": "x" * 64, "proposal": "x" * 65},
]


@pytest.mark.parametrize("act", sorted(ACTS))
@pytest.mark.parametrize("argument", STRANGE, ids=range(len(STRANGE)))
def test_an_argument_without_its_form_names_no_key(act: str, argument: dict[str, Any]) -> None:
    economy = Economy()
    one = Prepared(economy.operation("alice", act, _jti="x", _arg=argument))
    own = {"domain", "policy", "governors", "wallet/alice", "op/alice/x", "balance/alice"}
    own |= {"supply/alice/x", "proposal/x", "credit/alice/x"}
    assert {*keys_read(one), *keys_read_next(one, economy.state)} <= own


def test_a_text_that_is_no_operation_reads_nothing() -> None:
    one = Prepared("nonsense")
    assert [*keys_read(one), *keys_read_next(one, MemoryState())] == []

"""The rules as the chaincode receives them: any bytes as arguments, any time, any caller; and operations that
their owners have signed, with anything in them.

Either the whole transaction is refused by an error of the contract's, and nothing is written; or there is an
outcome for each operation, one that is refused changes nothing but its own record, and every token is
accounted for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Final

from fuzz.chance import Chance
from fuzz.spoiling import spoilt
from fuzz.target import Target

from support.chaincode_economy import INDEX, ChaincodeEconomy, first_document
from support.economy import Authority, wallet
from support.peers import Creator, MemoryPeer
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.rules import ACTS, MEANING, NOT_RECORDED, Context, apply, default_policy
from tokenmesh_chaincode.state import MemoryState

TYP: Final = "tokenmesh-operation+jwt"
CALLERS: Final = ("alice", "bob", "root", "root-2", "stranger")
GOVERNING: Final = frozenset(name for name, act in ACTS.items() if act.governors_only)
QUESTIONS: Final = (
    "domain",
    "policy",
    "wallet",
    "wallets",
    "balance",
    "credits",
    "hold",
    "allowance",
    "allowances",
    "proposals",
    "expirable",
    "forgettable",
    "disclosures",
    "supply",
)
FUNCTIONS: Final = ("apply", "apply", "apply", "ask", "genesis", "", "Apply", "__init__", "\x00")


class Rules(Target):
    name: ClassVar[str] = "rules"
    share: ClassVar[int] = 90

    def __init__(self, directory: Path) -> None:
        self.economy = economy = ChaincodeEconomy(governors=("root", "root-2"), tokens=1_000)
        allowance = {"id": "allowance-1", "payee": "bob", "tokens": 500, "exp": economy.now + 3_000}
        assert economy.submit("alice", "open", **allowance).ok
        assert economy.submit("alice", "hold", id="hold-1", payee="bob", tokens=50, exp=economy.now + 300).ok
        assert economy.submit("root", "mint", tokens=100).ok
        assert economy.submit("root", "grant", to="alice", tokens=40).ok
        self.done = economy.operation("alice", "transfer", to="bob", tokens=7)
        assert economy.apply(self.done).ok
        self.peer = economy.peer
        self.state = dict(self.peer.state)
        self.new_certificate = Authority().wallet("alice").pem

    def one(self, chance: Chance) -> None:
        way = chance.below(8)
        if way == 0:
            self.engine(chance)
        elif way == 1:
            self.submit(chance, chance.pick(FUNCTIONS), [chance.bytes(60) for _ in range(chance.below(4))])
        elif way == 2:
            self.submit(chance, "genesis", [chance.spoil(first_document())])
        elif way == 3:
            question = chance.pick((*QUESTIONS, chance.text())).encode("utf-8", "replace")
            arguments = json.dumps([chance.value() for _ in range(chance.below(5))]).encode()
            self.submit(chance, "ask", [question, chance.spoil(arguments) if chance.one_in(4) else arguments])
        else:
            texts = [self.operation(chance) for _ in range(1 + chance.below(4))]
            self.submit(chance, "apply", texts)

    # The chaincode

    def submit(self, chance: Chance, function: str, parameters: list[bytes]) -> None:
        """One transaction on a copy of the state; nothing is left of it afterwards."""
        peer = MemoryPeer(TokenmeshContract(lambda: self.economy.now), lambda: self.economy.now)
        peer.state.update(self.state)
        transient = {"disclosures": chance.spoil(b'{"a":"b"}')} if chance.one_in(8) else {}
        moment = chance.pick((0.5, 31, -31, 10**6, 2**33)) if chance.one_in(6) else 0
        at = self.economy.now + moment
        by = Creator(units=chance.pick((("admin",), (), ("client",))))
        try:
            stub, answer = peer.simulate(function, *parameters, at=at, by=by, transient=transient)
        except ContractError:
            return
        assert peer.commit(stub)
        results = json.loads(answer)
        if function != "apply":
            assert not stub.writes or function == "genesis"
            return
        assert len(results) == len(parameters)
        recorded = 0
        for ok, code, detail, _tx_id, _time in results:
            assert code in MEANING
            assert ok == (code == "ok")
            assert type(detail) is dict
            recorded += code not in NOT_RECORDED
        if not any(ok for ok, *_ in results):
            changed = {key for key, value in stub.writes.items() if value != self.state.get(key)}
            assert all(key.startswith(("op/", INDEX)) for key in changed), changed
            assert bool(changed) <= bool(recorded)
        check_conservation(peer.state)

    # The engine by itself, on text as it comes

    def engine(self, chance: Chance) -> None:
        values = {key: json.loads(data) for key, data in self.state.items() if not key.startswith(INDEX)}
        state, before = MemoryState(values), dict(values)
        text = self.operation(chance).decode("latin-1")
        outcome = apply(state, text, Context(self.economy.now + chance.below(2**34)))
        assert outcome.code in MEANING
        if not outcome.ok:
            changed = {key for key in values.keys() | before.keys() if values.get(key) != before.get(key)}
            assert all(key.startswith("op/") for key in changed)
            assert not changed or outcome.code not in NOT_RECORDED

    # Operations

    def operation(self, chance: Chance) -> bytes:
        economy = self.economy
        if chance.one_in(16):
            return chance.spoil(self.done.encode())
        act = chance.pick((*ACTS, chance.text()))
        usual = "root" if act in GOVERNING else "bob" if act in ("settle", "void") else "alice"
        caller = chance.pick(CALLERS) if chance.one_in(4) else usual
        argument = self.argument(chance, act)
        while chance.one_in(2):
            argument = chance.spoil_json(argument)
        if not isinstance(argument, dict):
            argument = {"items": argument}
        claims: dict[str, Any] = {"_arg": argument}
        if chance.one_in(8):
            name = chance.pick(("_dom", "_iss", "_jti", "_iat", "_exp"))
            claims[name] = chance.value()
        try:
            text = economy.operation(caller, act, **claims)
        except (ValueError, UnicodeEncodeError):  # no JSON can hold it
            return chance.bytes(100)
        return spoilt(chance, text, wallet(caller), TYP)[0] if chance.one_in(6) else text.encode()

    def argument(self, chance: Chance, act: str) -> Any:
        """An argument as the act wants it, more or less."""
        economy = self.economy
        now = economy.now
        name = chance.pick(("alice", "bob", "root-2", "nobody"))
        own = {
            "id": chance.pick(("allowance-1", "hold-1", "new")),
            "payee": name,
            "tokens": 1 + chance.below(60),
        }
        contract = economy.contract(via="allowance-1", lane="lane", seq=chance.below(2**53))
        held = economy.contract(jti="hold-1", tok=50)
        items = [
            [chance.pick((contract, held, chance.text())), chance.below(60)] for _ in range(chance.below(4))
        ]
        known = {
            "register": {"name": name, "cert": self.new_certificate, "role": "service"},
            "rotate": {"name": name, "cert": self.new_certificate},
            "revoke": {"name": name, "x5t": wallet("alice").x5t},
            "update": {"name": name, "url": "http://x.test"},
            "freeze": {"name": name},
            "unfreeze": {"name": name},
            "mint": {"tokens": chance.below(2**54)},
            "burn": {"tokens": chance.below(2**54)},
            "grant": {"to": name, "tokens": 1 + chance.below(2_000)},
            "transfer": {"to": name, "tokens": 1 + chance.below(2_000)},
            "sweep": {"credits": [key.rpartition("/")[2] for key in self.state if key.startswith("credit/")]},
            "hold": {**own, "exp": now + chance.below(4_000)},
            "open": {**own, "exp": now + chance.below(90_000)},
            "refill": {"id": own["id"], "tokens": own["tokens"]},
            "close": {"id": own["id"]},
            "void": {"holds": [["alice", "hold-1"]] * (1 + chance.below(3))},
            "settle": {"items": items, "skipped": [["allowance-1", "lane", chance.below(9)]]},
            "expire": {"holds": [["alice", "hold-1"]], "allowances": ["allowance-1"]},
            "forget": {"operations": [["alice", "x"]], "allowances": ["allowance-1"]},
            "set_policy": {"policy": default_policy()},
            "enforce": {
                "policy": 1 + chance.below(3),
                "frozen": [name, now],
                "revoked": [name, wallet("alice").x5t],
            },
            "propose": {"act": chance.pick(tuple(ACTS)), "arg": {"tokens": 5, "name": name}},
            "approve": {"proposal": new_id()},
        }
        return known.get(act, {})


def check_conservation(state: dict[str, bytes]) -> None:
    """Every token is somewhere, and none came out of nowhere."""
    economy = ChaincodeEconomy.__new__(ChaincodeEconomy)
    economy.state = MemoryState(
        {key: json.loads(data) for key, data in state.items() if not key.startswith(INDEX)}
    )
    assert economy.accounted() == economy.supply()

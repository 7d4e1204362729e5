"""Private contracts on Fabric: judged by what endorsers alone see, replayed by who has not seen it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

import pytest

from support.chaincode_economy import ChaincodeEconomy
from support.economy import START
from support.peers import MemoryStub
from tokenmesh_chaincode.contract import ContractError, replay
from tokenmesh_chaincode.documents import canonical, parse_contract

FORBIDS = {"rules": [{"payer": "*", "payee": "*", "operation": "GET /forbidden", "effect": "deny"}]}


def economy_with(**policy: Any) -> ChaincodeEconomy:
    economy = ChaincodeEconomy(tokens=1_000, propagation_s=0, **policy)
    economy.now += 5
    economy.submit("alice", "open", id="a", payee="bob", tokens=500, exp=START + 600)
    return economy


def private(economy: ChaincodeEconomy, seq: int, **claims: Any) -> str:
    return economy.private_contract(via="a", lane="l", seq=seq, **claims)


def endorse(economy: ChaincodeEconomy, text: str, transient: Any = None) -> tuple[MemoryStub, list[Any]]:
    if transient is None:
        transient = {"disclosures": canonical(economy.disclosures)}
    stub, answer = economy.peer.simulate("apply", text, transient=transient)
    return stub, json.loads(answer)[0]


def test_what_is_private_is_in_no_public_write() -> None:
    """Neither the operation nor the request stands in the answer or in the public state."""
    economy = economy_with()
    text = private(economy, 0, op="GET /secret-thing", htu="/secret-thing")
    stub, result = endorse(economy, economy.operation("bob", "settle", items=[[text, 5]]))
    assert result[2]["settled"] == 1
    public = canonical(result) + b"".join(value or b"" for value in stub.writes.values())
    disclosure = next(iter(economy.disclosures.values()))
    assert b"secret" not in public
    assert disclosure.encode() not in public


def test_a_disclosure_is_kept_under_the_contracts_own_digest() -> None:
    """Fabric makes the hash of a private value public: anyone can see that it is the contract's ``sd``."""
    economy = economy_with()
    text = private(economy, 0)
    stub, _ = endorse(economy, economy.operation("bob", "settle", items=[[text, 5]]))
    digest = parse_contract(text).body.sd
    ((place, value),) = stub.private_writes.items()
    assert place == ("private", digest)
    assert value.decode() == economy.disclosures[digest or ""]
    assert base64.urlsafe_b64encode(sha256(value).digest()).rstrip(b"=").decode() == digest


def test_a_member_can_be_asked_what_a_contract_was_for() -> None:
    economy = economy_with()
    text = private(economy, 0)
    stub, _ = endorse(economy, economy.operation("bob", "settle", items=[[text, 5]]))
    assert economy.peer.commit(stub)
    digest = parse_contract(text).body.sd or ""
    unknown = "A" * 43
    assert economy.ask("disclosures", [digest, unknown]) == {digest: economy.disclosures[digest]}
    assert economy.ask("disclosures", []) == {}
    for digests in (["nonsense"], [unknown] * 51, "x"):
        with pytest.raises(ContractError, match="bad_argument"):
            economy.ask("disclosures", digests)


def test_only_what_was_used_is_kept() -> None:
    """Not what else was sent along, not what belongs to an operation that has failed or was done before."""
    economy = economy_with()
    first, second = private(economy, 0), private(economy, 1)
    settle = economy.operation("bob", "settle", items=[[first, 5]])
    stub, _ = endorse(economy, settle)
    assert [key for _, key in stub.private_writes] == [parse_contract(first).body.sd]
    assert economy.peer.commit(stub)
    repeated, _ = endorse(economy, settle)
    by_nobody = economy.operation("carol", "settle", items=[[second, 5]])
    failed, result = endorse(economy, by_nobody)
    assert (result[1], repeated.private_writes, failed.private_writes) == ("unknown_signer", {}, {})


def test_ordinary_contracts_need_no_collection() -> None:
    economy = economy_with()
    text = economy.contract(via="a", lane="l", seq=0)
    stub, result = endorse(economy, economy.operation("bob", "settle", items=[[text, 5]]), {})
    assert (result[0], stub.private_writes) == (True, {})


def test_without_its_disclosure_a_settlement_has_not_taken_place() -> None:
    economy = economy_with()
    text = economy.operation("bob", "settle", items=[[private(economy, 0), 5]])
    stub, result = endorse(economy, text, {})
    assert (result[1], result[3], stub.writes) == ("undisclosed", "", {})
    assert endorse(economy, text)[1][0]


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"x":5}', b"\xff", b"[" * 100_000])
def test_disclosures_without_their_form(data: bytes) -> None:
    economy = economy_with()
    with pytest.raises(ContractError, match=r"^bad_argument: the transient disclosures are "):
        endorse(economy, "nonsense", {"disclosures": data})


def copy_of(economy: ChaincodeEconomy, stub: MemoryStub, text: str) -> MemoryStub:
    """The transaction as it stands in the ledger: no transient data, and the state before it."""
    again = MemoryStub(economy.peer.state, [b"apply", text.encode()], stub.timestamp_ns, stub.identity)
    again.tx_id = stub.tx_id
    return again


@pytest.mark.parametrize("operation", ["GET /allowed", "GET /forbidden"])
def test_who_has_never_seen_it_comes_to_the_same(operation: str) -> None:
    """A third organisation replays without disclosures: answer and public writes are as they stand there."""
    economy = economy_with(**FORBIDS)
    private_one = private(economy, 0, op=operation)
    text = economy.operation("bob", "settle", items=[[private_one, 5]])
    stub, result = endorse(economy, text)
    assert result[2]["settled"] == (operation == "GET /allowed")
    again = copy_of(economy, stub, text)
    answer = canonical([result])
    assert replay(again, answer) == answer
    assert (again.writes, again.private_writes) == (stub.writes, {})
    with_disclosures = copy_of(economy, stub, text)
    assert replay(with_disclosures, answer, economy.disclosures) == answer
    assert with_disclosures.private_writes == stub.private_writes


def test_a_changed_answer_does_not_survive_a_replay() -> None:
    """Only policy's word about private contracts is taken from it: all else is judged again."""
    economy = economy_with()
    text = economy.operation("bob", "settle", items=[[private(economy, 0), 5], [private(economy, 1), 5]])
    stub, result = endorse(economy, text)
    honest = canonical([result])
    changed = [honest.replace(b'"tokens":10', b'"tokens":100'), b"", b"[]", b"[[]]", b"[5]", b"{}"]
    changed.append(canonical([[True, "ok", None, "", 0]]))
    assert [replay(copy_of(economy, stub, text), one) == one for one in changed] == [False] * len(changed)
    assert replay(copy_of(economy, stub, text), honest) == honest

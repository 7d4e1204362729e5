"""``replay``: a recorded transaction, run again by who trusts nobody's word for it."""

from __future__ import annotations

import pytest

from support.chaincode_economy import ChaincodeEconomy, first_document
from support.economy import START
from support.peers import Creator, MemoryPeer, MemoryStub
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract, replay
from tokenmesh_chaincode.documents import canonical


def again(stub: MemoryStub, state: dict[str, bytes], function: str, *parameters: bytes) -> MemoryStub:
    copy = MemoryStub(state, [function.encode(), *parameters], stub.timestamp_ns, stub.identity)
    copy.tx_id = stub.tx_id
    return copy


def test_every_transaction_replays_to_itself_however_long_ago_it_was() -> None:
    """From an empty state on: the same answers, the same writes, byte by byte."""
    clock = [START]
    peer = MemoryPeer(TokenmeshContract(lambda: clock[0]), lambda: clock[0])
    economy = ChaincodeEconomy(services=())
    document = first_document()
    batches = [
        [economy.operation("root", "mint", _jti="m", tokens=500)],
        [
            economy.operation("root", "burn", tokens=5).encode(),
            economy.operation("root", "burn", tokens=5_000).encode(),
            b"nonsense",
        ],
    ]
    state: dict[str, bytes] = {}
    for function, parameters in [("genesis", [document]), *(("apply", batch) for batch in batches)]:
        stub, answer = peer.simulate(function, *parameters)
        texts = [one if isinstance(one, bytes) else one.encode() for one in parameters]
        copy = again(stub, state, function, *texts)
        assert replay(copy, answer) == answer
        assert copy.writes == stub.writes
        assert peer.commit(stub)
        state = dict(peer.state)
        clock[0] += 1
    assert b'"tokens":495' in state["balance/root"]


def test_what_should_not_have_been_endorsed_is_refused() -> None:
    """A beginning by somebody who is no administrator, a second one, a question that writes."""
    peer = MemoryPeer(TokenmeshContract(lambda: START), lambda: START)
    stub, answer = peer.simulate("genesis", first_document())
    begun = dict(stub.writes.items())
    stub.identity = Creator(units=("client",))
    with pytest.raises(ContractError, match=r"^not_administrator: "):
        replay(again(stub, {}, "genesis", first_document()), answer)
    stub.identity = Creator()
    state = {key: value for key, value in begun.items() if value is not None}
    with pytest.raises(ContractError, match=r"^begun_already: "):
        replay(again(stub, state, "genesis", first_document(nonce="other")), answer)
    with pytest.raises(ContractError, match=r"^unknown_function: "):
        replay(again(stub, state, "ask", b"policy", canonical([])), b"{}")

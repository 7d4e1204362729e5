"""``genesis``: a ledger begins once on a channel, by an administrator, with a document that holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.chaincode_economy import first_document
from support.economy import START, authority, wallet
from support.peers import Creator, MemoryPeer
from tokenmesh_chaincode.contract import ContractError, TokenmeshContract
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.limits import OPERATION_BYTES_MAX, TX_TIME_SKEW_S_MAX
from tokenmesh_chaincode.rules import genesis
from tokenmesh_chaincode.state import MemoryState

CLIENT = Creator(units=("client",))


@pytest.fixture
def peer() -> MemoryPeer:
    return MemoryPeer(TokenmeshContract(lambda: START), lambda: START)


def refusal(peer: MemoryPeer, *parameters: bytes, **options: Any) -> str:
    """The code with which a beginning is refused, and nothing has happened."""
    before = dict(peer.state)
    with pytest.raises(ContractError) as caught:
        peer.submit("genesis", *parameters, **options)
    assert peer.state == before
    assert str(caught.value).startswith(f"{caught.value.code}: ")
    return caught.value.code


def test_a_ledger_begins_as_the_rules_say(peer: MemoryPeer) -> None:
    """The same records as by the rules alone, each in canonical JSON, and the domain's id as the answer."""
    document = first_document()
    answer = json.loads(peer.submit("genesis", document))
    state = MemoryState()
    first = json.loads(document)
    genesis(state, **{name: value for name, value in first.items() if name != "tokenmesh"})
    assert answer == {"domain": thumbprint(document)}
    assert peer.state == {key: canonical(value) for key, value in state.values.items()}


def test_the_same_document_again_has_the_same_answer_and_writes_nothing(peer: MemoryPeer) -> None:
    """Who does not know whether the first time was done may ask again, at any time later."""
    answer = peer.submit("genesis", first_document())
    late = MemoryPeer(TokenmeshContract(lambda: START + 9_999), lambda: START + 9_999)
    late.state = peer.state
    stub, again = late.simulate("genesis", first_document())
    assert again == answer
    assert stub.writes == {}


def test_another_document_is_refused_where_one_is(peer: MemoryPeer) -> None:
    peer.submit("genesis", first_document())
    assert refusal(peer, first_document(nonce="other")) == "begun_already"


@pytest.mark.parametrize(
    ("creator", "may"),
    [
        (Creator(units=("admin",)), True),
        (Creator(units=("department", "admin")), True),
        (Creator(units=("client",), attributes={"hf.Type": "admin"}), True),
        (CLIENT, False),
        (Creator(units=("peer",)), False),
        (Creator(units=()), False),
        (Creator(units=("administrators",), attributes={"hf.Type": "client", "admin": "true"}), False),
    ],
)
def test_only_an_administrator_begins_one(peer: MemoryPeer, creator: Creator, may: bool) -> None:
    if may:
        assert peer.submit("genesis", first_document(), by=creator)
    else:
        assert refusal(peer, first_document(), by=creator) == "not_administrator"


def test_who_is_no_administrator_learns_nothing_later_either(peer: MemoryPeer) -> None:
    peer.submit("genesis", first_document())
    assert refusal(peer, first_document(), by=CLIENT) == "not_administrator"


@pytest.mark.parametrize("off", [-TX_TIME_SKEW_S_MAX - 1, TX_TIME_SKEW_S_MAX + 1])
def test_a_time_that_is_not_now(peer: MemoryPeer, off: int) -> None:
    """Neither the proposal nor the document may be from another time than the endorser's."""
    assert refusal(peer, first_document(), at=START + off) == "clock_skewed"
    assert refusal(peer, first_document(now=START + off)) == "clock_skewed"
    assert peer.submit("genesis", first_document(now=START + off // 3), at=START - off // 3)


def _without(name: str) -> dict[str, Any]:
    first = json.loads(first_document())
    del first[name]
    return dict(first)


def _with(**changes: Any) -> dict[str, Any]:
    return {**json.loads(first_document()), **changes}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b"\xff",
        b"[" * 100_000,
        first_document() + b" ",
        first_document().replace(b'{"ca"', b'{"ca":[],"ca"'),
        *(canonical(_without(name)) for name in json.loads(first_document())),
        canonical(_with(more=1)),
        canonical(_with(tokenmesh=2)),
        canonical(_with(ca="x")),
        canonical(_with(ca=[5])),
        canonical(_with(ca=[])),
        canonical(_with(ca=["nonsense"])),
        canonical(_with(ca=[wallet("root").pem])),
        canonical(_with(governors={})),
        canonical(_with(governors={"root": None})),
        canonical(_with(governors={"../root": wallet("root").pem})),
        canonical(_with(governors={"root": wallet("alice").pem})),
        canonical(_with(governors={"root": authority().pem})),
        canonical(_with(now=True)),
        canonical(_with(now=1.5)),
        canonical(_with(nonce=None)),
        canonical(_with(policy={"since": START})),
        first_document(threshold=2),
        first_document(grace_s=0),
    ],
)
def test_a_document_that_nothing_can_begin_with(peer: MemoryPeer, document: bytes) -> None:
    assert refusal(peer, document) == "bad_genesis"


def test_a_document_that_is_too_long_or_one_too_many(peer: MemoryPeer) -> None:
    assert refusal(peer, b" " * (OPERATION_BYTES_MAX + 1)) == "bad_genesis"
    assert refusal(peer) == "bad_argument"
    assert refusal(peer, first_document(), first_document()) == "bad_argument"

"""Work done ahead: it changes when signatures are checked, never what comes of it."""

from __future__ import annotations

import pytest

from support.wallets import Wallets
from tokenmesh.ledger import ahead
from tokenmesh.ledger.ahead import Preparer
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import Contract, DocumentError, Operation, digest, sign

DOM = "d" * 43
NOW = 1_800_000_000


@pytest.fixture
def wallets(tmp_path):
    wallets = Wallets(tmp_path)
    for name in ("payer", "payee"):
        wallets.new(name)
    return wallets


@pytest.fixture
def preparer(wallets):
    preparer = Preparer(lambda name: {wallets[name].x5t: wallets[name].certificate_pem}, threads=2)
    yield preparer
    preparer.close()


def contract(wallets, seq, signer="payer", **claims):
    body = Contract(
        dom=DOM,
        iss="payer",
        aud="payee",
        op="GET /",
        htm="GET",
        htu="/",
        dig=digest(b""),
        tok=5,
        jti=f"contract-{seq}",
        iat=NOW,
        exp=NOW + 60,
        via="allowance",
        lane="lane",
        seq=seq,
    )
    return sign(body._replace(**claims), wallets[signer])


def operation(wallets, act, arg, by="payee"):
    return sign(Operation(DOM, by, "id", NOW, NOW + 60, act, arg), wallets[by])


def forge(text):
    """The document with another signature: well-formed, and wrong."""
    return text.rpartition(".")[0] + "." + "A" * 86


@pytest.mark.parametrize("count", [0, 1, 5, 150])
def test_signatures_found_ahead_are_those_found_later(wallets, preparer, count):
    """Good ones and forged ones, few and many, in one thread or two: as ``documents.verify_many`` says."""
    texts = [contract(wallets, seq) for seq in range(count)]
    texts = [forge(text) if seq % 3 == 1 else text for seq, text in enumerate(texts)]
    settlement = operation(wallets, "settle", {"items": [[text, 5] for text in texts]})
    for whole in (settlement, forge(settlement)):
        (prepared,) = preparer.prepare([whole])
        key = public_key(wallets["payee"].certificate_pem)
        assert prepared.verify_many([(prepared.signed, key)]) == [whole == settlement]
        key = public_key(wallets["payer"].certificate_pem)
        read = [(prepared.parse_contract(text), key) for text in texts]
        assert prepared.verify_many(read) == documents.verify_many(read)
        assert prepared.verify_many(read) == [seq % 3 != 1 for seq in range(count)]


def test_a_key_that_was_not_tried_ahead_is_tried_in_its_turn(wallets, preparer):
    """A wallet rotated in between: what was found out with the old key says nothing about the new one."""
    text = contract(wallets, 0)
    (prepared,) = preparer.prepare([operation(wallets, "settle", {"items": [[text, 5]]})])
    old = public_key(wallets["payer"].certificate_pem)
    new = public_key(wallets.new("payer").certificate_pem)
    signed = prepared.parse_contract(text)
    assert prepared.verify_many([(signed, old), (signed, new)]) == [True, False]


def test_what_cannot_be_read_is_left_to_the_rules(wallets, preparer):
    """No operation, no contract, no list, too many: nothing raises, and the rules are asked as ever."""
    good = contract(wallets, 0)
    strange = [
        {"items": [["nonsense", 5], [good, 5], ["", 1]]},
        {"items": [[5, good], [], "x", None, {}]},
        {"items": "x"},
        {"items": [[good, 5]] * (2_001)},
        {},
    ]
    texts = [operation(wallets, "settle", arg) for arg in strange]
    prepared = preparer.prepare(["nonsense", *texts])
    assert prepared[0].signed is None
    assert [len(one.carried) for one in prepared] == [0, 1, 0, 0, 0, 0]
    with pytest.raises(DocumentError):
        prepared[1].parse_contract("nonsense")
    assert prepared[2].parse_contract(good).body.jti == "contract-0"


def test_keys_of_wallets_are_remembered_within_bounds(wallets, monkeypatch):
    """Past KEYS_MAX they are looked up again; an unknown wallet is asked for each time."""
    monkeypatch.setattr(ahead, "KEYS_MAX", 1)
    asked = []

    def certificates(name):
        asked.append(name)
        return {} if name == "payee" else {wallets[name].x5t: wallets[name].certificate_pem}

    preparer = Preparer(certificates)
    text = operation(wallets, "transfer", {}, by="payer")
    for _ in range(3):
        preparer.prepare([text, text])
    assert asked == ["payer"]
    preparer.prepare([operation(wallets, "transfer", {}), operation(wallets, "transfer", {})])
    assert asked == ["payer", "payee", "payee"]
    preparer.close()

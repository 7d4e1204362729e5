"""Contracts, receipts and operations from raw bytes, and good ones spoilt: read, or refused, and no forgery.

What is accepted is held to the protocol's page in another way than the product reads: by the standard
library's decoder and parser.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Final

from fuzz.chance import Chance
from fuzz.spoiling import decodes, header_of, sealed, spoilt
from fuzz.target import Target

from support.economy import START, wallet
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, DocumentError, Operation, Receipt, Signed

CODES: Final = frozenset(
    {
        "too_large",
        "too_deep",
        "unknown_algorithm",
        "bad_header",
        "duplicate_claim",
        "missing_claim",
        "bad_claim",
        "undisclosed",
        "bad_disclosure",
    }
)
DOM: Final = "d" * 43
NUMBERS: Final = {
    "tok": 2**53 - 1,
    "iat": 253_402_300_799,
    "exp": 253_402_300_799,
    "seq": 2**53 - 1,
    "status": 599,
    "left": 2**53 - 1,
}
LONGEST: Final = {"contract": 8192, "receipt": 4096, "operation": 4_194_304}


def contract_of(jti: str = "contract-1", **claims: Any) -> Contract:
    body = Contract(
        DOM,
        "alice",
        "bob",
        "GET /quote/{symbol}",
        "GET",
        "/quote/ACME?full=1",
        documents.digest(b""),
        5,
        jti,
        START,
        START + 60,
        "allowance-1",
        "lane-1",
        7,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return body._replace(**claims)


def receipt_of() -> Receipt:
    return Receipt(
        DOM, "bob", "alice", "contract-1", "fulfilled", 5, 200, documents.digest(b"ok"), START, "tx-1", 95
    )


def operation_of() -> Operation:
    arg = {"to": "bob", "tokens": 5, "list": [["a", 1]], "more": {"text": "é"}}
    return Operation(DOM, "alice", "operation-1", START, START + 60, "transfer", arg)


class Documents(Target):
    name: ClassVar[str] = "documents"
    share: ClassVar[int] = 600

    def __init__(self, directory: Path) -> None:
        self.signer = wallet("alice")
        signed = {
            "contract": contract_of(),
            "hold": contract_of(via="hold", lane=None, seq=None, tp=None),
            "receipt": receipt_of(),
            "operation": operation_of(),
        }
        self.good = [
            (name.replace("hold", "contract"), documents.sign(body, self.signer), body)
            for name, body in signed.items()
        ]
        concealed, self.disclosure = documents.conceal(contract_of(), documents.new_salt())
        self.private = documents.sign(concealed, self.signer)
        self.inputs = {text.rpartition(".")[0].encode() for _, text, _ in self.good}
        self.inputs.add(self.private.rpartition(".")[0].encode())

    def one(self, chance: Chance) -> None:
        kind, text, body = chance.pick(self.good)
        way = chance.below(8)
        typ = f"tokenmesh-{kind}+jwt"
        anew = False
        if way == 0:
            data = chance.bytes(200)
        elif way == 1:  # any JSON, well sealed
            claims = json.dumps(chance.spoil_json(body._asdict())).encode("utf-8", "surrogatepass")
            header = json.dumps(header_of(typ, self.signer)).encode()
            data = sealed(header, chance.spoil(claims) if chance.one_in(2) else claims, self.signer).encode()
            anew = True
        elif way == 2:
            self.presented(chance)
            return
        else:
            data, anew = spoilt(chance, text, self.signer, typ)
        for name in {kind, chance.pick(("contract", "receipt", "operation"))}:
            self.read(name, data, anew=anew)

    def read(self, kind: str, data: bytes, *, anew: bool) -> None:
        """Bytes and text are read alike; what is accepted is what the protocol's page allows; a signature
        holds only for what its owner has signed, unless it was signed ``anew``."""
        parse = getattr(documents, f"parse_{kind}")
        found = outcome(parse, data, kind)
        assert found == outcome(parse, data.decode("latin-1"), kind) or not data.isascii()
        if isinstance(found, Signed):
            check(kind, data, found)
            if not anew and documents.verify(found, self.signer.key.public_key()):
                assert found.signing_input in self.inputs

    def presented(self, chance: Chance) -> None:
        """A private contract and its disclosure, one of them spoilt: never another request's claims."""
        own, disclosure = self.private.encode(), self.disclosure.encode()
        if chance.one_in(2):
            disclosure = chance.spoil(disclosure)
        else:
            own = chance.spoil(own)
        found = outcome(documents.parse_presented, own + b"~" + disclosure, "contract")
        if isinstance(found, Signed) and documents.verify(found, self.signer.key.public_key()):
            assert disclosure == self.disclosure.encode()
            assert found.body._replace(sd=None) == contract_of()


def outcome(parse: Any, data: bytes | str, kind: str) -> Signed[Any] | str:
    """What reading gives: the document, or a code that the protocol knows."""
    try:
        signed: Signed[Any] = parse(data)
    except DocumentError as error:
        code = error.code
    else:
        return signed
    assert code in CODES or code in ("not_a_contract", "not_a_receipt", "not_an_operation")
    return code


def check(kind: str, data: bytes, found: Signed[Any]) -> None:
    assert len(data) <= LONGEST[kind]
    head, claims, signature = (decodes(part) for part in data.split(b"."))
    assert head is not None
    assert claims is not None
    assert signature is not None
    assert len(signature) == 64
    values = json.loads(claims, object_pairs_hook=unique)
    assert type(values) is dict
    for name, value in found.body._asdict().items():
        if value is None or (value == "" and name in ("op", "htm", "htu", "dig")):
            assert name not in values
            continue
        assert values[name] == value
        assert type(values[name]) is type(value)
        if name in NUMBERS:
            assert 0 <= value <= NUMBERS[name]
        elif name != "arg":
            assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]+", value)
    if "exp" in values:
        assert values["exp"] > values["iat"]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    assert all(type(value) is not float for _, value in pairs)
    return dict(pairs)

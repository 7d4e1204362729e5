"""contracts.json: contracts with the request they come with, and what the payee answers."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from vectors.ledger import HOUR, contract
from vectors.parties import (
    ALICE,
    ALICE_BEFORE,
    ALICE_STRANGER,
    CAROL,
    ICE,
    MALLORY,
    NOBODY,
    NOW,
    P256_ORDER,
    Impostor,
    segment,
)

from tokenmesh_chaincode.documents import Contract, der_signature, digest, sign

REQUEST = {"method": "GET", "path": "/quote/ACME", "query": "full=1", "body": ""}
AT = NOW + 30
NONE: Any = object()


class Cases:
    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self._seq = 100

    def add(self, name: str, text: str, read: str, status: int, code: str, **more: Any) -> None:
        """``read`` is what reading the document gives; ``status`` and ``code`` what the payee answers."""
        case = {"name": name, "text": text, "at": AT, "request": REQUEST, **more}
        self.cases.append({**case, "read": read, "status": status, "code": code})

    def unread(self, name: str, text: str, code: str) -> None:
        self.add(name, text, code, 400, code)

    def claims(self, name: str, code: str, **changes: Any) -> None:
        """Claims that cannot be, signed well."""
        claims = {**claims_of(contract("bad")), **changes}
        kept = {key: value for key, value in claims.items() if value is not NONE}
        self.unread(name, signed(header(), kept), code)

    def raw(self, name: str, claims: bytes, code: str) -> None:
        self.unread(name, signed(header(), claims), code)

    def head(self, name: str, code: str, **changes: Any) -> None:
        self.unread(name, signed(header(**changes), claims_of(contract("bad"))), code)

    def good(self, name: str, signer: Any = ALICE, **changes: Any) -> None:
        self.judged(name, 200, "ok", signer, **changes)

    def judged(
        self, name: str, status: int, code: str, signer: Any = ALICE, *, more: Any = None, **changes: Any
    ) -> None:
        """A contract that can be read; whether it is taken is for the payee to say."""
        self._seq += 1
        body = contract(name, **{"seq": self._seq, **changes})
        self.add(name, sign(body, signer), "ok", status, code, **(more or {}))


def header(**changes: Any) -> dict[str, Any]:
    values = {
        "alg": "ES256",
        "typ": "tokenmesh-contract+jwt",
        "kid": "alice",
        "x5t#S256": ALICE.x5t,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not NONE}


def claims_of(body: Contract) -> dict[str, Any]:
    """The claims that the contract has."""
    return {name: value for name, value in body._asdict().items() if value is not None}


def signed(head: bytes | dict[str, Any], claims: bytes | dict[str, Any]) -> str:
    text = f"{segment(head)}.{segment(claims)}"
    return f"{text}.{segment(ALICE.sign(text.encode()))}"


def _taken(cases: Cases) -> None:
    cases.good("by-allowance")
    cases.good("by-hold", via="hold", lane=None, seq=None)
    cases.good("more-than-the-price", tok=6)
    cases.good("without-traceparent", tp=None)
    cases.good("another-lane", lane="lane-2", seq=0)
    cases.good("signed-before-the-rotation", ALICE_BEFORE)
    cases.good("a-little-from-the-future", iat=AT + 5)
    cases.good("in-its-last-second", exp=AT + 1)
    claims = claims_of(contract("unknown-claim", seq=90)) | {"more": {"x": [1]}}
    cases.add("unknown-claim", signed(header(cty="x"), claims), "ok", 200, "ok")
    text = sign(contract("twin-signature", seq=91), ALICE)
    s = P256_ORDER - int.from_bytes(ALICE.sign(text.rpartition(".")[0].encode())[32:])
    r = ALICE.sign(text.rpartition(".")[0].encode())[:32]
    twin = f"{text.rpartition('.')[0]}.{segment(r + s.to_bytes(32))}"
    cases.add("twin-signature", twin, "ok", 200, "ok")


def _unread(cases: Cases) -> None:
    good = sign(contract("bad"), ALICE)
    head, claims, signature = good.split(".")
    body = claims_of(contract("bad"))
    text = json.dumps(body, separators=(",", ":"))
    cases.unread("nothing", "", "not_a_contract")
    cases.unread("no-jws", "tokens please", "not_a_contract")
    cases.unread("two-segments", f"{head}.{claims}", "not_a_contract")
    cases.unread("four-segments", f"{good}.{signature}", "not_a_contract")
    cases.unread("100-kilobytes", f"{head}.{'A' * 102_400}.{signature}", "too_large")
    cases.unread("padded", f"{head}.{claims}.{signature}==", "not_a_contract")
    cases.unread(
        "unused-bits", f"{head}.{claims}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}", "not_a_contract"
    )
    cases.unread("white-space", f"{head}.{claims[:8]}    {claims[8:]}.{signature}", "not_a_contract")
    cases.unread("signature-of-63-bytes", f"{head}.{claims}.{segment(b'x' * 63)}", "not_a_contract")
    der = segment(der_signature(ALICE.sign(f"{head}.{claims}".encode())))
    cases.unread("signature-in-der", f"{head}.{claims}.{der}", "not_a_contract")
    cases.unread("alg-none", f"{segment(header(alg='none'))}.{claims}.", "unknown_algorithm")
    public = ALICE.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hs256 = f"{segment(header(alg='HS256'))}.{claims}"
    mac = hmac.digest(public, hs256.encode(), hashlib.sha256)
    cases.unread("hs256-with-the-public-key", f"{hs256}.{segment(mac)}", "unknown_algorithm")
    cases.head("alg-es384", "unknown_algorithm", alg="ES384")
    cases.head("typ-of-a-receipt", "not_a_contract", typ="tokenmesh-receipt+jwt")
    cases.head("typ-missing", "not_a_contract", typ=NONE)
    cases.head("critical-parameter", "bad_header", crit=["exp"])
    cases.head("kid-missing", "bad_header", kid=NONE)
    cases.head("kid-that-is-no-name", "bad_header", kid="../alice")
    cases.head("x5t-missing", "bad_header", **{"x5t#S256": NONE})
    cases.raw("not-json", b"tok=5", "not_a_contract")
    cases.raw("an-array", b"[]", "not_a_contract")
    cases.raw("not-utf-8", b'{"iss":"\xff"}', "not_a_contract")
    cases.raw("half-a-surrogate-pair", text.replace("GET /quote", "\\ud83d").encode(), "not_a_contract")
    cases.raw("claim-twice", text.replace('"tok":5', '"tok":5,"tok":1').encode(), "duplicate_claim")
    cases.raw("claim-twice-inside", (text[:-1] + ',"x":{"a":[{"b":1,"b":2}]}}').encode(), "duplicate_claim")
    cases.raw("nested-deeply", (text[:-1] + ',"x":' + "[" * 50 + "]" * 50 + "}").encode(), "too_deep")
    for name, number in (("nan", "NaN"), ("fraction", "0.5"), ("float", "5.0"), ("exponent", "5e0")):
        cases.raw(f"tokens-{name}", text.replace('"tok":5', f'"tok":{number}').encode(), "bad_claim")


def _bad_claims(cases: Cases) -> None:
    for name in (
        "dom",
        "iss",
        "aud",
        "op",
        "htm",
        "htu",
        "dig",
        "tok",
        "jti",
        "iat",
        "exp",
        "via",
        "lane",
        "seq",
    ):
        cases.claims(f"without-{name}", "missing_claim", **{name: NONE})
    for name, tokens in (
        ("negative", -1),
        ("huge", 2**53),
        ("very-huge", 10**40),
        ("true", True),
        ("text", "5"),
        ("null", None),
    ):
        cases.claims(f"tokens-{name}", "bad_claim", tok=tokens)
    cases.claims("hold-with-seq", "bad_claim", via="hold")
    cases.claims("name-in-capitals", "bad_claim", iss="Alice")
    cases.claims("id-with-slash", "bad_claim", jti="a/b")
    cases.claims("id-too-long", "bad_claim", jti="a" * 65)
    cases.claims("method-in-small-letters", "bad_claim", htm="get")
    cases.claims("target-without-slash", "bad_claim", htu="quote/ACME")
    cases.claims("target-not-encoded", "bad_claim", htu="/caf\u00e9")
    cases.claims("operation-with-newline", "bad_claim", op="GET /\nx")
    cases.claims("digest-md5", "bad_claim", dig="md5=:1B2M2Y8AsgTpgAmY7PhCfg==:")
    cases.claims("seq-negative", "bad_claim", seq=-1)
    cases.claims("traceparent-of-no-form", "bad_claim", tp="00-1-2-3")
    cases.claims("expires-before-it-begins", "bad_claim", exp=NOW)
    cases.claims("lane-null", "bad_claim", lane=None)


def _judged(cases: Cases) -> None:
    signer = cases.judged
    signer("mallorys-key-under-alices-name", 401, "signature_invalid", Impostor(ALICE, MALLORY))
    signer("kid-of-another-wallet", 401, "other_signer", MALLORY)
    signer("a-certificate-not-on-the-ledger", 401, "certificate_unknown", ALICE_STRANGER)
    signer("a-wallet-not-on-the-ledger", 401, "wallet_unknown", NOBODY, iss="nobody")
    signer("another-ledger", 401, "other_domain", dom="x" * 43)
    signer("another-payee", 401, "other_payee", aud="carol")
    signer("expired", 401, "expired", exp=AT)
    signer("not-yet-valid", 401, "not_yet_valid", iat=AT + 11, exp=AT + 60)
    signer("valid-for-too-long", 401, "lives_too_long", exp=NOW + 20 + 301)
    late = {"at": NOW + 710}
    signer(
        "old-key-after-the-overlap",
        401,
        "certificate_ended",
        ALICE_BEFORE,
        iat=NOW + 700,
        exp=NOW + 760,
        more=late,
    )
    signer("for-another-method", 422, "other_request", htm="POST")
    signer("for-another-path", 422, "other_request", htu="/cheap?full=1")
    signer("for-another-query", 422, "other_request", htu="/quote/ACME")
    signer("for-another-body", 422, "other_request", dig=digest(b"another"))
    signer("too-few-tokens", 402, "too_few_tokens", tok=4)
    signer("no-tokens", 402, "too_few_tokens", tok=0)
    signer("for-another-operation", 402, "other_operation", op="GET /cheap")
    signer("no-such-allowance", 402, "allowance_unknown", via="allowance-9")
    signer("anothers-allowance", 402, "allowance_unknown", MALLORY, iss="mallory")
    signer("small-allowance", 402, "allowance_used_up", via="allowance-small")
    signer("closed-allowance", 402, "allowance_ended", via="allowance-closed")
    end = NOW + HOUR
    soon = {"at": end - 30}
    signer("outlives-the-allowance", 402, "allowance_ended", iat=end - 40, exp=end + 1, more=soon)
    hold: dict[str, Any] = {"via": "hold", "lane": None, "seq": None}
    signer("no-such-hold", 402, "hold_unknown", **hold)
    signer("by-small-hold", 402, "hold_ended", **hold)
    signer("hold-voided", 402, "hold_ended", **hold)
    signer("frozen-payer", 403, "wallet_frozen", ICE, iss="ice", via="allowance-ice")
    signer("forbidden-payer", 403, "forbidden", CAROL, iss="carol", via="allowance-carol")


def contracts() -> dict[str, Any]:
    """contracts.json."""
    cases = Cases()
    _taken(cases)
    _unread(cases)
    _bad_claims(cases)
    _judged(cases)
    return {
        "about": (
            "Contracts as bob gets them, on the ledger after `setup` of operations.json. `read`: ok, or the "
            "code of why the document cannot be read. `status` and `code`: what bob answers to `request` at "
            "time `at`; 200 and ok if it takes the contract. The price is 5 tokens; each case is the first."
        ),
        "operation": "GET /quote/{symbol}",
        "tokens": 5,
        "cases": cases.cases,
    }

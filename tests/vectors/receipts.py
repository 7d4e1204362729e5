"""receipts.json: receipts with the contract and the response they belong to, and whether they hold."""

from __future__ import annotations

from typing import Any

from vectors.ledger import contract
from vectors.parties import ALICE, BOB, DOMAIN, MALLORY, NOW, Impostor, segment

from tokenmesh_chaincode.documents import Receipt, digest, sign

BODY = b'{"symbol": "ACME", "price": 17}'


def _receipt(**changes: Any) -> Receipt:
    body = Receipt(
        dom=DOMAIN,
        iss="bob",
        aud="alice",
        jti="paid",
        out="fulfilled",
        tok=5,
        status=200,
        dig=digest(BODY),
        iat=NOW + 21,
        tx="ledger-transaction-1",
        left=95,
    )
    return body._replace(**changes)


def _signed_as(typ: str, claims: dict[str, Any], alg: str = "ES256") -> str:
    text = f"{segment({'alg': alg, 'typ': typ, 'kid': 'bob', 'x5t#S256': BOB.x5t})}.{segment(claims)}"
    return f"{text}.{segment(BOB.sign(text.encode()))}"


def receipts() -> dict[str, Any]:
    """receipts.json."""
    kind = "tokenmesh-receipt+jwt"
    claims = _receipt()._asdict()
    cases = [
        ("fulfilled", sign(_receipt(), BOB), "ok", True),
        ("charged-less", sign(_receipt(tok=2), BOB), "ok", True),
        ("not-settled-yet", sign(_receipt(tx=None, left=None), BOB), "ok", True),
        ("void", sign(_receipt(out="void", tok=0), BOB), "ok", True),
        ("void-and-charged", sign(_receipt(out="void", tok=5), BOB), "ok", False),
        ("charged-too-much", sign(_receipt(tok=6), BOB), "ok", False),
        ("another-contract", sign(_receipt(jti="other"), BOB), "ok", False),
        ("another-payer", sign(_receipt(aud="carol"), BOB), "ok", False),
        ("another-ledger", sign(_receipt(dom="x" * 43), BOB), "ok", False),
        ("another-status", sign(_receipt(status=500), BOB), "ok", False),
        ("another-response", sign(_receipt(dig=digest(b"{}")), BOB), "ok", False),
        ("by-somebody-else", sign(_receipt(), MALLORY), "ok", False),
        ("by-somebody-else-in-bobs-name", sign(_receipt(), Impostor(BOB, MALLORY)), "ok", False),
        ("contract-for-a-receipt", sign(contract("paid"), ALICE), "not_a_receipt", False),
        ("alg-none", _signed_as(kind, claims, alg="none"), "unknown_algorithm", False),
        ("unknown-outcome", _signed_as(kind, {**claims, "out": "done"}), "bad_claim", False),
        ("negative-tokens", _signed_as(kind, {**claims, "tok": -5}), "bad_claim", False),
        ("status-of-no-response", _signed_as(kind, {**claims, "status": 99}), "bad_claim", False),
        (
            "without-digest",
            _signed_as(kind, {k: v for k, v in claims.items() if k != "dig"}),
            "missing_claim",
            False,
        ),
    ]
    return {
        "about": (
            "Receipts as alice gets them for `contract`, with the response's status and body (base64url). "
            "`read`: ok, or the code of why the document cannot be read. `holds`: whether it may be believed."
        ),
        "contract": sign(contract("paid"), ALICE),
        "status": 200,
        "body": segment(BODY),
        "cases": [
            {"name": name, "text": text, "read": read, "holds": holds} for name, text, read, holds in cases
        ],
    }

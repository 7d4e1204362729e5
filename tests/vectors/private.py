"""private.json: private contracts and their disclosures, and what reading both together gives."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vectors.contracts import AT, REQUEST, claims_of, header, signed
from vectors.ledger import contract
from vectors.parties import ALICE, segment

from tokenmesh_chaincode.documents import Contract, conceal, digest, present, sign

SALT = segment(b"sixteen bytes!?-")
OTHER_SALT = segment(b"another sixteen!")


class Cases:
    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []

    def good(
        self, name: str, body: Contract, salt: str = SALT, *, status: int = 200, code: str = "ok"
    ) -> None:
        concealed, disclosure = conceal(body, salt)
        text = sign(concealed, ALICE)
        claims = {key: getattr(body, key) for key in ("op", "htm", "htu", "dig")}
        case = {"name": name, "text": present(text, disclosure), "read": "ok"}
        more = {"contract": text, "sd": concealed.sd, "salt": salt, "disclosed": claims}
        self.cases.append({**case, "status": status, "code": code, **more})

    def bad(self, name: str, text: str, code: str) -> None:
        self.cases.append({"name": name, "text": text, "read": code, "status": 400, "code": code})

    def of_no_form(self, name: str, content: Any) -> None:
        """A disclosure whose digest is right, and that is none all the same."""
        disclosure = segment(content if isinstance(content, bytes) else json.dumps(content).encode())
        sd = segment(hashlib.sha256(disclosure.encode()).digest())
        concealed, _ = conceal(contract(name), SALT)
        self.bad(name, present(sign(concealed._replace(sd=sd), ALICE), disclosure), "bad_disclosure")


def _good(cases: Cases) -> None:
    cases.good("by-allowance", contract("private-1"))
    cases.good("by-hold", contract("by-hold", via="hold", lane=None, seq=None))
    hold = {"via": "hold", "lane": None, "seq": None}
    cases.good("no-such-hold", contract("private-2", **hold), status=402, code="hold_unknown")
    cases.good("another-salt", contract("private-1"), OTHER_SALT)
    order = {"op": "POST /orders/{id}", "htm": "POST", "htu": "/orders/caf%C3%A9", "dig": digest(b"a body")}
    cases.good("with-a-body", contract("private-3", **order), status=422, code="other_request")
    another = contract("private-4", op="GET /caf\u00e9/\U0001f600")
    cases.good("beyond-ascii", another, status=402, code="other_operation")
    cases.good("too-few-tokens", contract("private-6", tok=4), status=402, code="too_few_tokens")


def _bad(cases: Cases) -> None:
    concealed, disclosure = conceal(contract("private-5"), SALT)
    text = sign(concealed, ALICE)
    open_one = sign(contract("open"), ALICE)
    _, other = conceal(contract("private-5"), OTHER_SALT)
    cases.bad("without-its-disclosure", text, "undisclosed")
    cases.bad("with-another-salt", present(text, other), "undisclosed")
    cases.bad("with-an-empty-disclosure", present(text, ""), "undisclosed")
    cases.bad("with-two-disclosures", present(present(text, disclosure), disclosure), "bad_disclosure")
    cases.bad("padded", present(text, disclosure + "="), "bad_disclosure")
    cases.bad("a-disclosure-of-nothing", present(open_one, disclosure), "bad_disclosure")
    cases.bad("too-long-together", present(text, "A" * 8192), "too_large")
    claims = {"op": "GET /a", "htm": "GET", "htu": "/a", "dig": digest(b"")}
    cases.of_no_form("not-json", b"[")
    cases.of_no_form("an-object", claims)
    cases.of_no_form("without-a-salt", [claims])
    cases.of_no_form("a-short-salt", [SALT[:-1], claims])
    cases.of_no_form("a-fifth-claim", [SALT, {**claims, "tok": 1}])
    cases.of_no_form("only-three", [SALT, {key: claims[key] for key in ("op", "htm", "htu")}])
    cases.of_no_form("a-claim-of-no-form", [SALT, {**claims, "htm": "get"}])
    cases.of_no_form("a-name-twice", json.dumps([SALT, claims]).replace('"op"', '"op": "", "op"').encode())
    both = claims_of(concealed) | {"op": "GET /quote/{symbol}", "htm": "GET", "htu": "/", "dig": digest(b"")}
    cases.bad("private-and-open", present(signed(header(), both), disclosure), "bad_claim")
    no_digest = {key: value for key, value in claims_of(concealed).items() if value} | {"sd": "x"}
    cases.bad("sd-of-no-form", present(signed(header(), no_digest), disclosure), "bad_claim")


def private() -> dict[str, Any]:
    """private.json."""
    cases = Cases()
    _good(cases)
    _bad(cases)
    return {
        "about": (
            "Private contracts of alice as they accompany a request: contract and disclosure. `read`: ok, or "
            "the code of why they cannot be read together. `status` and `code`: what bob answers to "
            "`request` at time `at`, as in contracts.json. `contract` is what goes to the ledger, `sd` the "
            "digest of the disclosure, `disclosed` what stands in it."
        ),
        "at": AT,
        "request": REQUEST,
        "cases": cases.cases,
    }

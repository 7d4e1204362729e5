"""The test vectors hold: made again they are the same, and an independent JOSE library agrees with them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from vectors.generate import FILES, FOLDER, spell

from tokenmesh_chaincode.certificates import check_certificate, public_key
from tokenmesh_chaincode.documents import (
    DocumentError,
    canonical,
    conceal,
    derived_id,
    digest,
    parse_contract,
    parse_operation,
    parse_presented,
    parse_receipt,
    target,
    thumbprint,
    verify,
)
from tokenmesh_chaincode.documents.forms import WITHHELD
from tokenmesh_chaincode.rules import Context, apply, genesis
from tokenmesh_chaincode.state import MemoryState

VECTORS: dict[str, Any] = {
    path.name: json.loads(path.read_text()) for path in sorted(Path(FOLDER).glob("*.json"))
}
KEYS, NAMING = VECTORS["keys.json"], VECTORS["naming.json"]
WALLETS = {wallet["x5t#S256"]: wallet for wallet in KEYS["wallets"]}
CONTRACTS: list[dict[str, Any]] = VECTORS["contracts.json"]["cases"]
PRIVATE: list[dict[str, Any]] = VECTORS["private.json"]["cases"]
RECEIPTS: list[dict[str, Any]] = VECTORS["receipts.json"]["cases"]
OPERATIONS: list[dict[str, Any]] = [
    step for part in ("setup", "then") for step in VECTORS["operations.json"][part]
]
PARSERS = {"contracts": parse_contract, "receipts": parse_receipt, "operations": parse_operation}


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def documents_that_can_be_read() -> list[tuple[str, str]]:
    texts = [("contracts", case["text"]) for case in CONTRACTS if case["read"] == "ok"]
    texts += [("contracts", case["contract"]) for case in PRIVATE if case["read"] == "ok"]
    texts += [("receipts", case["text"]) for case in RECEIPTS if case["read"] == "ok"]
    unread = ("not_an_operation",)
    texts += [("operations", step["text"]) for step in OPERATIONS if step["outcome"]["code"] not in unread]
    assert len(texts) > 80
    return texts


@pytest.mark.parametrize("name", sorted(FILES))
def test_made_again_they_are_the_same(name: str) -> None:
    """Whoever changes what this compares has changed the protocol: docs/reference/protocol.md must say so."""
    assert (FOLDER / name).read_text() == spell(FILES[name]())


def test_no_vector_is_without_its_generator() -> None:
    assert VECTORS.keys() == FILES.keys()


@pytest.mark.parametrize("case", CONTRACTS, ids=named)
def test_contracts_are_read_or_refused_as_the_vectors_say(case: dict[str, Any]) -> None:
    if case["read"] == "ok":
        assert parse_contract(case["text"]).text == case["text"]
        return
    with pytest.raises(DocumentError) as caught:
        parse_contract(case["text"])
    assert caught.value.code == case["read"]
    assert case["status"] == 400


@pytest.mark.parametrize("case", PRIVATE, ids=named)
def test_private_contracts_are_read_or_refused_as_the_vectors_say(case: dict[str, Any]) -> None:
    if case["read"] == "ok":
        body = parse_presented(case["text"]).body
        assert {name: getattr(body, name) for name in case["disclosed"]} == case["disclosed"]
        alone = parse_contract(case["contract"]).body
        assert alone.sd == body.sd == case["sd"]
        assert conceal(body, case["salt"]) == (alone, case["text"].partition("~")[2])
        return
    with pytest.raises(DocumentError) as caught:
        parse_presented(case["text"])
    assert caught.value.code == case["read"]


@pytest.mark.parametrize("case", RECEIPTS, ids=named)
def test_receipts_are_read_or_refused_as_the_vectors_say(case: dict[str, Any]) -> None:
    if case["read"] == "ok":
        assert parse_receipt(case["text"]).text == case["text"]
        return
    with pytest.raises(DocumentError) as caught:
        parse_receipt(case["text"])
    assert caught.value.code == case["read"]
    assert not case["holds"]


def test_the_certificates_are_the_wallets() -> None:
    for wallet in KEYS["wallets"]:
        info = check_certificate(wallet["certificate"], [KEYS["authority"]], wallet["name"], 1_800_000_000)
        assert info.x5t == wallet["x5t#S256"]
        der = x509.load_pem_x509_certificate(wallet["certificate"].encode()).public_bytes(Encoding.DER)
        assert thumbprint(der) == wallet["x5t#S256"]
        private = ECKey.import_key(wallet["private"]).private_key
        assert private is not None
        assert private.public_key().public_numbers() == info.key.public_numbers()


def test_the_domain_is_the_genesis() -> None:
    document = KEYS["genesis"]
    assert thumbprint(canonical(document)) == KEYS["domain"]
    arguments = {name: document[name] for name in ("ca", "governors", "policy", "now", "nonce")}
    assert genesis(MemoryState(), **arguments) == KEYS["domain"]


def test_names_are_as_the_vectors_say() -> None:
    for case in NAMING["digest"]:
        assert digest(decoded(case["body"])) == case["digest"]
    for case in NAMING["target"]:
        assert target(case["path"], case["query"]) == case["target"]
    for case in NAMING["derived_id"]:
        job = (case[name] for name in ("dom", "payer", "payee", "key", "generation"))
        assert derived_id(*job) == case["id"]
    for case in NAMING["canonical"]:
        assert canonical(case["value"]).decode() == case["text"]


def test_operations_have_the_outcomes_that_the_vectors_say() -> None:
    state = MemoryState()
    document = KEYS["genesis"]
    genesis(state, **{name: document[name] for name in ("ca", "governors", "policy", "now", "nonce")})
    for step in OPERATIONS:
        outcome = apply(state, step["text"], Context(step["now"]), disclosures=step.get("disclosures", {}))
        assert outcome.to_json() == step["outcome"], step["why"]
    assert state.values == VECTORS["operations.json"]["state"]


@pytest.mark.parametrize(("kind", "text"), documents_that_can_be_read())
def test_an_independent_library_reads_and_judges_every_document_alike(kind: str, text: str) -> None:
    """joserfc knows nothing of us: same claims, and the same answer to whether the signature holds."""
    ours: Any = PARSERS[kind](text)
    wallet = WALLETS[ours.header.x5t]
    key = ECKey.import_key({name: wallet["private"][name] for name in ("kty", "crv", "x", "y")})
    holds = verify(ours, public_key(wallet["certificate"]))
    if not holds:
        with pytest.raises(JoseError):
            jws.deserialize_compact(text, key, algorithms=["ES256"])
        return
    theirs = jws.deserialize_compact(text, key, algorithms=["ES256"])
    assert theirs.headers()["kid"] == ours.header.kid
    claims = json.loads(theirs.payload)
    withheld = WITHHELD if "sd" in claims else ()
    said = ours.body._asdict().items()
    assert all(claims.get(name) == value for name, value in said if name not in withheld)
    assert not claims.keys() & set(withheld)


def test_what_an_independent_library_signs_is_read_and_holds() -> None:
    wallet = next(wallet for wallet in KEYS["wallets"] if wallet["id"] == "alice")
    good = next(case for case in CONTRACTS if case["name"] == "by-allowance")
    claims = decoded(good["text"].split(".")[1])
    header = {
        "alg": "ES256",
        "typ": "tokenmesh-contract+jwt",
        "kid": "alice",
        "x5t#S256": wallet["x5t#S256"],
    }
    text = jws.serialize_compact(header, claims, ECKey.import_key(wallet["private"]), algorithms=["ES256"])
    signed = parse_contract(text)
    assert signed.body == parse_contract(good["text"]).body
    assert verify(signed, public_key(wallet["certificate"]))


def test_signatures_are_plain_ecdsa() -> None:
    """The same by the primitive itself: SHA-256, P-256, r and s of 32 bytes each."""
    signed = parse_contract(CONTRACTS[0]["text"])
    key = public_key(WALLETS[signed.header.x5t]["certificate"])
    r, s = (int.from_bytes(signed.signature[at : at + 32]) for at in (0, 32))
    key.verify(encode_dss_signature(r, s), signed.signing_input, ec.ECDSA(hashes.SHA256()))

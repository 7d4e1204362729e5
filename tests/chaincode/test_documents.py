"""Documents: what is signed is read back, and whatever is not exactly a document is refused with its code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from support.economy import START, wallet
from tokenmesh_chaincode.documents import (
    Contract,
    DocumentError,
    Operation,
    Receipt,
    der_signature,
    digest,
    parse_contract,
    parse_operation,
    parse_receipt,
    raw_signature,
    sign,
    verify,
    verify_many,
)
from tokenmesh_chaincode.limits import (
    CONTRACT_BYTES_MAX,
    DEPTH_MAX,
    OPERATION_BYTES_MAX,
    RECEIPT_BYTES_MAX,
    TOKENS_MAX,
)

DOM = "d" * 43
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

CONTRACT = Contract(
    dom=DOM,
    iss="alice",
    aud="bob",
    op="GET /quote/{symbol}",
    htm="GET",
    htu="/quote/ACME?full=1",
    dig=digest(b""),
    tok=5,
    jti="0123456789abcdefABCD-_",
    iat=START,
    exp=START + 60,
    via="allowance-1",
    lane="lane-1",
    seq=7,
    tp="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
CLAIMS = {name: value for name, value in CONTRACT._asdict().items() if value is not None}
RECEIPT = Receipt(DOM, "bob", "alice", CONTRACT.jti, "fulfilled", 5, 200, digest(b"{}"), START, "tx-1", 95)
OPERATION = Operation(DOM, "alice", "op-1", START, START + 300, "transfer", {"to": "bob", "tokens": 3})


def segment(data: bytes | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header_of(typ: str | None = "tokenmesh-contract+jwt", **changes: Any) -> dict[str, Any]:
    header = {"alg": "ES256", "typ": typ, "kid": "alice", "x5t#S256": wallet("alice").x5t, **changes}
    return {name: value for name, value in header.items() if value is not None}


def claims_of(**changes: Any) -> dict[str, Any]:
    claims = {**CLAIMS, **changes}
    return {name: value for name, value in claims.items() if value is not ...}


def document(header: bytes | dict[str, Any], claims: bytes | dict[str, Any]) -> str:
    """A document with any header and claims, its signature good."""
    signing_input = f"{segment(header)}.{segment(claims)}"
    return f"{signing_input}.{segment(wallet('alice').sign(signing_input.encode()))}"


def code_of(text: str | bytes, parse: Callable[[str | bytes], Any] = parse_contract) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    return caught.value.code


def body_or_code(text: str) -> Contract | str:
    try:
        return parse_contract(text).body
    except DocumentError as error:
        return error.code


def test_what_is_signed_is_read_back_and_verifies() -> None:
    for body, parse in ((CONTRACT, parse_contract), (RECEIPT, parse_receipt), (OPERATION, parse_operation)):
        text = sign(body, wallet("alice"))
        signed = parse(text)
        assert signed.body == body
        assert signed.text == text
        assert signed.header.kid == "alice"
        assert verify(signed, wallet("alice").key.public_key())
        assert not verify(signed, wallet("bob").key.public_key())
        assert parse(text.encode()) == signed


def test_optional_claims_that_are_not_given_are_absent() -> None:
    text = sign(CONTRACT._replace(via="hold", lane=None, seq=None, tp=None), wallet("alice"))
    claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
    assert not claims.keys() & {"lane", "seq", "tp"}
    assert parse_contract(text).body.seq is None


def test_a_changed_byte_breaks_the_signature() -> None:
    header, claims, signature = sign(CONTRACT, wallet("alice")).split(".")
    other = segment({**CLAIMS, "tok": 4})
    signed = parse_contract(f"{header}.{other}.{signature}")
    assert not verify(signed, wallet("alice").key.public_key())
    assert claims != other


def test_many_are_verified_each_by_itself() -> None:
    good = parse_contract(sign(CONTRACT, wallet("alice")))
    items = [(good, wallet(name).key.public_key()) for name in ("alice", "bob", "alice")]
    assert verify_many(items) == [True, False, True]
    assert verify_many([]) == []


def test_high_and_low_s_are_both_accepted() -> None:
    text = sign(CONTRACT, wallet("alice"))
    signed = parse_contract(text)
    r, s = signed.signature[:32], int.from_bytes(signed.signature[32:])
    twin = r + (P256_ORDER - s).to_bytes(32)
    for signature in (signed.signature, twin):
        other = parse_contract(text.rpartition(".")[0] + "." + segment(signature))
        assert verify(other, wallet("alice").key.public_key())


@pytest.mark.parametrize(
    "raw", [bytes(64), b"\xff" * 64, b"\x00" * 32 + b"\x01" * 32, b"\x80" + b"\x00" * 63]
)
def test_numbers_that_are_no_signature_do_not_verify(raw: bytes) -> None:
    signed = parse_contract(sign(CONTRACT, wallet("alice")))._replace(signature=raw)
    assert not verify(signed, wallet("alice").key.public_key())


@given(r=st.integers(0, 2**256 - 1), s=st.integers(0, 2**256 - 1))
def test_der_by_hand_is_der(r: int, s: int) -> None:
    raw = r.to_bytes(32) + s.to_bytes(32)
    assert decode_dss_signature(der_signature(raw)) == (r, s)
    assert raw_signature(der_signature(raw)) == raw


@pytest.mark.parametrize(
    "alg", ["none", "None", "HS256", "ES384", "RS256", "EdDSA", "es256", "", 5, ["ES256"]]
)
def test_no_algorithm_but_es256(alg: object) -> None:
    assert code_of(document(header_of(alg=alg), claims_of())) == "unknown_algorithm"


def test_alg_none_with_an_empty_signature() -> None:
    assert code_of(f"{segment(header_of(alg='none'))}.{segment(claims_of())}.") == "unknown_algorithm"


def test_hs256_with_the_public_key_as_secret() -> None:
    secret = wallet("alice").key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = f"{segment(header_of(alg='HS256'))}.{segment(claims_of())}"
    mac = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
    assert code_of(f"{signing_input}.{segment(mac)}") == "unknown_algorithm"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (header_of(crit=["exp"]), "bad_header"),
        (header_of(crit=[]), "bad_header"),
        (header_of(kid=None), "bad_header"),
        (header_of(kid="Alice"), "bad_header"),
        (header_of(kid="a/b"), "bad_header"),
        (header_of(kid="a" * 64), "bad_header"),
        (header_of(kid=5), "bad_header"),
        ({**header_of(), "x5t#S256": "short"}, "bad_header"),
        ({**header_of(), "x5t#S256": None}, "bad_header"),
        (header_of(typ="JWT"), "not_a_contract"),
        (header_of(typ="tokenmesh-receipt+jwt"), "not_a_contract"),
        (header_of(typ=None), "not_a_contract"),
        (b"[]", "not_a_contract"),
        (b"not json", "not_a_contract"),
        (b"\xff\xfe", "not_a_contract"),
        (b'{"alg":"ES256","alg":"none"}', "duplicate_claim"),
        (header_of(pad="x" * 600), "too_large"),
    ],
)
def test_a_header_that_does_not_hold(header: bytes | dict[str, Any], code: str) -> None:
    assert code_of(document(header, claims_of())) == code


def test_what_is_not_understood_and_not_critical_is_ignored() -> None:
    """RFC 7515, section 4, and RFC 7519, section 4: neither a parameter nor a claim more is an error."""
    text = document(header_of(cty="x"), claims_of(more={"a": [1, 2]}))
    assert parse_contract(text).body == CONTRACT


def test_a_document_of_one_kind_is_none_of_another() -> None:
    contract, receipt, operation = (sign(body, wallet("alice")) for body in (CONTRACT, RECEIPT, OPERATION))
    assert code_of(receipt) == code_of(operation) == "not_a_contract"
    assert code_of(contract, parse_receipt) == code_of(operation, parse_receipt) == "not_a_receipt"
    assert code_of(contract, parse_operation) == code_of(receipt, parse_operation) == "not_an_operation"


@pytest.mark.parametrize("name", ["dom", "iss", "aud", "op", "htm", "htu", "dig", "tok", "jti", "iat", "exp"])
def test_a_missing_claim_is_named(name: str) -> None:
    with pytest.raises(DocumentError, match=name) as caught:
        parse_contract(document(header_of(), claims_of(**{name: ...})))
    assert caught.value.code == "missing_claim"


@pytest.mark.parametrize("tp", [CONTRACT.tp, None])
@pytest.mark.parametrize("via", ["hold", CONTRACT.via])
def test_every_spelling_of_a_contract_is_read_alike(via: str, tp: str | None) -> None:
    """The usual one, which one expression reads, and one with white space, which it leaves to the parser."""
    numbering = {"lane": None, "seq": None} if via == "hold" else {}
    text = sign(CONTRACT._replace(via=via, tp=tp, **numbering), wallet("alice"))
    header, claims, signature = text.split(".")
    spaced = json.dumps(json.loads(base64.urlsafe_b64decode(claims + "==")), indent=1).encode()
    other = ".".join((header, base64.urlsafe_b64encode(spaced).rstrip(b"=").decode(), signature))
    assert (
        parse_contract(text).body
        == parse_contract(other).body
        == CONTRACT._replace(via=via, tp=tp, **numbering)
    )


@pytest.mark.parametrize("name", ["lane", "seq"])
def test_lane_and_seq_belong_to_an_allowance_and_to_nothing_else(name: str) -> None:
    assert code_of(document(header_of(), claims_of(**{name: ...}))) == "missing_claim"
    assert code_of(document(header_of(), claims_of(via="hold", **{name: ...}))) == "bad_claim"


@pytest.mark.parametrize("tokens", [-1, TOKENS_MAX + 1, 10**30, True, False, "5", None, [5], {}])
def test_tokens_that_are_no_amount(tokens: object) -> None:
    assert code_of(document(header_of(), claims_of(tok=tokens))) == "bad_claim"


@pytest.mark.parametrize("text", ["5.0", "0.5", "5e0", "1E2", "NaN", "Infinity", "-Infinity", "9" * 5000])
def test_numbers_are_whole(text: str) -> None:
    claims = json.dumps(claims_of(tok=0)).replace('"tok": 0', f'"tok": {text}')
    assert code_of(document(header_of(), claims.encode())) == "bad_claim"


def test_tokens_may_be_none_and_as_many_as_json_can_count() -> None:
    for tokens in (0, TOKENS_MAX):
        assert parse_contract(document(header_of(), claims_of(tok=tokens))).body.tok == tokens


@pytest.mark.parametrize(
    "changes",
    [
        {"dom": "short"},
        {"iss": "Alice"},
        {"iss": "-alice"},
        {"iss": "alice\n"},
        {"iss": "a" * 64},
        {"aud": ["bob"]},
        {"aud": ""},
        {"op": ""},
        {"op": "a\nb"},
        {"op": "x" * 257},
        {"htm": "get"},
        {"htm": "GET POST"},
        {"htu": "quote"},
        {"htu": "/a b"},
        {"htu": "/\u00e9"},
        {"htu": "/" + "x" * 4096},
        {"dig": "sha-256=:AAAA:"},
        {"dig": digest(b"")[:-1]},
        {"dig": "md5=:" + "A" * 43 + "=:"},
        {"jti": ""},
        {"jti": "a/b"},
        {"jti": "a" * 65},
        {"via": ""},
        {"via": "../x"},
        {"via": None},
        {"lane": ""},
        {"lane": 5},
        {"seq": -1},
        {"seq": "7"},
        {"seq": True},
        {"seq": 2**53},
        {"tp": "00-zz"},
        {"tp": None},
        {"iat": -1},
        {"iat": True},
        {"iat": "now"},
        {"exp": START},
        {"exp": START - 1},
        {"exp": 10**15},
    ],
)
def test_a_claim_without_its_form(changes: dict[str, object]) -> None:
    assert code_of(document(header_of(), claims_of(**changes))) == "bad_claim"


@pytest.mark.parametrize("tail", ["", "\n"])
def test_a_newline_does_not_smuggle_one_claim_into_the_next(tail: str) -> None:
    """The fast check joins claims by newlines: two values in one claim must not pass for two claims."""
    assert code_of(document(header_of(), claims_of(iss=f"alice\nbob{tail}", aud=""))) == "bad_claim"
    assert code_of(document(header_of(), claims_of(jti=f"id\nallowance-1{tail}"))) == "bad_claim"


@pytest.mark.parametrize(
    "claims",
    [
        b'{"tok":1,"tok":1}',
        b'{"more":{"a":1,"a":1}}',
        b'{"more":[[{"a":{"b":0,"\\u0062":0}}]]}',
    ],
)
def test_a_name_that_stands_twice_at_any_depth(claims: bytes) -> None:
    assert code_of(document(header_of(), claims)) == "duplicate_claim"
    duplicate = json.dumps(claims_of()).encode()[:-1] + b', "tok": 0}'
    assert code_of(document(header_of(), duplicate)) == "duplicate_claim"


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"a":[{"b":'])
def test_nesting_beyond_the_limit(opening: str) -> None:
    closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
    for levels in (DEPTH_MAX + 1, 400):
        nested = f'{{"more":{opening * levels}0{closing * levels}}}'
        assert code_of(document(header_of(), nested.encode())) == "too_deep"
    assert code_of(document(header_of(), (opening * 400).encode())) == "too_deep"


def test_brackets_in_text_are_not_nesting() -> None:
    for text in ("[" * 100, '\\"' + "{[" * 50, "\\\\"):
        claims = json.dumps(claims_of()).encode()[:-1] + b', "more": "' + text.encode() + b'"}'
        assert parse_contract(document(header_of(), claims)).body == CONTRACT
    assert (
        parse_contract(document(header_of(), claims_of(more=[[1, []], [2], [3], [4], [5], [6]]))).body.tok
        == 5
    )


@pytest.mark.parametrize(
    "claims",
    [b"", b"null", b"[]", b'"text"', b"{", b"{}x", b"{'tok':1}", b'{"tok":1,}', b"\xff\xfe{}", b'{"a":"\n"}'],
)
def test_claims_that_are_no_json_object(claims: bytes) -> None:
    assert code_of(document(header_of(), claims)) == "not_a_contract"


def test_half_a_surrogate_pair_is_no_text() -> None:
    whole, half = b'{"more":"\\ud83d\\ude00"}', b'{"more":["\\ud83d"]}'
    assert code_of(document(header_of(), half)) == "not_a_contract"
    assert code_of(document(header_of(), whole)) == "missing_claim"


@pytest.mark.parametrize(
    ("parse", "most", "code"),
    [
        (parse_contract, CONTRACT_BYTES_MAX, "not_a_contract"),
        (parse_receipt, RECEIPT_BYTES_MAX, "not_a_receipt"),
        (parse_operation, OPERATION_BYTES_MAX, "not_an_operation"),
    ],
)
def test_size_is_judged_first(parse: Callable[[str | bytes], Any], most: int, code: str) -> None:
    assert code_of("." * most, parse) == code
    assert code_of("." * (most + 1), parse) == "too_large"
    assert code_of(b"\xff" * 10_000_000, parse) == "too_large"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "\u00e9.\u00e9.\u00e9",
        b"\xff.\xff.\xff",
        "not a contract",
        " .. ",
    ],
)
def test_what_is_no_document_at_all(text: str | bytes) -> None:
    assert code_of(text) == "not_a_contract"


def test_base64url_has_one_spelling() -> None:
    """Padding, the other alphabet, white space, and unused bits that are not zero are all refused."""
    header, claims, signature = sign(CONTRACT, wallet("alice")).split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = signature[:-1] + alphabet[alphabet.index(signature[-1]) + 1]
    for other in (
        signature + "==",
        signature + "=",
        sibling,
        signature[:-1],
        signature + "A",
        f" {signature}",
    ):
        assert code_of(f"{header}.{claims}.{other}") == "not_a_contract"
    for junk in ("\n\n\n\n", "!!!!", "====", "    ", "+/+/"):
        assert code_of(f"{header}.{claims}.{signature[:8]}{junk}{signature[8:]}") == "not_a_contract"
    for other in (claims + "=", claims[:5] + "+" + claims[5:], claims[:4] + "\n" + claims[4:], "/" + claims):
        assert code_of(f"{header}.{other}.{signature}") == "not_a_contract"
    assert code_of(f"{header}=.{claims}.{signature}") == "not_a_contract"


@pytest.mark.parametrize("size", [0, 1, 63, 65, 96])
def test_a_signature_has_64_bytes(size: int) -> None:
    signing_input = f"{segment(header_of())}.{segment(claims_of())}"
    assert code_of(f"{signing_input}.{segment(bytes(size))}") == "not_a_contract"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"out": "done"}, "bad_claim"),
        ({"tok": -1}, "bad_claim"),
        ({"status": 99}, "bad_claim"),
        ({"status": 600}, "bad_claim"),
        ({"left": -1}, "bad_claim"),
        ({"tx": "a b"}, "bad_claim"),
        ({"tx": None}, "bad_claim"),
        ({"dig": "x"}, "bad_claim"),
        ({"iat": 1.5}, "bad_claim"),
        ({"jti": ...}, "missing_claim"),
    ],
)
def test_a_receipt_that_does_not_hold(changes: dict[str, Any], code: str) -> None:
    claims = {k: v for k, v in {**RECEIPT._asdict(), **changes}.items() if v is not ...}
    assert code_of(document(header_of("tokenmesh-receipt+jwt"), claims), parse_receipt) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"act": "Mint"}, "bad_claim"),
        ({"act": ""}, "bad_claim"),
        ({"arg": []}, "bad_claim"),
        ({"arg": None}, "bad_claim"),
        ({"arg": ...}, "missing_claim"),
        ({"exp": START}, "bad_claim"),
        ({"jti": ...}, "missing_claim"),
    ],
)
def test_an_operation_that_does_not_hold(changes: dict[str, Any], code: str) -> None:
    claims = {k: v for k, v in {**OPERATION._asdict(), **changes}.items() if v is not ...}
    assert code_of(document(header_of("tokenmesh-operation+jwt"), claims), parse_operation) == code


@given(st.one_of(st.text(), st.binary()))
def test_any_input_is_read_or_refused_but_nothing_else(text: str | bytes) -> None:
    for parse in (parse_contract, parse_receipt, parse_operation):
        with pytest.raises(DocumentError):
            parse(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(changes=st.dictionaries(st.sampled_from(Contract._fields), _json, max_size=3))
def test_any_claims_are_read_or_refused_but_nothing_else(changes: dict[str, Any]) -> None:
    claims = claims_of(**changes)
    read = body_or_code(f"{segment(header_of())}.{segment(claims)}.{segment(bytes(64))}")
    if isinstance(read, str):
        assert read in {"bad_claim", "missing_claim", "too_deep", "too_large", "not_a_contract"}
    else:
        assert {name: value for name, value in read._asdict().items() if name in claims} == claims

"""Private contracts: what is withheld is nowhere in what is signed, and only its own disclosure opens it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.economy import START, wallet
from tokenmesh_chaincode.documents import (
    Contract,
    DocumentError,
    conceal,
    digest,
    disclose,
    new_salt,
    parse_contract,
    parse_presented,
    present,
    sign,
    take_presented,
    verify,
)
from tokenmesh_chaincode.limits import CONTRACT_BYTES_MAX, DISCLOSURE_BYTES_MAX, OPERATION_NAME_LENGTH_MAX

CONTRACT = Contract(
    dom="d" * 43,
    iss="alice",
    aud="bob",
    op="POST /loans/{id}",
    htm="POST",
    htu="/loans/4711?fast=1",
    dig=digest(b"a secret"),
    tok=5,
    jti="0123456789abcdefABCD-_",
    iat=START,
    exp=START + 60,
    via="hold",
)
WITHHELD = {"op": CONTRACT.op, "htm": CONTRACT.htm, "htu": CONTRACT.htu, "dig": CONTRACT.dig}
SALT = "c2l4dGVlbiBieXRlcyE_LQ"


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def presented(body: Contract = CONTRACT) -> str:
    concealed, disclosure = conceal(body, SALT)
    return present(sign(concealed, wallet("alice")), disclosure)


def with_disclosure(disclosure: str) -> str:
    """A contract whose ``sd`` is that of whatever is given as its disclosure."""
    concealed, _ = conceal(CONTRACT, SALT)
    sd = segment(hashlib.sha256(disclosure.encode("utf-8", "replace")).digest())
    return present(sign(concealed._replace(sd=sd), wallet("alice")), disclosure)


def code_of(text: str | bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        parse_presented(text)
    return caught.value.code


def test_what_is_signed_says_nothing_of_the_request() -> None:
    text, disclosure = take_presented(presented())
    claims = json.loads(decoded(text.split(".")[1]))
    assert not claims.keys() & {"op", "htm", "htu", "dig"}
    assert "loans" not in json.dumps(claims)
    assert claims["sd"] == segment(hashlib.sha256((disclosure or "").encode()).digest())
    assert {"dom", "iss", "aud", "tok", "jti", "iat", "exp", "via"} <= claims.keys()


def test_with_its_disclosure_it_reads_as_any_other_contract() -> None:
    for text in (presented(), presented().encode()):
        signed = parse_presented(text)
        assert signed.body == CONTRACT._replace(sd=signed.body.sd)
        assert take_presented(signed.text)[1] == take_presented(presented())[1]
        assert verify(signed, wallet("alice").key.public_key())


def test_without_its_disclosure_it_reads_as_far_as_everyone_may_know() -> None:
    signed = parse_contract(take_presented(presented())[0])
    assert signed.body[:2] == CONTRACT[:2]
    assert (signed.body.op, signed.body.htm, signed.body.htu, signed.body.dig) == ("", "", "", "")
    assert signed.body.tok == 5
    assert verify(signed, wallet("alice").key.public_key())
    with pytest.raises(DocumentError, match="without its disclosure") as caught:
        parse_presented(signed.text)
    assert caught.value.code == "undisclosed"


def test_a_contract_that_is_not_private_is_read_as_it_always_was() -> None:
    text = sign(CONTRACT, wallet("alice"))
    assert parse_presented(text) == parse_contract(text)
    assert code_of(present(text, conceal(CONTRACT, SALT)[1])) == "bad_disclosure"


def test_the_disclosure_of_another_contract_does_not_open_it() -> None:
    text, _ = take_presented(presented())
    _, other = take_presented(presented(CONTRACT._replace(htu="/loans/4712")))
    assert code_of(present(text, other or "")) == "undisclosed"
    _, salted = conceal(CONTRACT, new_salt())
    assert code_of(present(text, salted)) == "undisclosed"


def test_two_contracts_for_the_same_request_have_nothing_in_common() -> None:
    one, other = (conceal(CONTRACT, new_salt())[0].sd for _ in range(2))
    assert one != other
    assert len(new_salt()) == 22


@pytest.mark.parametrize(
    "disclosure",
    [
        "",
        "=",
        "not base64url!",
        segment(b"no json"),
        segment(b"{}"),
        segment(b"[]"),
        segment(json.dumps([SALT]).encode()),
        segment(json.dumps([SALT, WITHHELD, 1]).encode()),
        segment(json.dumps([SALT[:-1], WITHHELD]).encode()),
        segment(json.dumps([SALT + "A", WITHHELD]).encode()),
        segment(json.dumps([1, WITHHELD]).encode()),
        segment(json.dumps([SALT, [1]]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "tok": 1}]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "op": ""}]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "op": None}]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "htm": "post"}]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "htu": "loans"}]).encode()),
        segment(json.dumps([SALT, {**WITHHELD, "dig": "md5"}]).encode()),
        segment(json.dumps([SALT, {key: WITHHELD[key] for key in ("op", "htm", "htu")}]).encode()),
        segment(b"[" * 1000 + b"]" * 1000),
        segment(json.dumps([SALT, WITHHELD]).replace('"op"', '"op": "GET /", "op"').encode()),
    ],
)
def test_what_is_no_disclosure_opens_nothing_though_the_digest_is_right(disclosure: str) -> None:
    assert code_of(with_disclosure(disclosure)) == "bad_disclosure"


def test_contract_and_disclosure_have_one_limit_together() -> None:
    text, _ = take_presented(presented())
    room = CONTRACT_BYTES_MAX - len(text) - 1
    assert code_of(present(text, "A" * (room + 1))) == "too_large"
    assert code_of(present(text, "A" * room)) != "too_large"


def test_a_disclosure_by_itself_has_a_limit() -> None:
    concealed, _ = conceal(CONTRACT, SALT)
    with pytest.raises(DocumentError) as caught:
        disclose(concealed, "A" * (DISCLOSURE_BYTES_MAX + 1))
    assert caught.value.code == "bad_disclosure"


def test_the_longest_claims_fit_into_a_disclosure() -> None:
    longest = CONTRACT._replace(op="é" * OPERATION_NAME_LENGTH_MAX, htu="/" + "x" * 4095)
    concealed, disclosure = conceal(longest, SALT)
    assert disclose(concealed, disclosure) == longest._replace(sd=concealed.sd)
    assert parse_presented(presented(longest)).body.op == longest.op


@pytest.mark.parametrize("name", ["op", "htm", "htu", "dig"])
def test_what_is_withheld_cannot_stand_in_the_contract_as_well(name: str) -> None:
    claims = {key: value for key, value in conceal(CONTRACT, SALT)[0]._asdict().items() if value}
    assert refusal_of({**claims, name: getattr(CONTRACT, name)}) == "bad_claim"
    assert refusal_of({**claims, name: ""}) == "bad_claim"


@pytest.mark.parametrize("sd", [None, "", "a" * 42, "a" * 44, "a" * 42 + "B", 1, True, ["a"], "ä" * 43])
def test_a_digest_without_its_form_is_refused(sd: Any) -> None:
    claims = {key: value for key, value in conceal(CONTRACT, SALT)[0]._asdict().items() if value}
    assert refusal_of({**claims, "sd": sd}) == "bad_claim"


def test_a_private_contract_lacks_no_other_claim() -> None:
    claims = {key: value for key, value in conceal(CONTRACT, SALT)[0]._asdict().items() if value}
    for name in claims.keys() - {"sd"}:
        lacking = {key: value for key, value in claims.items() if key != name}
        assert refusal_of(lacking) == "missing_claim", name


def refusal_of(claims: dict[str, Any]) -> str:
    head = sign(CONTRACT, wallet("alice")).split(".")[0]
    signing_input = f"{head}.{segment(json.dumps(claims).encode())}"
    signature = segment(wallet("alice").sign(signing_input.encode()))
    with pytest.raises(DocumentError) as caught:
        parse_contract(f"{signing_input}.{signature}")
    return caught.value.code


@given(st.binary(max_size=200))
def test_whatever_comes_behind_a_contract_it_is_refused_in_words(data: bytes) -> None:
    text, _ = take_presented(presented())
    known = {"undisclosed", "bad_disclosure", "not_a_contract"}
    assert code_of(text.encode() + b"~" + data) in known

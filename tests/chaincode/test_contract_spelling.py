"""However a contract's claims are written down, they are read alike.

What a client usually writes is read by one expression, and everything else by a parser: no contract may pass
the one that the other would refuse, or be read as something else.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.economy import START, wallet
from tokenmesh_chaincode.documents import Contract, DocumentError, digest, parse_contract
from tokenmesh_chaincode.limits import SEQ_MAX, TIME_S_MAX, TOKENS_MAX

CLAIMS: dict[str, Any] = {
    "dom": "d" * 43,
    "iss": "alice",
    "aud": "bob",
    "op": "GET /quote/{symbol}",
    "htm": "GET",
    "htu": "/quote/ACME?full=1",
    "dig": digest(b""),
    "tok": 5,
    "jti": "0123456789abcdefABCD-_",
    "iat": START,
    "exp": START + 60,
    "via": "allowance-1",
    "lane": "lane-1",
    "seq": 7,
    "tp": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
NAMES = tuple(CLAIMS)
ODD = (
    "",
    "a",
    "hold",
    "-a",
    "a-",
    "A",
    '"',
    "\\",
    "a\nb",
    "a b",
    "/",
    '/"',
    "/\\",
    "/ä",
    "ä",
    "\u2028",
    "00",
)
NUMBERS = (-1, 0, 1, 60, START, START + 60, TIME_S_MAX, SEQ_MAX, TOKENS_MAX, 10**16, 10**17, True, None)
VALUES = st.sampled_from((*ODD, *NUMBERS, [], {}, 5.0)) | st.text(max_size=5) | st.integers()


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read(payload: str) -> Contract | str:
    header = {
        "alg": "ES256",
        "typ": "tokenmesh-contract+jwt",
        "kid": "alice",
        "x5t#S256": wallet("alice").x5t,
    }
    text = f"{segment(json.dumps(header).encode())}.{segment(payload.encode())}.{segment(bytes(64))}"
    try:
        return parse_contract(text).body
    except DocumentError as error:
        return f"{error.code}: {error}"


def usual(claims: dict[str, Any]) -> str:
    """As clients write it: compact, nothing escaped that need not be."""
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":"))


@given(
    changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2),
    without=st.sets(st.sampled_from(NAMES), max_size=1),
)
def test_white_space_order_and_escapes_change_nothing(changes: dict[str, Any], without: set[str]) -> None:
    claims = {name: value for name, value in (CLAIMS | changes).items() if name not in without}
    expected = read(usual(claims))
    assert read(json.dumps(claims, ensure_ascii=False)) == expected
    assert read(json.dumps(claims)) == expected
    assert read(usual({"x": 1, **claims})) == expected
    if not without and not changes:
        assert isinstance(expected, Contract)


@pytest.mark.parametrize("name", ["tok", "iat", "exp", "seq"])
@pytest.mark.parametrize(
    "number", ["007", "+7", "-0", "7.0", "7e0", " 7", "7 ", "0x7", "\u0667", "", '"7"', "9" * 400]
)
def test_a_number_is_written_as_json_has_it(name: str, number: str) -> None:
    """What is not a whole number in JSON is not one here; white space and ``-0`` belong to JSON."""
    payload = usual(CLAIMS | {name: "@"}).replace('"@"', number)
    spaced = payload.replace('{"dom"', '{ "dom"')
    assert read(payload) == read(spaced)
    if number not in ("-0", " 7", "7 "):
        assert isinstance(read(payload), str)


def test_a_claim_that_stands_twice_is_refused_in_the_usual_spelling_too() -> None:
    for name in NAMES:
        twice = f"{usual(CLAIMS)[:-1]},{usual({name: CLAIMS[name]})[1:]}"
        assert str(read(twice)).startswith("duplicate_claim")


@pytest.mark.parametrize("after", [" ", "\n", "}", ",", "x", "\x00", "{}"])
def test_only_white_space_may_follow(after: str) -> None:
    expected = read(usual(CLAIMS)) if after.isspace() else None
    found = read(usual(CLAIMS) + after)
    assert found == expected if expected else isinstance(found, str)

"""Ids, digests, targets and canonical JSON: both sides of a call come to the same names."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.economy import START
from tokenmesh_chaincode.documents import (
    canonical,
    derived_id,
    digest,
    is_form,
    is_name,
    new_id,
    target,
    thumbprint,
)

DOM = "d" * 43


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/quote/ACME", "", "/quote/ACME"),
        ("", "", "/"),
        ("/quote/ACME", "a=1&b=%20", "/quote/ACME?a=1&b=%20"),
        ("/quote/%41CME", "", "/quote/ACME"),
        ("/quote/a%2Fb", "", "/quote/a/b"),
        ("/caf%c3%a9", "", "/caf%C3%A9"),
        ("/caf\u00e9".encode(), "", "/caf%C3%A9"),
        ("/a%2541", "", "/a%2541"),
        ("/a%zz", "", "/a%25zz"),
        ("/a b", "", "/a%20b"),
        ("/~a-b_c.d!$&'()*+,;=:@", "", "/~a-b_c.d!$&'()*+,;=:@"),
        ("/x", "q=\u00e9", "/x?q=%E9"),
        (b"/x", b"q=1", "/x?q=1"),
        ("/x", "?", "/x??"),
        ("/x", "\u4e2d", "/x?%E4%B8%AD"),
    ],
)
def test_a_target_has_one_spelling(path: str | bytes, query: str | bytes, expected: str) -> None:
    assert target(path, query) == expected


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_wire_and_decoded_path_come_to_the_same_target(path: bytes, query: bytes) -> None:
    """ASGI hands over the path as it was sent, WSGI decoded; it is one target, and a well-formed one."""
    wire = "/" + "".join(f"%{byte:02x}" for byte in path)
    spelled = target(wire, query)
    assert spelled == target(b"/" + path, query, decoded=True)
    assert spelled == target((b"/" + path).decode("latin-1"), query.decode("latin-1"), decoded=True)
    assert is_form("htu", spelled)
    assert target(*spelled.partition("?")[::2]) == spelled


def test_a_path_that_the_server_has_decoded_is_not_decoded_twice() -> None:
    assert target("/a%2541") == target("/a%41", decoded=True) == "/a%2541"


@given(st.binary())
def test_a_digest_is_rfc_9530(body: bytes) -> None:
    encoded = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert digest(body) == f"sha-256=:{encoded}:"
    assert is_form("dig", digest(body))


def test_new_ids_are_of_the_form_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_form("id", one) and len(one) == 22 for one in ids)


def test_a_derived_id_follows_from_the_job_and_from_nothing_else() -> None:
    base = (DOM, "alice", "bob", "order-17")
    assert derived_id(*base) == derived_id(*base, generation=0)
    assert is_form("id", derived_id(*base))
    others = {
        derived_id("e" * 43, "alice", "bob", "order-17"),
        derived_id(DOM, "alicebob", "", "order-17"),
        derived_id(DOM, "bob", "alice", "order-17"),
        derived_id(DOM, "alice", "bob", "order-18"),
        derived_id(*base, generation=1),
    }
    assert len(others | {derived_id(*base)}) == 6


def test_a_derived_id_as_the_protocol_describes_it() -> None:
    text = f'["tokenmesh-contract","{DOM}","alice","bob","order-17",2]'
    expected = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:16]).decode().rstrip("=")
    assert derived_id(DOM, "alice", "bob", "order-17", 2) == expected


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_json)
def test_canonical_json_is_the_value_and_has_one_spelling(value: Any) -> None:
    spelled = canonical(value)
    assert json.loads(spelled) == value
    assert canonical(json.loads(spelled)) == spelled


def test_canonical_json_sorts_names_and_has_no_white_space() -> None:
    assert canonical({"b": [1, {"d": "\u00e9", "c": None}], "a": True}) == (
        '{"a":true,"b":[1,{"c":null,"d":"\u00e9"}]}'.encode()
    )


@pytest.mark.parametrize("name", ["a", "service-b", "a.b_c-9", "0", "x" * 63])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "a b", "x" * 64, "a\n", "\u00e9", None, 5])
def test_what_is_no_name(name: object) -> None:
    assert not is_name(name)


def test_a_thumbprint_has_43_characters() -> None:
    assert len(thumbprint(str(START).encode())) == 43

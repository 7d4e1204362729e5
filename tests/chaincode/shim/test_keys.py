"""Composite keys and key-level policies, as bytes that every shim of Fabric forms alike."""

from __future__ import annotations

import pytest
from fabric_protos.common import policies_pb2
from hypothesis import given
from hypothesis import strategies as st

from tokenmesh_chaincode.shim import create_composite_key, key_policy, split_composite_key
from tokenmesh_chaincode.shim.keys import partial_range

PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\U0010ffff"))


@given(PART, st.lists(PART))
def test_what_is_put_together_comes_apart(object_type: str, attributes: list[str]) -> None:
    key = create_composite_key(object_type, attributes)
    assert split_composite_key(key) == (object_type, attributes)
    for count in range(len(attributes) + 1):
        start, end = partial_range(object_type, attributes[:count])
        assert start <= key < end


def test_the_form_is_fabrics() -> None:
    assert create_composite_key("owner~asset", ["tom", "1"]) == "\x00owner~asset\x00tom\x001\x00"


@pytest.mark.parametrize("part", ["a\x00b", "a\U0010ffff"])
def test_parts_that_would_be_ambiguous_are_refused(part: str) -> None:
    with pytest.raises(ValueError, match="may hold neither"):
        create_composite_key("type", [part])
    with pytest.raises(ValueError, match="may hold neither"):
        create_composite_key(part, [])


def test_a_plain_key_is_no_composite_key() -> None:
    with pytest.raises(ValueError, match="no composite key"):
        split_composite_key("plain")


def test_a_policy_names_each_organisation_once_in_order() -> None:
    """The same policy is the same bytes, whoever writes the names in which order: endorsers must agree."""
    assert key_policy(["B", "A", "B"]) == key_policy(["A", "B"])
    policy = policies_pb2.SignaturePolicyEnvelope.FromString(key_policy(["A", "B"], needed=1))
    assert (policy.rule.n_out_of.n, len(policy.rule.n_out_of.rules), len(policy.identities)) == (1, 2, 2)


@pytest.mark.parametrize(("names", "needed"), [([], None), (["A"], 2), (["A"], 0)])
def test_a_policy_that_cannot_be_met_is_refused(names: list[str], needed: int | None) -> None:
    with pytest.raises(ValueError, match="can never be met or is empty"):
        key_policy(names, needed=needed)

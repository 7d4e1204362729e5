"""Policy: its form, and which rule decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmesh_chaincode.limits import POLICY_RULES_MAX
from tokenmesh_chaincode.rules import PolicyError, allows, check_policy, default_policy


def rule(payer: str = "*", payee: str = "*", operation: str = "*", effect: str = "deny") -> dict[str, str]:
    return {"payer": payer, "payee": payee, "operation": operation, "effect": effect}


def policy(*rules: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {**default_policy(), "rules": list(rules), **changes}


def test_the_default_policy_has_its_form_and_allows_everything() -> None:
    assert check_policy(default_policy()) == default_policy()
    assert allows(default_policy(), "alice", "bob", "GET /")


def test_the_first_rule_that_matches_decides() -> None:
    one = policy(rule(payer="alice", effect="allow"), rule(payer="al*", effect="deny"), default="allow")
    assert allows(one, "alice", "bob", "GET /")
    assert not allows(one, "alan", "bob", "GET /")
    assert allows(one, "carol", "bob", "GET /")
    assert not allows(policy(default="deny"), "alice", "bob", "GET /")


@pytest.mark.parametrize(
    ("pattern", "operation", "matches"),
    [
        ("GET /quote/*", "GET /quote/{symbol}", True),
        ("GET /quote/*", "get /quote/x", False),
        ("GET *", "POST /x", False),
        ("* /admin/*", "DELETE /admin/users", True),
        ("GET /a?", "GET /ab", True),
        ("GET /[ab]", "GET /c", False),
    ],
)
def test_patterns_are_globs(pattern: str, operation: str, matches: bool) -> None:
    assert allows(policy(rule(operation=pattern)), "alice", "bob", operation) is not matches


@pytest.mark.parametrize(
    "changed",
    [
        None,
        [],
        {},
        policy(more=1),
        {key: value for key, value in default_policy().items() if key != "grace_s"},
        policy(grace_s=0),
        policy(grace_s=True),
        policy(grace_s=1.5),
        policy(grace_s="300"),
        policy(threshold=0),
        policy(threshold=65),
        policy(tokens_max=2**53),
        policy(propagation_s=-1),
        policy(default="maybe"),
        policy(default=["allow"]),
        policy(rules={}),
        policy(*[rule()] * (POLICY_RULES_MAX + 1)),
        policy({}),
        policy({**rule(), "more": "x"}),
        policy(rule(effect="maybe")),
        policy(rule(payer="")),
        policy(rule(payer="x" * 257)),
        policy(rule(operation="\ud800")),
        policy(rules=[{**rule(), "payee": 5}]),
    ],
)
def test_policies_without_their_form(changed: object) -> None:
    with pytest.raises(PolicyError):
        check_policy(changed)


@given(pattern=st.text(min_size=1, max_size=20), text=st.text(max_size=20))
def test_any_pattern_says_yes_or_no(pattern: str, text: str) -> None:
    assert allows(policy(rule(operation=pattern)), "alice", "bob", text) in {True, False}

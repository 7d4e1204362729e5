"""What a payee remembers of a policy: the verdict that the rules come to, and no more than fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.payee import PAYEE, PAYER, Payee
from tokenmesh.provider import checks
from tokenmesh.provider.checks import ALLOWED_MAX, Policy
from tokenmesh_chaincode.documents import Contract
from tokenmesh_chaincode.rules import allows, default_policy

RULES = [
    {"payer": "shop-*", "payee": "*", "operation": "GET *", "effect": "allow"},
    {"payer": "shop-1*", "payee": "*", "operation": "*", "effect": "deny"},
]


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    payee = Payee(tmp_path)
    made = payee.terms("GET /quote")
    payee.close()
    return made


def test_what_is_remembered_is_what_the_rules_say(contract: Contract) -> None:
    """For each payer and operation by itself, the first time and again."""
    document = {**default_policy(), "rules": RULES, "default": "allow"}
    policy = Policy(document)
    for _ in range(2):
        for payer in (PAYER, "shop-1", "shop-2"):
            for op in ("GET /quote", "POST /quote"):
                asked = contract._replace(iss=payer, op=op)
                assert policy.allows(asked) is allows(document, payer, PAYEE, op)
    assert not policy.allows(contract._replace(iss="shop-1", op="POST /quote"))


def test_each_verdict_is_worked_out_once(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy may have hundreds of rules, and who is forbidden to call may call as often as it likes."""
    asked: list[Any] = []
    monkeypatch.setattr(checks, "allows", lambda *question: asked.append(question) or False)
    policy = Policy(default_policy())
    assert not any(policy.allows(contract) for _ in range(5))
    assert len(asked) == 1


def test_verdicts_are_bounded(contract: Contract) -> None:
    policy = Policy(default_policy())
    for number in range(2 * ALLOWED_MAX + 10):
        assert policy.allows(contract._replace(iss=f"payer-{number}"))
    assert len(policy._allowed) <= ALLOWED_MAX

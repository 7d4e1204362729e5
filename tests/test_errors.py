"""The error tree: what its drawing says is what the classes are."""

from __future__ import annotations

import re

import pytest

from tokenmesh import errors


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Every class is drawn, under its real parent."""
    drawn: dict[str, str] = {}
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            del stack[depth:]
            drawn[match[2]] = stack[-1] if stack else "Exception"
            stack.append(match[2])
    real = {
        name: value.__mro__[1].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert drawn == real


@pytest.mark.parametrize(
    ("kind", "spent"), [("NotSpent", "no"), ("Spent", "yes"), ("OutcomeUnknown", "unknown")]
)
def test_every_call_error_says_whether_tokens_were_spent(kind: str, spent: str) -> None:
    error = getattr(errors, kind)("what happened", service="service-b", contract_id="c1")
    assert (error.spent, error.service, error.contract_id) == (spent, "service-b", "c1")

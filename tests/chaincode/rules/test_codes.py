"""Every code the rules and documents can say has its meaning written down, and none that they cannot."""

from __future__ import annotations

import ast
from pathlib import Path

import tokenmesh_chaincode
from tokenmesh_chaincode.rules import MEANING, NOT_RECORDED

PACKAGE = Path(tokenmesh_chaincode.__file__).parent


def strings_in_the_source() -> set[str]:
    """All text in the code but the table itself: a code that nobody can say is not among them."""
    return {
        node.value
        for path in PACKAGE.rglob("*.py")
        if path.name != "codes.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def codes_that_are_raised() -> set[str]:
    """The first argument of every ``Refusal(...)`` and ``DocumentError(...)`` that is written out."""
    return {
        node.args[0].value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"Refusal", "DocumentError"}
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_every_code_that_is_said_has_a_meaning() -> None:
    said = codes_that_are_raised()
    assert len(said) > 30
    assert said - {"not_a_receipt"} <= MEANING.keys()


def test_every_meaning_belongs_to_a_code_that_is_said() -> None:
    assert MEANING.keys() - {"ok"} <= strings_in_the_source()


def test_what_is_not_recorded_has_a_meaning() -> None:
    assert MEANING.keys() >= NOT_RECORDED

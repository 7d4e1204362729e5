"""The page about security names a test for whatever it says is stopped, and each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [
    line
    for line in PAGE.read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| who", "| what |", "| refused |"))
]


def functions_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(PAGE.read_text()))))
def test_every_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions_in(ROOT / file)


def test_every_claim_names_a_test() -> None:
    """Each row of a table of what is stopped ends with one or more tests."""
    text = PAGE.read_text()
    claims = [row for row in ROWS if row.count("|") == 4 and "::" in row]
    assert len(claims) >= 40
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if "| shown by |" not in section:
            continue
        table = section.split("| shown by |", 1)[1]
        for row in table.splitlines()[2:]:
            if not row.startswith("|"):
                break
            assert NAMED.search(row), row

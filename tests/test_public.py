"""The public surface: what is exported is documented, and importing it costs nothing it should not."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokenmesh
from tokenmesh import errors

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "python.md").read_text()


def test_every_exported_name_has_its_section() -> None:
    """The reference has a heading for each name in ``__all__``, and for no other."""
    assert sorted(re.findall(r"^### `(\w+)`$", PAGE, flags=re.MULTILINE)) == sorted(tokenmesh.__all__)


def test_every_error_has_its_line() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    lines = PAGE.split("## Errors")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", lines, flags=re.MULTILINE)) == tree


@pytest.mark.parametrize("name", ["priced", "calls"])
def test_every_argument_of_the_decorators_is_explained(name: str) -> None:
    section = PAGE.split(f"### `{name}`")[1].split("\n###")[0]
    arguments = set(inspect.signature(getattr(tokenmesh, name)).parameters) - {"service"}
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == arguments


def test_importing_tokenmesh_opens_nothing_and_loads_no_framework(tmp_path: Path) -> None:
    """No file is made, no framework and no client library is imported, until they are used."""
    script = (
        "import sys, tokenmesh\n"
        "loaded = {'flask', 'fastapi', 'requests', 'httpx', 'click', 'rich'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []

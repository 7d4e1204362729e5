"""The command line in a home of its own, with no settings from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.cli import Cli


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("TOKENMESH_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def empty(tmp_path: Path) -> Cli:
    """A home that does not exist yet."""
    return Cli(tmp_path / "home")


@pytest.fixture
def cli(empty: Cli) -> Cli:
    """A home with a domain: governance has 1000 tokens."""
    empty("init", "--supply", "1000")
    return empty

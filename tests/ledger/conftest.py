"""Fixtures of the verification's tests: one ledger with something of everything, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ledger.verify_tools import write_original


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """See :func:`write_original`."""
    return write_original(tmp_path_factory.mktemp("original"))


@pytest.fixture
def written(original, tmp_path):
    """A copy to be tampered with."""
    return original._replace(path=Path(shutil.copy(original.path, tmp_path)))

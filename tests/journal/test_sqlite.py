"""The SQLite journal: everything that the port promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from journal.journal_suite import JournalSuite

from tokenmesh.journal import Journal
from tokenmesh.journal.sqlite import SqliteJournal


class TestSqliteJournal(JournalSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[..., Journal]:
        return partial(SqliteJournal, tmp_path / "journal.db")

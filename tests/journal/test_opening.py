"""Opening a journal by its url."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.journals import RESPONSE, START, fulfil, new_claim
from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.journal import JournalFull, open_journal
from tokenmesh.journal.sqlite import SqliteJournal


def test_a_file_is_opened_by_its_absolute_path(tmp_path: Path) -> None:
    """Three slashes, then the path: four in all."""
    journal = open_journal(f"sqlite:///{tmp_path}/journal.db")
    assert isinstance(journal, SqliteJournal)
    assert (tmp_path / "journal.db").exists()
    journal.close()


def test_a_file_is_opened_by_its_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And stays where it was when the process changes its directory later."""
    monkeypatch.chdir(tmp_path)
    journal = open_journal("sqlite:///journal.db")
    monkeypatch.chdir("/")
    journal.claim(new_claim(), START)
    assert (tmp_path / "journal.db").exists()
    journal.close()


def test_the_settings_are_its_limits(tmp_path: Path) -> None:
    """What the configuration says is what the journal does."""
    settings = Settings(service="quotes", unsettled_max=1, response_bytes_max=3)
    journal = open_journal(f"sqlite:///{tmp_path}/journal.db", settings)
    assert journal.owner.startswith("quotes-")
    entry = new_claim()
    journal.claim(entry, START)
    assert fulfil(journal, entry, body=b"long")
    answer = journal.claim(entry, START)
    assert answer.response == RESPONSE._replace(headers=[], body=None)  # type: ignore[union-attr]
    assert journal.claim(new_claim(), START) == JournalFull()
    journal.close()


@pytest.mark.parametrize("url", ["postgresql://host/journal", "journal.db", "", "sqlite:/journal.db"])
def test_an_unknown_kind_is_named_with_those_that_exist(url: str) -> None:
    """The message says what a journal's url begins with."""
    with pytest.raises(ConfigError, match=r"no journal can be opened at .* begins with one of sqlite://"):
        open_journal(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://journal.db"])
def test_a_url_without_a_path_says_what_is_meant(url: str) -> None:
    """Instead of making a file somewhere."""
    with pytest.raises(ConfigError, match=r"sqlite:///path/to/journal.db"):
        open_journal(url)

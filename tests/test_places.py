"""The setting ``domains``: which pattern decides, what is refused and how it is said, where journals lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.places import (
    DOMAINS_MAX,
    Place,
    journal_beside,
    others,
    place_of,
    read_domains,
    without_secrets,
)

OWN = "sqlite:////own.db"
BANK = "sqlite:////bank.db"
ID = "E59nLOi-9uu9_kWasoGbI2natuGJSRKRJ5WRIL5dsyk"


@pytest.mark.parametrize(
    ("service", "ledger"),
    [
        ("bank-help", OWN),
        ("bank-rates", BANK),
        ("bank-", BANK),
        ("bank", None),
        ("a-bank-rates", None),
        ("desk-1", "x://desk"),
        ("desk-12", None),
        ("vault", "x://vault"),
    ],
)
def test_the_first_pattern_that_fits_decides(service: str, ledger: str | None) -> None:
    """A pattern is of the whole name; what none fits is paid on the own ledger."""
    domains = {"bank-help": OWN, "bank-*": BANK, "desk-?": "x://desk", "vault": "x://vault"}
    place = place_of(read_domains(domains, OWN), service)
    assert (place and place.ledger) == ledger


def test_a_ledger_with_many_patterns_is_one_place(tmp_path: Path) -> None:
    there = {"ledger": "x://there", "home": tmp_path, "journal": "sqlite:///j.db"}
    domains = read_domains({"a": BANK, "b": there, "c": BANK, "d": dict(there), "e": OWN}, OWN)
    assert others(domains, OWN) == [Place(BANK), Place("x://there", tmp_path, "sqlite:///j.db")]


def test_a_home_is_absolute_as_that_of_the_mesh_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/root-of-all")
    domains = read_domains(
        {"a": {"ledger": BANK, "home": "there"}, "b": {"ledger": "x://", "home": "~/h"}}, OWN
    )
    assert [place.home for place in domains.values()] == [tmp_path / "there", Path("/root-of-all/h")]


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("bank", "maps patterns of services to ledgers"),
        ([("a", BANK)], "maps patterns of services to ledgers"),
        ({"Bank-*": BANK}, "'Bank-[*]' in domains fits no service"),
        ({"bank_*": BANK}, "fits no service"),
        ({"": BANK}, "fits no service"),
        ({"x" * 64: BANK}, "fits no service"),
        ({7: BANK}, "fits no service"),
        ({"[ab]": BANK}, "fits no service"),
        ({"*": BANK, "vault": OWN}, "'vault' in domains is never looked at, since '[*]' before it"),
        ({"bank-*": BANK, "bank-a*": OWN}, "never looked at"),
        ({"b*k": BANK, "b*a*k": OWN}, "never looked at"),
        ({"a?": BANK, "ab": OWN}, "never looked at"),
        ({"a": ""}, "it must be a ledger's url, or an object with ledger, home, journal"),
        ({"a": None}, "it must be a ledger's url"),
        ({"a": {"home": "/h"}}, "it must be a ledger's url"),
        ({"a": {"ledger": BANK, "hone": "/h"}}, "it must be a ledger's url"),
        ({"a": {"ledger": BANK, "home": 7}}, "it must be a ledger's url"),
        ({"a": BANK, "b": {"ledger": BANK, "home": "/h"}}, "another home or journal for 'b'"),
        ({"a": {"ledger": OWN, "home": "/h"}}, "another home or journal for 'a'"),
        ({f"s{n}": BANK for n in range(DOMAINS_MAX + 1)}, "at most 100"),
    ],
)
def test_what_cannot_be_right_is_refused_and_named(domains: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.from_environment({}, domains=domains, ledger=OWN)


@pytest.mark.parametrize(
    ("before", "after"),
    [("bank-a*", "bank-*"), ("a-*", "a*"), ("a?*", "a*"), ("a?", "a*"), ("*-x", "x-*"), ("a", "a?")],
)
def test_a_pattern_that_only_overlaps_with_one_before_it_is_fine(before: str, after: str) -> None:
    assert len(read_domains({before: BANK, after: OWN}, OWN)) == 2


def test_as_many_patterns_as_may_be_are_read() -> None:
    assert len(read_domains({f"s{n}": BANK for n in range(DOMAINS_MAX)}, OWN)) == DOMAINS_MAX


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bank", "TOKENMESH_DOMAINS is no JSON"),
        ("[1]", "it must be a JSON object"),
        ('{"a": "sqlite:////x", "a": "sqlite:////y"}', "names 'a' twice"),
    ],
)
def test_the_variable_is_a_json_object(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.from_environment({"TOKENMESH_DOMAINS": text})


def test_settings_of_another_domain_are_the_same_but_for_the_place() -> None:
    settings = Settings(service="a", home=Path("/h"), lease_s=7, domains={"b": Place(BANK)})
    there = settings.at(Place(BANK))
    assert (there.ledger, there.home, there.journal) == (BANK, Path("/h"), "sqlite:////h/journal-a.db")
    assert (there.service, there.lease_s, there.domains) == ("a", 7, {})
    assert settings.at(Place(BANK, Path("/k"))).home == Path("/k")


@pytest.mark.parametrize(
    ("url", "beside"),
    [
        ("sqlite:////h/journal-a.db", "sqlite:////h/journal-a.E59nLOi-9uu9_kWa.db"),
        ("sqlite:////h.d/journal", "sqlite:////h.d/journal.E59nLOi-9uu9_kWa"),
        ("sqlite:///journal.db", "sqlite:///journal.E59nLOi-9uu9_kWa.db"),
        ("sqlite:////h/.journal", "sqlite:////h/.journal.E59nLOi-9uu9_kWa"),
    ],
)
def test_the_journal_of_another_domain_lies_beside_and_has_its_id_in_its_name(url: str, beside: str) -> None:
    """No service's own journal can have that name: names of services have no dot."""
    assert journal_beside(url, ID, BANK) == beside


def test_of_a_journal_that_is_no_file_the_others_must_be_given() -> None:
    with pytest.raises(ConfigError, match="journal of their own") as caught:
        journal_beside("postgresql://me:secret@host/db", ID, "https://me:secret@wallets")
    assert "secret" not in str(caught.value)


def test_a_url_is_shown_without_its_secrets() -> None:
    assert without_secrets("https://me:secret@wallets/x@y") == "https://wallets/x@y"
    assert without_secrets("sqlite:////h/a@b.db") == "sqlite:////h/a@b.db"

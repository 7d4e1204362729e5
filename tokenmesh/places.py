"""Where the domains of a Mesh are: the setting ``domains``, which maps services to ledgers.

A pattern of names (``bank-*``) leads to a ledger's url, or to an object with ``ledger`` and, where they
differ from those of the Mesh, ``home`` (the directory with the wallet's key for that domain) and ``journal``.
The first pattern that fits a service decides where it is paid; all others are paid on the Mesh's own ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from tokenmesh.errors import ConfigError

EXAMPLE = '{"bank-*": "fabric:///profile.yaml?channel=bank"}'
DOMAINS_MAX = 100
"""Patterns that one Mesh may have."""
ID_LENGTH = 16
"""How much of a domain's id, 43 characters of chance, stands in the name of its journal."""

_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}")
_FIELDS = ("ledger", "home", "journal")


class Place(NamedTuple):
    """Where one domain is: its ledger's url; ``home`` and ``journal`` only where they were given."""

    ledger: str
    home: Path | None = None
    journal: str | None = None


def read_domains(domains: Any, own_ledger: str) -> dict[str, Place]:
    """The setting, checked; :class:`ConfigError` says what cannot be right and what would be.

    ``own_ledger`` is the url of the Mesh's own ledger: patterns may lead to it too, as the exceptions from
    those behind them.
    """
    if not isinstance(domains, Mapping):
        raise ConfigError(f"domains is {domains!r}: it maps patterns of services to ledgers, as {EXAMPLE}")
    if len(domains) > DOMAINS_MAX:
        raise ConfigError(f"domains has {len(domains)} patterns: at most {DOMAINS_MAX} are read")
    places: dict[str, Place] = {}
    by_ledger: dict[str, Place] = {own_ledger: Place(own_ledger)}
    for pattern, value in domains.items():
        _check_pattern(pattern, places)
        place = _place(pattern, value)
        if by_ledger.setdefault(place.ledger, place) != place:
            raise ConfigError(
                f"domains gives the ledger {without_secrets(place.ledger)} another home or journal for "
                f"{pattern!r} than it has elsewhere: a ledger is one domain, with one of each"
            )
        places[pattern] = place
    return places


def place_of(domains: Mapping[str, Place], service: str) -> Place | None:
    """Where ``service`` is paid, by the first pattern that fits; None if none does."""
    return next((place for pattern, place in domains.items() if fnmatchcase(service, pattern)), None)


def others(domains: Mapping[str, Place], own_ledger: str) -> list[Place]:
    """The places of all domains but that of ``own_ledger``, each once."""
    return list(dict.fromkeys(place for place in domains.values() if place.ledger != own_ledger))


def journal_beside(url: str, domain: str, ledger: str) -> str:
    """The url of the journal for another domain: the file beside ``url`` with the domain's id in its name.

    By the id and not by the ledger's url, so that what is still to be settled is found again when the same
    ledger is reached by another way. :class:`ConfigError` if the journal is no file.
    """
    start, separator, name = url.rpartition("/")
    if not url.startswith("sqlite:///") or not separator:
        raise ConfigError(
            f"the contracts taken for {without_secrets(ledger)} need a journal of their own, and only for a "
            "file (sqlite:///) is it known where: say it in domains, with "
            '{"ledger": "...", "journal": "..."}'
        )
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    return f"{start}/{stem}.{domain[:ID_LENGTH]}{dot}{suffix}"


def without_secrets(url: str) -> str:
    """A url as it may be shown: without user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def _check_pattern(pattern: Any, before: Iterable[str]) -> None:
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        raise ConfigError(
            f"the pattern {pattern!r} in domains fits no service: names are of a-z, 0-9 and '-'; in a "
            "pattern * stands for any part of a name and ? for one character"
        )
    # Whatever a star stands for: nothing, one character that is in no pattern, or two of them.
    samples = [pattern.replace("*", stand_in) for stand_in in ("", "\0", "\0\1")]
    wider = next((one for one in before if all(fnmatchcase(sample, one) for sample in samples)), None)
    if wider is not None:
        raise ConfigError(
            f"the pattern {pattern!r} in domains is never looked at, since {wider!r} before it fits all that "
            "it would: the first that fits decides, so put it first"
        )


def _place(pattern: str, value: Any) -> Place:
    if isinstance(value, Place):
        return value
    given = {"ledger": value} if isinstance(value, str) else value
    if (
        not isinstance(given, Mapping)
        or not given.get("ledger")
        or not all(name in _FIELDS and isinstance(one, str | Path) for name, one in given.items())
    ):
        raise ConfigError(
            f"what domains has for {pattern!r} cannot be right: it must be a ledger's url, or an object with "
            f"{', '.join(_FIELDS)}, all but the first optional"
        )
    home = given.get("home")
    return Place(
        str(given["ledger"]),
        # Absolute, as the home of the Mesh is.
        Path(home).expanduser().absolute() if home else None,
        str(given["journal"]) if given.get("journal") else None,
    )

"""Which journal a url means: each scheme is an entry point of the group ``tokenmesh.journals``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.journal.base import Journal

GROUP = "tokenmesh.journals"


def open_journal(url: str, settings: Settings | None = None) -> Journal:
    """Open the journal at ``url``; its limits come from ``settings``.

    The part before ``://`` names the kind of journal. An entry point of the group ``tokenmesh.journals`` with
    that name gives a callable ``(url, settings) -> Journal``. Raises ``ConfigError`` for a kind that is not
    installed, and what the journal itself raises.
    """
    scheme, separator, _ = url.partition("://")
    found = {point.name: point for point in entry_points(group=GROUP)}
    if not separator or scheme not in found:
        raise ConfigError(
            f"no journal can be opened at {url!r}: a journal's url begins with one of "
            + ", ".join(f"{name}://" for name in sorted(found))
        )
    open_one: Callable[[str, Settings | None], Journal] = found[scheme].load()
    return open_one(url, settings)

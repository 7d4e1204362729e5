"""Which ledger a url means: each scheme is an entry point of the group ``tokenmesh.ledgers``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.ledger.base import Ledger
from tokenmesh.telemetry import show_build
from tokenmesh_chaincode.documents import Signer

GROUP = "tokenmesh.ledgers"
KINDS = {"sqlite": "embedded", "http": "remote", "https": "remote"}
"""What a ledger is called in metrics, where that is not its scheme."""


def open_ledger(url: str, signer: Signer | None, settings: Settings | None = None) -> Ledger:
    """Open the ledger at ``url`` for the wallet ``signer`` (None: to read only).

    The part before ``://`` names the kind of ledger. An entry point of the group ``tokenmesh.ledgers`` with
    that name gives a callable ``(url, signer, settings) -> Ledger``. Raises ``ConfigError`` for a kind that
    is not installed, and what the ledger itself raises.
    """
    scheme, separator, _ = url.partition("://")
    found = {point.name: point for point in entry_points(group=GROUP)}
    if not separator or scheme not in found:
        raise ConfigError(
            f"no ledger can be opened at {url!r}: a ledger's url begins with one of "
            + ", ".join(f"{name}://" for name in sorted(found))
        )
    try:
        open_one: Callable[[str, Signer | None, Settings | None], Ledger] = found[scheme].load()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a ledger at {scheme}:// needs {error.name}: pip install 'tokenmesh-fabric[{scheme}]'"
        ) from error
    ledger = open_one(url, signer, settings)
    show_build(KINDS.get(scheme, scheme))
    return ledger

"""What every command stands on: the home, the ledger, and the wallet that acts.

Exit codes: 0 fine; 1 a finding, which is what the command was asked to look for (``verify``); 2 everything
else that goes wrong: wrong use, a wrong set-up, an operation that the rules refuse, a ledger out of reach.
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tokenmesh.cli.desk import Desk, Fault
from tokenmesh.config import Settings
from tokenmesh.errors import LedgerUnavailable
from tokenmesh.identity import Wallet, passphrase_from_environment
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Ledger
from tokenmesh.ledger.embedded import SCHEME

GOVERNANCE = "governance"
FABRIC_SCHEME = "fabric://"


class Session:
    """One run of the command line: where the home and the ledger are, and who acts."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        self._passphrase: str | None = None
        self._asked_new = False
        self.clock: Callable[[], float] = time.time

    def give(self, name: str, value: Any) -> None:
        """An option; the same one given later, after the subcommand, goes before."""
        if value is not None:
            self._given[name] = value

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(**self._given)

    @property
    def home(self) -> Path:
        return self.settings.home

    def passphrase(self) -> str | None:
        """From the environment, else asked for once, if there is somebody to ask."""
        if self._passphrase is None:
            self._passphrase = passphrase_from_environment()
        if self._passphrase is None and sys.stdin.isatty():
            self._passphrase = getpass.getpass("Passphrase: ")
        return self._passphrase

    def new_passphrase(self) -> str | None:
        """What new keys are encrypted with: asked for with ``--passphrase``, else from the environment."""
        return self._passphrase if self._asked_new else passphrase_from_environment()

    def ask_new_passphrase(self) -> None:
        """Ask twice for the passphrase of the keys that are to be made."""
        self._passphrase = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
        self._asked_new = True

    def wallet(self, name: str) -> Wallet:
        return Wallet.load(self.home, name, passphrase=self.passphrase)

    @property
    def on_fabric(self) -> bool:
        """Whether the ledger is on a Fabric network."""
        return self.settings.ledger.startswith(FABRIC_SCHEME)

    def ledger_path(self) -> Path:
        """The embedded ledger's file, which need not be there; a fault for another kind of ledger."""
        url = self.settings.ledger
        path = url.removeprefix(SCHEME)
        if path == url or not path:
            raise Fault(f"this works on an embedded ledger (sqlite:///path/to/ledger.db) only, not on {url}")
        return Path(path).absolute()

    def ledgers(self) -> list[str]:
        """The ledgers on which keys of this home may be: the one that was named, the usual one, and those of
        the setting ``domains`` that have no home of their own."""
        settings = self.settings
        usual = Settings.from_environment(**{k: v for k, v in self._given.items() if k != "ledger"}).ledger
        path = usual.removeprefix(SCHEME)
        there = path == usual or Path(path).exists()
        shared = [one.ledger for one in settings.domains.values() if one.home in (None, settings.home)]
        return list(dict.fromkeys([settings.ledger, *([usual] if there else []), *shared]))

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """The ledger, to read from: needs no key."""
        settings = self.settings
        with open_ledger(settings.ledger, None, settings) as ledger:
            yield ledger

    @contextmanager
    def acting(self, name: str, url: str | None = None) -> Iterator[Desk]:
        """The ledger (or the one at ``url``), and the wallet ``name`` to sign what is to be done on it."""
        settings = self.settings
        wallet = Wallet.load(settings.home, name, passphrase=self.passphrase)
        try:
            ledger = open_ledger(url or settings.ledger, wallet, settings)
        except LedgerUnavailable as error:
            # Fabric turns away whose certificate has ended before the rules could.
            if wallet.not_after.timestamp() > self.clock():
                raise
            renewal = f"'tokenmesh wallet rotate {name} --as {GOVERNANCE}' renews it"
            raise Fault(f"{error}\n{renewal}") from error
        with ledger:
            yield Desk(ledger, wallet, self.clock)

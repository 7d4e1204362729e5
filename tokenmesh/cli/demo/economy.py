"""The demo's own domain: an authority, a ledger with short times, a wallet for each service, governance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tokenmesh.cli.demo.ground import EmbeddedGround, Ground, no_passphrase
from tokenmesh.cli.demo.plan import GOVERNANCE, policy
from tokenmesh.cli.desk import Desk
from tokenmesh.config import Settings
from tokenmesh.identity import Role, Wallet
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Balance
from tokenmesh_chaincode.rules import default_policy

SUPPLY = 1_000_000
EXPIRE_MAX = 500
WALLETS_AT_ONCE = 8


class Economy:
    """Governance at the demo's ledger."""

    def __init__(self, home: Path, ground: Ground | None = None) -> None:
        """Found the domain in ``home``, which must be empty, and make all tokens there will ever be.

        It stands on ``ground``; left out, on a file in ``home``.
        """
        self._home = home
        self._ground = ground or EmbeddedGround(home)
        self.url = self._ground.url
        wallet = self._wallet(GOVERNANCE, "governor")
        self._ground.begin(wallet, policy(default_policy()))
        self.ledger = open_ledger(self.url, wallet, Settings(home=home, ledger=self.url))
        self.governance = Desk(self.ledger, wallet, time.time)
        self.governance.do("mint", {"tokens": SUPPLY})
        self.minted = self.ledger.supply().result().minted
        self._asked: dict[str, Future[Balance]] = {}
        self._known: dict[str, Balance] = {}

    def open_wallets(self, urls: Mapping[str, str], tokens: Mapping[str, int]) -> None:
        """A wallet for each name in ``tokens``, with so many; the services are found at ``urls``."""

        def open_one(name: str) -> None:
            wallet = self._wallet(name, "service")
            record = {"name": name, "cert": wallet.certificate_pem, "role": "service", "url": urls.get(name)}
            self.governance.do("register", record)
            if tokens[name]:
                self.governance.do("grant", {"to": name, "tokens": tokens[name]})

        # At once: the ledger does what has come together in one transaction.
        with ThreadPoolExecutor(WALLETS_AT_ONCE) as pool:
            for opened in [pool.submit(open_one, name) for name in tokens]:
                opened.result()

    def balance(self, name: str) -> Balance | None:
        """The last balance that is known, without waiting for a newer one, which is asked for."""
        asked = self._asked.get(name)
        if asked is not None and asked.done():
            self._known[name] = asked.result()
        if asked is None or asked.done():
            self._asked[name] = self.ledger.balance(name)
        return self._known.get(name)

    def verify(self, progress: Callable[[int, int], None]) -> list[str]:
        """What ``tokenmesh verify`` finds."""
        report = self._ground.verify(progress)
        return [f"transaction {finding.tx_n}: {finding.code} {finding.text}" for finding in report.findings]

    def expire(self) -> int:
        """Give back what is set aside and whose time is over; how many tokens are set aside still."""
        due = self.ledger.expirable(int(time.time()), EXPIRE_MAX).result()
        if any(due.values()):
            self.governance.do("expire", due)
        balances = [self.ledger.balance(wallet.name) for wallet in self.ledger.wallets().result()]
        return sum(balance.result().held + balance.result().allowed for balance in balances)

    def _wallet(self, name: str, role: Role) -> Wallet:
        return Wallet.create(self._home, name, self._ground.issuer(role), role, passphrase=no_passphrase)

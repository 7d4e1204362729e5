"""The demo's own domain: an authority, a ledger with short times, a wallet for each service, governance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

from tokenmesh.cli.demo.plan import GOVERNANCE, SERVICES, SHOPPER, SHOPPER_TOKENS, policy
from tokenmesh.cli.desk import Desk
from tokenmesh.config import Settings
from tokenmesh.identity import CertificateAuthority, Wallet
from tokenmesh.ledger import open_ledger
from tokenmesh.ledger.base import Balance
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.rules import default_policy

SUPPLY = 1_000_000
EXPIRE_MAX = 500


class Economy:
    """Governance at the demo's ledger."""

    def __init__(self, home: Path) -> None:
        """Found the domain in ``home``, which must be empty, and make all tokens there will ever be."""
        authority = CertificateAuthority.create(home, passphrase=_none)
        self._home = home
        self._authority = authority
        wallet = Wallet.create(home, GOVERNANCE, authority, "governor", passphrase=_none)
        EmbeddedLedger.create(
            home / "ledger.db",
            wallet,
            ca=[authority.certificate_pem],
            governors={GOVERNANCE: wallet.certificate_pem},
            policy=policy(default_policy()),
            nonce=new_id(),
        ).close()
        self.ledger = open_ledger(Settings(home=home).ledger, wallet)
        self.governance = Desk(self.ledger, wallet, time.time)
        self.governance.do("mint", {"tokens": SUPPLY})
        self.minted = self.ledger.supply().result().minted
        self._asked: dict[str, Future[Balance]] = {}
        self._known: dict[str, Balance] = {}

    def open_wallets(self, urls: Mapping[str, str]) -> None:
        """A wallet for each service, found at ``urls``, and one for the shoppers, each with its tokens."""
        tokens = {service.name: service.tokens for service in SERVICES} | {SHOPPER: SHOPPER_TOKENS}
        for name, granted in tokens.items():
            wallet = Wallet.create(self._home, name, self._authority, passphrase=_none)
            record = {"name": name, "cert": wallet.certificate_pem, "role": "service", "url": urls.get(name)}
            self.governance.do("register", record)
            if granted:
                self.governance.do("grant", {"to": name, "tokens": granted})

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
        report = verify_ledger(self._home / "ledger.db", progress)
        return [f"transaction {finding.tx_n}: {finding.code} {finding.text}" for finding in report.findings]

    def expire(self) -> int:
        """Give back what is set aside and whose time is over; how many tokens are set aside still."""
        due = self.ledger.expirable(int(time.time()), EXPIRE_MAX).result()
        if any(due.values()):
            self.governance.do("expire", due)
        balances = [self.ledger.balance(wallet.name) for wallet in self.ledger.wallets().result()]
        return sum(balance.result().held + balance.result().allowed for balance in balances)


def _none() -> None:
    """No passphrase: the demo's keys live for a minute, and nobody should be asked for one."""

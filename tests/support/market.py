"""A small market: one ledger, payers with their treasuries and consumers, payees with journal and settlement.

Everything runs on the clock that is handed in. ``Market.payer`` may be called again for the same wallet: that
is the same service started anew, or a second process of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.ledgers import Domain, make_ledger
from support.payee import Signing
from tokenmesh.clients import httpx as httpx_clients
from tokenmesh.config import Settings
from tokenmesh.consumer import Consumer
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger.base import Ledger
from tokenmesh.provider import Provider
from tokenmesh.settlement import Settlement
from tokenmesh.treasury import Treasury

PAYER = "shop"
PAYEE = "quotes"


class Payer:
    """A service that calls; stands in for a ``Mesh`` wherever a client or ``calls`` wants one."""

    def __init__(
        self, market: Market, name: str, ledger: Ledger, clock: Callable[[], float], settings: Settings
    ) -> None:
        self.name = name
        self.settings = settings
        wallet: Any = Signing(market.domain[name])
        self.treasury = Treasury(wallet, ledger, settings, clock=clock)
        self.consumer = Consumer(
            wallet,
            ledger,
            self.treasury,
            settings,
            clock=clock,
            monotonic=clock if clock is not time.time else time.monotonic,
            chance=random.Random(name),
        )
        self._closers: list[Callable[[], object]] = []

    def domain(self, service: str) -> Payer:
        """All services are paid in one domain."""
        return self

    def client(self, service: str, **options: Any) -> Any:
        return httpx_clients.client(self, service, **options)  # type: ignore[arg-type]

    def async_client(self, service: str, **options: Any) -> Any:
        return httpx_clients.async_client(self, service, **options)  # type: ignore[arg-type]

    def on_close(self, close: Callable[[], object]) -> None:
        self._closers.append(close)

    def close(self) -> None:
        closers, self._closers = self._closers, []
        for close in reversed(closers):
            close()
        self.treasury.close()


class Seller:
    """A service that serves: ``priced(mesh=seller)``. Its settlement runs when the test says so."""

    def __init__(self, market: Market, name: str, settings: Settings, **journal: Any) -> None:
        self.name = name
        clock = market.clock
        wallet: Any = Signing(market.domain[name])
        self.journal = SqliteJournal(
            market.directory / f"journal-{name}.db", owner=f"{name}-{market.next()}", clock=clock, **journal
        )
        self.provider = Provider(wallet, market.domain.ledger, self.journal, settings=settings, clock=clock)
        self.settlement = Settlement(
            self.journal, market.domain.ledger, wallet, settings=settings, clock=clock
        )

    def settle(self) -> None:
        """Settle all that is owed."""
        while not (done := self.settlement.step()).idle:
            assert done.failure is None, done.failure
            assert not done.lost, done

    def close(self) -> None:
        self.journal.close()


class Market:
    """A ledger in ``directory`` with ``shop`` (payer, 1,000,000 tokens) and ``quotes`` (payee)."""

    def __init__(
        self,
        directory: Path,
        tokens: Mapping[str, int] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        policy: Mapping[str, Any] | None = None,
        domain: Domain | None = None,
    ) -> None:
        """``domain``: a ledger that is there already."""
        self.directory = directory
        self.clock = clock
        tokens = {PAYER: 1_000_000, PAYEE: 0} if tokens is None else tokens
        self.domain: Domain = domain or make_ledger(directory, tokens, clock=clock, policy=policy)
        self._count = 0
        self._open: list[Any] = []

    def next(self) -> int:
        self._count += 1
        return self._count

    def payer(self, name: str = PAYER, *, ledger: Ledger | None = None, **settings: Any) -> Payer:
        made = Settings(home=self.directory, service=name, **settings)
        payer = Payer(self, name, ledger or self.domain.ledger, self.clock, made)
        self._open.append(payer)
        return payer

    def seller(self, name: str = PAYEE, *, on_crash: str = "refuse", **settings: Any) -> Seller:
        made = Settings(home=self.directory, service=name, **settings)
        seller = Seller(
            self,
            name,
            made,
            on_crash=on_crash,
            response_bytes_max=made.response_bytes_max,
            lease_s=made.lease_s,
        )
        self._open.append(seller)
        return seller

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()
        self.domain.ledger.close()

"""A ledger for tests with governance, wallets and tokens: ``make_ledger(tmp_path, {"service-a": 100})``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from support.wallets import Wallets
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import Balance, Ledger, Result
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import (
    Contract,
    Disclosures,
    Operation,
    Signer,
    conceal,
    digest,
    new_id,
    new_salt,
    sign,
)
from tokenmesh_chaincode.rules import Outcome, default_policy

T = TypeVar("T")

GOVERNANCE = "governance"
SUPPLY = 1_000_000_000
TTL_S = 60
ANSWER_S = 60.0


def now_of(future: Future[T]) -> T:
    """What a ledger answers, in time."""
    return future.result(ANSWER_S)


class Domain:
    """A ledger, its authority and its wallets; it signs operations and contracts and has them done."""

    def __init__(self, ledger: Ledger, wallets: Wallets, clock: Callable[[], float] = time.time) -> None:
        self.ledger = ledger
        self.wallets = wallets
        self.clock = clock

    def __getitem__(self, name: str) -> Identity:
        """The identity of a wallet."""
        return self.wallets[name]

    @property
    def now(self) -> int:
        return int(self.clock())

    def operation(
        self,
        by: str | Signer,
        act: str,
        arg: Mapping[str, Any],
        *,
        jti: str | None = None,
        iat: int | None = None,
        ttl_s: int = TTL_S,
        dom: str | None = None,
    ) -> str:
        """The document of an operation, signed by the wallet ``by``."""
        signer = self.wallets[by] if isinstance(by, str) else by
        iat = self.now if iat is None else iat
        dom = dom or self.ledger.domain
        return sign(Operation(dom, signer.name, jti or new_id(), iat, iat + ttl_s, act, dict(arg)), signer)

    def submit(self, *operations: str, disclosures: Disclosures | None = None) -> list[Result]:
        return now_of(self.ledger.submit(operations, disclosures=disclosures))

    def ask(self, by: str | Signer, act: str, arg: Mapping[str, Any], **claims: Any) -> Outcome:
        """Have one operation done, whatever comes of it."""
        return self.submit(self.operation(by, act, arg, **claims))[0].outcome

    def do(self, by: str | Signer, act: str, arg: Mapping[str, Any], **claims: Any) -> dict[str, Any]:
        """Have one operation done, which must end well; its detail."""
        outcome = self.ask(by, act, arg, **claims)
        assert outcome.ok, outcome
        return outcome.detail

    def open_wallet(self, name: str, tokens: int = 0, url: str | None = None) -> Identity:
        """A new wallet on the ledger, with so many tokens to spend."""
        identity = self.wallets.new(name)
        arg = {"name": name, "cert": identity.certificate_pem, "role": "service", "url": url}
        self.do(GOVERNANCE, "register", arg)
        if tokens:
            self.grant(name, tokens)
        return identity

    def grant(self, name: str, tokens: int) -> None:
        """Give a wallet tokens to spend."""
        credit = self.do(GOVERNANCE, "grant", {"to": name, "tokens": tokens})["credit"]
        self.do(name, "sweep", {"credits": [credit]})

    def contract(self, payer: str | Signer, payee: str, **claims: Any) -> str:
        """A contract for ``GET /quote/ACME`` at 5 tokens by hold; ``claims`` are what differs."""
        signer = self.wallets[payer] if isinstance(payer, str) else payer
        return sign(self._contract(signer.name, payee, **claims), signer)

    def private_contract(self, payer: str | Signer, payee: str, **claims: Any) -> tuple[str, dict[str, str]]:
        """The same as a private contract, and its disclosure by its digest."""
        signer = self.wallets[payer] if isinstance(payer, str) else payer
        concealed, disclosure = conceal(self._contract(signer.name, payee, **claims), new_salt())
        return sign(concealed, signer), {concealed.sd or "": disclosure}

    def _contract(self, payer: str, payee: str, **claims: Any) -> Contract:
        iat = claims.pop("iat", self.now)
        contract = Contract(
            dom=self.ledger.domain,
            iss=payer,
            aud=payee,
            op="GET /quote/{symbol}",
            htm="GET",
            htu="/quote/ACME",
            dig=digest(b""),
            tok=5,
            jti=new_id(),
            iat=iat,
            exp=iat + TTL_S,
            via="hold",
        )
        return contract._replace(**claims)

    def balance(self, name: str) -> Balance:
        return now_of(self.ledger.balance(name))

    def total(self, name: str) -> int:
        return sum(self.balance(name))


def make_ledger(
    directory: Path,
    tokens: Mapping[str, int] | None = None,
    *,
    clock: Callable[[], float] = time.time,
    policy: Mapping[str, Any] | None = None,
    supply: int = SUPPLY,
    **options: Any,
) -> Domain:
    """An embedded ledger in ``directory`` with ``governance`` and the wallets in ``tokens`` (by default
    ``service-a`` with 1,000 tokens to spend and ``service-b`` with none).

    ``policy`` is what differs from the default policy, ``options`` are those of :class:`EmbeddedLedger`.
    Close ``.ledger`` when done; others at the same file open ``directory / "ledger.db"``.
    """
    wallets = Wallets(directory, clock)
    governance = wallets.new(GOVERNANCE, "governor")
    ledger = EmbeddedLedger.create(
        directory / "ledger.db",
        governance,
        ca=[wallets.authority.certificate_pem],
        governors={GOVERNANCE: governance.certificate_pem},
        policy={**default_policy(), **(policy or {})},
        nonce=new_id(),
        clock=clock,
        **options,
    )
    domain = Domain(ledger, wallets, clock)
    if supply:
        domain.do(GOVERNANCE, "mint", {"tokens": supply})
    for name, amount in ({"service-a": 1_000, "service-b": 0} if tokens is None else tokens).items():
        domain.open_wallet(name, amount)
    return domain

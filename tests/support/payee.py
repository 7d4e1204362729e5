"""A payee to try out: a ledger, a journal and a provider, and a payer that signs what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.ledgers import Domain, make_ledger
from support.wallets import Clock
from tokenmesh.config import Settings
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import Ledger
from tokenmesh.provider import Provider
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Receipt, new_id

PAYEE = "quotes"
PAYER = "shop"
FUNDS = 100_000
ALLOWANCE = 10_000


class Signing:
    """An identity as a wallet: it has nothing to reload."""

    def __init__(self, identity: Identity) -> None:
        self.name = identity.name
        self.x5t = identity.x5t
        self.sign = identity.sign

    def reload(self) -> bool:
        return False


class Payee:
    """The payee ``quotes`` and its payer ``shop`` with an allowance. ``clock`` stands still unless moved."""

    def __init__(self, directory: Path, *, policy: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.domain: Domain = make_ledger(
            directory, {PAYER: FUNDS, PAYEE: 0, "other": 0}, clock=self.clock, policy=policy
        )
        self.settings = Settings(home=directory, service=PAYEE, **settings)
        self.journal = SqliteJournal(
            directory / "journal.db",
            clock=self.clock,
            response_bytes_max=self.settings.response_bytes_max,
            unsettled_max=self.settings.unsettled_max,
        )
        self.provider = self.new_provider(self.domain.ledger)
        self.allowance = self.open_allowance()
        self._seq = 0

    def new_provider(self, ledger: Ledger, journal: Any = None) -> Provider:
        """A provider of this payee on another ledger, or with another journal."""
        wallet = Signing(self.domain[PAYEE])
        return Provider(wallet, ledger, journal or self.journal, settings=self.settings, clock=self.clock)

    def close(self) -> None:
        self.journal.close()
        self.domain.ledger.close()

    # The payer's side

    def open_allowance(self, tokens: int = ALLOWANCE, **claims: Any) -> str:
        arg = {"id": new_id(), "payee": PAYEE, "tokens": tokens, "exp": self.domain.now + 3600, **claims}
        self.domain.do(PAYER, "open", arg)
        return str(arg["id"])

    def hold(self, tokens: int, **claims: Any) -> str:
        """Place a hold; its id is the contract's."""
        arg = {"id": new_id(), "payee": PAYEE, "tokens": tokens, "exp": self.domain.now + 300, **claims}
        self.domain.do(PAYER, "hold", arg)
        return str(arg["id"])

    def terms(
        self, op: str, *, target: str | None = None, body: bytes = b"", tok: int = 5, **claims: Any
    ) -> Contract:
        """A contract for ``op`` (``GET /quote/{symbol}``), with the next number of the allowance."""
        method, _, path = op.partition(" ")
        self._seq += 1
        now = self.domain.now
        contract = Contract(
            dom=self.domain.ledger.domain,
            iss=PAYER,
            aud=PAYEE,
            op=op,
            htm=method,
            htu=target or path,
            dig=documents.digest(body),
            tok=tok,
            jti=new_id(),
            iat=now,
            exp=now + 60,
            via=self.allowance,
            lane="lane-1",
            seq=self._seq,
        )
        if claims.get("via") == "hold":
            claims = {"lane": None, "seq": None, **claims}
        return contract._replace(**claims)

    def sign(self, contract: Contract, by: str = PAYER) -> str:
        return documents.sign(contract, self.domain[by])

    def contract(self, op: str, **claims: Any) -> str:
        """A signed contract, ready to send."""
        return self.sign(self.terms(op, **claims))

    # What has happened

    def used(self, allowance: str | None = None) -> int:
        """Tokens of the allowance that the journal counts as taken."""
        return self.journal.allowance_used(allowance or self.allowance)

    def state(self, contract: str) -> str | None:
        """How the contract stands in the journal."""
        body = documents.parse_contract(contract).body
        known = self.journal.find(body.iss, body.jti)
        return None if known is None else known.state

    def receipt(self, text: str) -> Receipt:
        """A receipt, which must be signed by the payee."""
        signed = documents.parse_receipt(text)
        assert documents.verify(signed, self.domain[PAYEE].key.public_key())
        assert (signed.body.iss, signed.body.aud) == (PAYEE, PAYER)
        return signed.body


class HasProvider:
    """What ``priced(mesh=...)`` needs; the provider comes when it is asked for."""

    def __init__(self, provider: Callable[[], Provider]) -> None:
        self._provider = provider

    @property
    def provider(self) -> Provider:
        return self._provider()

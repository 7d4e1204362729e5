"""The port: what every ledger offers, and the records it answers with.

A ledger takes operations (documents signed by the wallet that asks for them) and gives their outcomes; it
answers questions about its state and its history. Every method returns a
:class:`concurrent.futures.Future`: sync code waits on it, async code awaits it. Errors are in the future
too, so there is one place to catch them:

- :class:`~tokenmesh.errors.LedgerUnavailable`: certainly nothing happened (``LedgerBusy``: queue full),
- :class:`~tokenmesh.errors.LedgerOutcomeUnknown`: submit the same operation again, it happens once.

Amounts are whole tokens, times are unix seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from tokenmesh_chaincode.documents import Disclosures
from tokenmesh_chaincode.rules import Outcome

HISTORY_LIMIT_MAX = 1_000
"""The most transactions or contracts that one question about history gives."""


class Result(NamedTuple):
    """What became of one operation.

    ``tx_id`` names the ledger transaction that recorded it and ``time`` is that transaction's time. An
    operation that the rules turn away without a record (a signature that does not hold, another domain, an
    id used for something else) is in no transaction: its ``tx_id`` is ``""``.
    """

    outcome: Outcome
    tx_id: str
    time: float


class Certificate(NamedTuple):
    """A certificate of a wallet: good from ``since`` until ``until`` (None: until rotated), unless it was
    revoked. From ``revoked_since`` that counts against contracts too; None until it is put in force."""

    x5t: str
    pem: str
    since: int
    until: int | None
    revoked_at: int | None = None
    revoked_since: int | None = None


class WalletRecord(NamedTuple):
    """A wallet as the ledger knows it; the newest certificate stands last.

    It spends nothing any more once ``frozen_at`` is there. From ``frozen_since`` that counts against
    contracts too; None until it is put in force.
    """

    name: str
    role: Literal["service", "governor"]
    url: str | None
    certificates: tuple[Certificate, ...]
    frozen_at: int | None
    created: int
    frozen_since: int | None = None


class Balance(NamedTuple):
    """``spendable`` now, ``credits`` to be swept in, ``held`` by open holds, ``allowed``: what is left in
    open allowances."""

    spendable: int
    credits: int
    held: int
    allowed: int


class Credit(NamedTuple):
    """Tokens that came in (earnings, refunds, grants) and wait to be swept into the balance."""

    id: str
    tokens: int


class Hold(NamedTuple):
    """Tokens of one contract set aside; ``charged`` once it is captured.

    It can be settled until ``grace_s`` seconds after ``exp``, whatever policy says by then.
    """

    payer: str
    id: str
    payee: str
    tokens: int
    opened_at: int
    exp: int
    grace_s: int
    state: Literal["open", "captured", "void", "expired"]
    charged: int


class Allowance(NamedTuple):
    """Tokens set aside for many contracts, merged with what the payee has settled of it.

    It can be settled until ``grace_s`` seconds after ``exp`` or ``closed_at``, whatever policy says by then.
    ``lanes`` gives for each lane the ranges ``(first, last)`` of ``seq`` that are used.
    """

    id: str
    payer: str
    payee: str
    tokens: int
    opened_at: int
    exp: int
    grace_s: int
    closed_at: int | None
    ended: bool
    spent: int
    lanes: Mapping[str, Sequence[Sequence[int]]]

    @property
    def left(self) -> int:
        """What is still set aside; nothing once it has ended."""
        return 0 if self.ended else self.tokens - self.spent


class Proposal(NamedTuple):
    """What a governor has proposed, until ``exp``; ``approved`` names who is for it, the proposer first."""

    id: str
    act: str
    arg: Mapping[str, Any]
    by: str
    approved: tuple[str, ...]
    exp: int


class Supply(NamedTuple):
    """``accounted`` is every token in balances, credits, open holds and open allowances, added up."""

    minted: int
    burned: int
    accounted: int

    @property
    def conserved(self) -> bool:
        return self.accounted == self.minted - self.burned


class Recorded(NamedTuple):
    """An operation in the history. ``document`` is None in listings where it is long (``bytes`` says how
    long); :meth:`Ledger.transaction` gives it whole."""

    issuer: str
    id: str
    act: str
    outcome: Outcome
    bytes: int
    document: str | None


class Transaction(NamedTuple):
    """A ledger transaction; ``signer`` is the wallet whose process wrote it."""

    number: int
    tx_id: str
    time: float
    signer: str
    operations: tuple[Recorded, ...]


class ContractRecord(NamedTuple):
    """One appearance of a contract in a settlement: ``code`` is ``"ok"`` or why the rules refused it.

    Of a private contract ``op`` is what its disclosure says, where that is at hand, and else ``""``.
    """

    tx_id: str
    time: float
    payer: str
    payee: str
    op: str
    charged: int
    code: str
    contract: str
    disclosure: str | None = None


class Ledger(ABC):
    """A ledger: thread-safe, and to be closed."""

    domain: str
    """The id of the domain, which every document names."""

    @abstractmethod
    def submit(
        self, operations: Sequence[str], *, disclosures: Disclosures | None = None
    ) -> Future[list[Result]]:
        """Have ``operations`` done in this order, each all or nothing by itself; their results in order.

        Durable before the future is done. What concurrent callers submit travels together. ``disclosures``
        are those of the private contracts in the operations, by ``sd``: who judges by the rules gets them,
        and they are in no transaction.
        """

    @abstractmethod
    def wallet(self, name: str) -> Future[WalletRecord | None]:
        """The wallet called ``name``."""

    @abstractmethod
    def wallets(self) -> Future[list[WalletRecord]]:
        """All wallets, by name."""

    @abstractmethod
    def policy(self) -> Future[dict[str, Any]]:
        """The policy in force."""

    @abstractmethod
    def balance(self, name: str) -> Future[Balance]:
        """What the wallet ``name`` has; all zero for one that does not exist."""

    @abstractmethod
    def credits(self, name: str, limit: int) -> Future[list[Credit]]:
        """At most ``limit`` credits of the wallet ``name``, as a sweep takes them."""

    @abstractmethod
    def hold(self, payer: str, hold_id: str) -> Future[Hold | None]:
        """One hold."""

    @abstractmethod
    def allowance(self, allowance_id: str) -> Future[Allowance | None]:
        """One allowance."""

    @abstractmethod
    def allowances(self, payer: str, payee: str | None = None) -> Future[list[Allowance]]:
        """The allowances of ``payer`` (for ``payee``) that have not ended."""

    @abstractmethod
    def expirable(self, now: int, limit: int, payer: str | None = None) -> Future[dict[str, Any]]:
        """The argument of an ``expire`` operation: at most ``limit`` holds and allowances (of ``payer``)
        whose time and grace are over at ``now``."""

    @abstractmethod
    def forgettable(self, now: int, limit: int) -> Future[dict[str, Any]]:
        """The argument of a ``forget`` operation: at most ``limit`` records no longer needed at ``now``."""

    @abstractmethod
    def transactions(
        self, after: int = 0, limit: int = 100, wallet: str | None = None, newest_first: bool = False
    ) -> Future[list[Transaction]]:
        """At most ``limit`` transactions (that touch ``wallet``), from the one after number ``after`` on.

        With ``newest_first`` downwards, from the one before ``after`` (0: from the newest).
        """

    @abstractmethod
    def transaction(self, tx_id: str) -> Future[Transaction | None]:
        """One transaction, with its operations whole."""

    @abstractmethod
    def contract(self, jti: str) -> Future[list[ContractRecord]]:
        """Every appearance of the contract id ``jti`` in settlements, oldest first."""

    @abstractmethod
    def proposals(self, now: int) -> Future[list[Proposal]]:
        """What is proposed and, at ``now``, neither carried out nor over."""

    @abstractmethod
    def supply(self) -> Future[Supply]:
        """All tokens there are, and where they are accounted for."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was submitted, then stop. What comes later gets ``LedgerUnavailable``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

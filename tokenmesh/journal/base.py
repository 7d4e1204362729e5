"""The journal's port: what a payee must remember durably, whatever stores it.

A journal answers three questions: has this contract been taken already (claims), what was answered
(responses), and what is still to be settled (the outbox). Every method is atomic over threads and over
processes that share the journal, and durable before it returns.

A method returns its value, or a :class:`concurrent.futures.Future` of it when the journal lies across a
network; callers go through :func:`tokenmesh.steps.wait`. All times are unix seconds, ``now`` is the
caller's clock. Every method raises :class:`tokenmesh.errors.JournalError` when the journal cannot be read
or written.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from typing import ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
Answer: TypeAlias = T | Future[T]

State: TypeAlias = Literal["open", "abandoned", "fulfilled", "void"]
Out: TypeAlias = Literal["fulfilled", "void"]
Key: TypeAlias = tuple[str, str]
"""What names a contract: its payer and its id."""
OnCrash: TypeAlias = Literal["refuse", "rerun"]

HOLD = "hold"
"""The ``via`` of a contract that is paid by a hold of its own; any other ``via`` is an allowance's id."""


class StoredResponse(NamedTuple):
    """A response as it was sent. ``body`` is None when only its ``digest`` (RFC 9530's form) is kept."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None
    digest: str


class NewClaim(NamedTuple):
    """A contract to claim, checked by the provider. ``contract`` is the signed text.

    ``settle_by`` is the last moment at which it can still be settled: fulfilling past it is refused.
    ``funds`` is what the allowance (or the hold) has set aside on the ledger, in tokens.
    """

    payer: str
    jti: str
    contract: str
    htm: str
    htu: str
    dig: str
    op: str
    tok: int
    via: str
    lane: str | None
    seq: int | None
    exp: int
    settle_by: float
    funds: int


class Claim(NamedTuple):
    """What the journal knows of one contract.

    ``state`` is ``abandoned`` when the claim is open but its owner's lease has run out: :meth:`Journal.claim`
    then decides (by ``on_crash``) what a retry gets, so ask it, whether the contract has expired or not.
    ``contract`` is kept once it is fulfilled and owes tokens. ``receipt`` is None when nobody signed one
    (an abandoned claim): the provider signs it when asked. ``tx_id`` is set once it is settled; ``lost`` is
    the rules' code when the ledger refused to settle it.
    """

    payer: str
    jti: str
    state: State
    binding: bytes
    tok: int
    via: str
    lane: str | None
    seq: int | None
    exp: int
    settle_by: float
    charged: int = 0
    reason: str | None = None
    contract: str | None = None
    receipt: str | None = None
    response: StoredResponse | None = None
    tx_id: str | None = None
    lost: str | None = None

    def binds(self, htm: str, htu: str, dig: str) -> bool:
        """Whether the claim is for this very request: method, path with query, digest of the body."""
        return self.binding == binding(htm, htu, dig)


class Claimed(NamedTuple):
    """The contract is yours: run the handler. ``left`` is what the allowance has left (None for a hold).

    ``by`` is the number of the owner that has claimed it. Whoever ends the claim gives it back: an owner that
    is given up while a handler works gets a new number, and under that one a retry may have taken the
    contract over, in the very same process.
    """

    left: int | None
    by: int


class Running(NamedTuple):
    """Someone else's handler works on this contract now; ask again after so many seconds."""

    retry_after: float


class Ended(NamedTuple):
    """The contract has ended earlier: answer with what is stored.

    ``response`` is None when none was given (an abandoned claim); its ``body`` is None when it is kept by
    digest only. ``receipt`` is None for an abandoned claim: sign one.
    """

    out: Out
    charged: int
    receipt: str | None
    response: StoredResponse | None
    tx_id: str | None
    reason: str | None = None


class Mismatch(NamedTuple):
    """This payer used this contract id for another request."""


class SequenceUsed(NamedTuple):
    """Another contract of this allowance and lane has this ``seq`` (or it is too old to tell)."""


class AllowanceUsedUp(NamedTuple):
    """What is set aside does not cover the contract; ``left`` tokens are."""

    left: int


class JournalFull(NamedTuple):
    """Too much waits to be settled, or no space is left and nothing may be dropped."""


ClaimResult: TypeAlias = Claimed | Running | Ended | Mismatch | SequenceUsed | AllowanceUsedUp | JournalFull


class Item(NamedTuple):
    """A fulfilled contract to settle: the signed text, and the tokens to charge."""

    payer: str
    jti: str
    contract: str
    charged: int


class Release(NamedTuple):
    """A hold to give back: that of a contract which ended without owing anything."""

    payer: str
    jti: str


class Skip(NamedTuple):
    """A number of an allowance's lane that will never be settled."""

    allowance: str
    lane: str
    seq: int


class Batch(NamedTuple):
    """What goes to the ledger as one operation.

    Either ``items`` (with the ``skipped`` that travel along) or ``voids``, never both. ``operation`` is the
    signed document once :meth:`Journal.keep_operation` has kept it: it may have been sent. ``since`` is when
    the first of the items was fulfilled.
    """

    id: int
    operation: str | None
    items: list[Item]
    voids: list[Release]
    skipped: list[Skip]
    since: float = 0.0


class JournalStats(NamedTuple):
    """Counts, tokens and bytes. ``unsettled`` contracts are fulfilled and not yet settled, ``lost`` ones
    were refused by the ledger, ``open`` ones are being worked on."""

    claims: int
    open: int
    unsettled: int
    unsettled_tokens: int
    bytes: int
    lost: int


def binding(htm: str, htu: str, dig: str) -> bytes:
    """The request a claim is for, in 16 bytes: part of SHA-256 over method, path with query, body digest."""
    return hashlib.sha256(f"{htm}\n{htu}\n{dig}".encode()).digest()[:16]


class Journal(ABC):
    """The payee's durable record of claims, responses and what is still to settle.

    Claims and batches belong to an **owner**, one per open journal. An owner is alive as long as it
    heartbeats; what a dead one left open is abandoned, its batches are adopted. An owner that comes back
    after it was given up finds its claims taken: it can end none of them.
    """

    at_once: ClassVar[bool] = False
    """Whether every method gives its value, never a future of it."""

    @property
    @abstractmethod
    def owner(self) -> str:
        """Who this is, for people: what is logged and shown."""

    @abstractmethod
    def find(self, payer: str, jti: str) -> Answer[Claim | None]:
        """What is known of a contract. Changes nothing, needs no funds: for requests that would be
        refused otherwise. On the way to the handler :meth:`claim` alone is enough."""

    @abstractmethod
    def claim(self, entry: NewClaim, now: float) -> Answer[ClaimResult]:
        """Take a contract, once. A contract that is known already gets its answer (``Mismatch``,
        ``Ended``, ``Running``) before funds, numbering and space are looked at."""

    def why_not(self, entry: NewClaim) -> SequenceUsed | AllowanceUsedUp | None:  # noqa: ARG002
        """What :meth:`claim` would say now of a contract that is new and cannot be paid; None: ask that.

        Only looks, and waits for nobody: a provider asks before it claims for payers of whom it has refused
        such contracts lately. A journal that has no cheaper way to tell leaves it as it is.
        """
        return None

    @abstractmethod
    def fulfil(
        self,
        payer: str,
        jti: str,
        charged: int,
        response: StoredResponse,
        receipt: str | None,
        now: float,
        *,
        by: int | None = None,
    ) -> Answer[bool]:
        """End a claim as fulfilled, store the response and put it in the outbox, in one transaction.

        False, and nothing changes, when the claim is no longer this owner's, is not the one made ``by`` (see
        :class:`Claimed`; None: the one that is open here), has ended, or ``settle_by`` has passed.
        ``charged`` is at most the claim's ``tok``; the rest goes back to the allowance.
        """

    @abstractmethod
    def void(
        self,
        payer: str,
        jti: str,
        reason: str,
        response: StoredResponse | None,
        receipt: str | None,
        now: float,
        *,
        by: int | None = None,
    ) -> Answer[bool]:
        """End a claim as void: nothing is owed. False when it is no longer this owner's, is not the one made
        ``by``, or has ended."""

    @abstractmethod
    def heartbeat(self, now: float) -> Answer[None]:
        """Renew this owner's lease. To be called at least every third of the lease."""

    @abstractmethod
    def allowance_used(self, allowance: str) -> Answer[int]:
        """Tokens of an allowance that claims stand for: open ones at ``tok``, fulfilled ones as charged."""

    @abstractmethod
    def take_batch(self, limit: int, now: float, *, bytes_max: int = 2 * 1024 * 1024) -> Answer[Batch | None]:
        """The next batch to settle: at most ``limit`` contracts of together ``bytes_max`` bytes (at least
        one).

        A batch that this owner has not finished comes first, then one that a dead owner left. None when
        nothing waits, or when another live owner has a batch under way: they go one after the other.
        """

    @abstractmethod
    def keep_operation(self, batch_id: int, operation: str) -> Answer[bool]:
        """Keep the signed operation of a batch, before it is sent for the first time. False when the batch
        is no longer this owner's or has an operation already: do not send."""

    @abstractmethod
    def finish_batch(
        self,
        batch_id: int,
        refused: Mapping[Key, str],
        tx_id: str | None,
        now: float,
        *,
        settled: Mapping[Key, str] | None = None,
    ) -> Answer[bool]:
        """End a batch: its contracts are settled in ``tx_id``.

        But those in ``refused`` (to the rules' code) are lost, and those in ``settled`` (to its transaction)
        were settled in another one. False when the batch is no longer this owner's.
        """

    @abstractmethod
    def release_batch(
        self,
        batch_id: int,
        *,
        refused: Mapping[Key, str] | None = None,
        settled: Mapping[Key, str] | None = None,
    ) -> Answer[bool]:
        """Put a batch back in the outbox, with no operation: for when it certainly was not, and can no longer
        be, applied. What is known of single contracts is kept, as in :meth:`finish_batch`, and only the rest
        waits again. False when the batch is no longer this owner's."""

    @abstractmethod
    def prune(self, now: float) -> Answer[None]:
        """End what was abandoned, drop what need not be kept any longer; a bounded piece of it a call."""

    @abstractmethod
    def stats(self) -> Answer[JournalStats]:
        """Counts over the whole journal. Reads much: for people and monitors, not for each request."""

    @abstractmethod
    def close(self) -> None:
        """Give up the lease and close. Claims still open are abandoned at once."""

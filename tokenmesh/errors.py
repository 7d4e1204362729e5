"""Every error of tokenmesh, as one tree.

    TokenmeshError
    ├── ConfigError                 the set-up is wrong: a name, a path, an option
    ├── IdentityError               a key or certificate is missing, unreadable or does not fit
    ├── LedgerError
    │   ├── LedgerUnavailable       certainly nothing happened on the ledger; try again later
    │   │   └── LedgerBusy          too many operations wait already; nothing happened
    │   ├── LedgerOutcomeUnknown    sent, no answer: ask again with the same operation
    │   └── OperationRefused        the rules said no
    ├── JournalError                the journal cannot be read or written
    ├── ServingError                a priced handler is used in a way that would serve it free
    └── CallError                   a paying call did not end well; see ``spent``
        ├── NotSpent                certainly no tokens were spent
        │   ├── OfferTooHigh        the offer is above what the caller allows
        │   ├── InsufficientFunds   the wallet has too few tokens to set aside
        │   ├── NotFunded           the rules refuse to set tokens aside: a frozen wallet, an unknown payee
        │   ├── NotFundedYet        the ledger gave no answer, so no tokens are set aside
        │   ├── OtherDomain         the payee is paid on other ledgers than the one this call is paid on
        │   ├── Refused             the payee refused the contract; ``problem`` says why
        │   ├── Voided              the payee ended the contract without an answer: it was killed meanwhile
        │   └── Unreachable         the service could not be found or reached
        ├── Spent                   tokens were spent, but the caller has no usable response
        │   ├── ResponseNotKept     fulfilled earlier; its response is kept by digest only
        │   └── ReceiptInvalid      the receipt does not hold: signature, contract, amount or digest
        └── OutcomeUnknown          no answer in time: the contract may still be fulfilled

What a caller needs to know is in the class: :class:`NotSpent`, :class:`Spent` or :class:`OutcomeUnknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal


class TokenmeshError(Exception):
    """Base of all errors of this package.

    ``retryable`` says whether the same thing, tried again later, may succeed.
    """

    retryable: ClassVar[bool] = False


class ConfigError(TokenmeshError):
    """The set-up is wrong; the message names the setting and what would be right."""


class IdentityError(TokenmeshError):
    """A wallet's key or certificate is missing, unreadable or does not fit."""


class LedgerError(TokenmeshError):
    """The ledger could not do what was asked."""


class LedgerUnavailable(LedgerError):
    """The ledger cannot be reached, and certainly nothing happened on it."""

    retryable = True


class LedgerBusy(LedgerUnavailable):
    """Too many operations wait for the ledger already; this one was not taken."""


class LedgerOutcomeUnknown(LedgerError):
    """An operation was sent and no answer came: submit the same operation again, it happens once."""

    retryable = True


class OperationRefused(LedgerError):
    """The rules refused an operation. ``code`` is the rules' word for why, ``detail`` what they add."""

    def __init__(self, message: str, *, code: str, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.detail = dict(detail or {})


class JournalError(TokenmeshError):
    """The journal cannot be read or written."""

    retryable = True


class ServingError(TokenmeshError):
    """A priced handler is used in a way that would serve it free, or outside a request."""


class CallError(TokenmeshError):
    """A paying call did not end well.

    ``spent`` is ``"no"``, ``"yes"`` or ``"unknown"``; ``contract_id`` and ``tx_id`` name the contract and
    the ledger transaction as far as they are known; ``service`` is the payee.
    """

    spent: ClassVar[Literal["no", "yes", "unknown"]]

    def __init__(
        self,
        message: str,
        *,
        service: str | None = None,
        contract_id: str | None = None,
        tx_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.service = service
        self.contract_id = contract_id
        self.tx_id = tx_id


class NotSpent(CallError):
    """Certainly no tokens were spent."""

    spent = "no"


class OfferTooHigh(NotSpent):
    """The payee asks for more than ``max_tokens`` allows."""


class InsufficientFunds(NotSpent):
    """The wallet has too few tokens to set aside for this call."""


class NotFunded(NotSpent):
    """The rules refuse to set tokens aside for this payee; the message has their word for why."""


class NotFundedYet(NotSpent):
    """No tokens are set aside, as the ledger gave no answer in time."""

    retryable = True


class OtherDomain(NotSpent):
    """The payee is paid in other domains than the one this call would be paid in; the message names them."""


class Refused(NotSpent):
    """The payee refused the contract. ``status`` and ``problem`` are its RFC 9457 answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        problem: Mapping[str, Any],
        service: str | None = None,
        contract_id: str | None = None,
    ) -> None:
        super().__init__(message, service=service, contract_id=contract_id)
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))


class Voided(NotSpent):
    """The payee ended the contract without having an answer, as when its process was killed: nothing is
    owed, and the work may have been done in part. A new call makes a new contract."""

    retryable = True


class Unreachable(NotSpent):
    """The service could not be found, or no connection to it could be made."""

    retryable = True


class Spent(CallError):
    """Tokens were spent, but the caller has no usable response."""

    spent = "yes"


class ResponseNotKept(Spent):
    """The call was fulfilled earlier and its response, being too large, was kept by digest only."""


class ReceiptInvalid(Spent):
    """A receipt came that does not hold; keep it as evidence. Counted as spent, to be safe."""


class OutcomeUnknown(CallError):
    """No answer came in time. The contract stays valid until it expires: call again with the same
    idempotency key, or look at ``tokenmesh contract show`` once it has expired. An idempotent request needs
    no key: within ``unanswered_s`` the next call for the same carries the contract on."""

    spent = "unknown"
    retryable = True

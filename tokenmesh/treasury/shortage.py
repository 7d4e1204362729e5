"""Why tokens could not be set aside."""

from __future__ import annotations

from typing import NamedTuple

from tokenmesh.errors import InsufficientFunds, LedgerError, NotFunded, NotFundedYet, NotSpent
from tokenmesh.ledger.base import Ledger
from tokenmesh.places import without_secrets
from tokenmesh.steps import Steps, wait
from tokenmesh_chaincode.rules import MEANING, Outcome

INSUFFICIENT = "insufficient_funds"


class Shortage(NamedTuple):
    """Why ``tokens`` could not be set aside; every waiting caller raises an error of its own from it."""

    kind: type[NotSpent]
    message: str
    tokens: int
    cause: BaseException | None = None

    def error(self, payee: str | None) -> NotSpent:
        error = self.kind(self.message, service=payee)
        error.__cause__ = self.cause
        return error


def no_answer(error: LedgerError) -> Shortage:
    """The ledger did not say."""
    message = f"no tokens are set aside, as the ledger gave no answer: {error}"
    return Shortage(NotFundedYet, message, 0, error)


def refusal(outcome: Outcome, tokens: int) -> Shortage:
    """The rules said no."""
    if outcome.code == INSUFFICIENT:
        return too_few(int(outcome.detail["have"]), tokens)
    meaning = MEANING.get(outcome.code, "")
    message = f"the ledger sets no tokens aside: {outcome.code}, {meaning} {outcome.detail}"
    return Shortage(NotFunded, message, tokens)


def lacking(ledger: Ledger, name: str, spendable: int, tokens: int, url: str) -> Steps[Shortage]:
    """The wallet ``name`` has too little; or it is not on this ledger at all, as when it is on another one of
    its service's domains only."""
    if spendable or (yield from wait(ledger.wallet(name))) is not None:
        return too_few(spendable, tokens)
    where = without_secrets(url)
    return Shortage(
        NotFunded,
        f"the ledger {where} has no wallet {name!r} that could pay: make it with 'tokenmesh wallet create "
        f"{name} --ledger {where}'",
        tokens,
    )


def too_few(spendable: int, tokens: int) -> Shortage:
    """The wallet has too little."""
    return Shortage(
        InsufficientFunds,
        f"{tokens} tokens are needed and {spendable} can be spent: have more granted with 'tokenmesh grant', "
        "or wait until tokens set aside for other payees come back",
        tokens,
    )

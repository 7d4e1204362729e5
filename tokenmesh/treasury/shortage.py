"""Why tokens could not be set aside."""

from __future__ import annotations

from typing import NamedTuple

from tokenmesh.errors import InsufficientFunds, LedgerError, NotFunded, NotFundedYet, NotSpent
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


def too_few(spendable: int, tokens: int) -> Shortage:
    """The wallet has too little."""
    return Shortage(
        InsufficientFunds,
        f"{tokens} tokens are needed and {spendable} can be spent: have more granted with 'tokenmesh grant', "
        "or wait until tokens set aside for other payees come back",
        tokens,
    )

"""A wallet at a ledger: signs operations, has them done, and says in words why the rules refuse one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import click

from tokenmesh.cli.output import printable, say, warn
from tokenmesh.errors import LedgerOutcomeUnknown, OperationRefused, TokenmeshError
from tokenmesh.identity import Wallet
from tokenmesh.ledger.base import Ledger, Result
from tokenmesh_chaincode.documents import Operation, new_id, sign
from tokenmesh_chaincode.limits import SWEEP_ITEMS_MAX
from tokenmesh_chaincode.rules import MEANING, Outcome

OPERATION_TTL_S = 120
ANSWER_S_MAX = 60
SUBMIT_ATTEMPTS_MAX = 3
SWEEPS_MAX = 20

MAY_HAPPEN = "What was asked for may still happen: look at 'tokenmesh history' before you ask again."

ADVICE = {
    "unknown_wallet": "'tokenmesh wallet list' shows those there are",
    "unknown_certificate": "the ledger knows another key than this home's: check --home and --ledger",
    "certificate_expired": "a governor can renew it: 'tokenmesh wallet rotate NAME --as governance'",
    "not_governor": "name one with --as",
    "frozen": "a governor can undo it: 'tokenmesh unfreeze NAME'",
    "unknown_proposal": "'tokenmesh proposals' shows those that wait",
    "proposal_ended": "'tokenmesh proposals' shows those that wait",
    "not_yet_valid": "the clock of this machine is ahead of the ledger's",
    "expired": "the clock of this machine is behind the ledger's",
}
"""What to do about a refusal, where it is not plain."""

T = TypeVar("T")


class Fault(click.ClickException):
    """Anything that goes wrong: said in a line or two on stderr."""

    exit_code = 2

    def show(self, file: Any = None) -> None:  # noqa: ARG002 -- click's signature; errors go to stderr
        click.echo(click.style("Error: ", fg="red") + printable(self.message), err=True)


class Interrupted(Fault):
    """Somebody pressed Ctrl-C; what a shell expects then is 128 and the signal's number."""

    exit_code = 130


class Desk:
    """A wallet at a ledger: signs operations and has them done."""

    def __init__(self, ledger: Ledger, wallet: Wallet, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.wallet = wallet
        self._clock = clock

    def do(self, act: str, argument: Mapping[str, Any], *, id: str | None = None) -> Result:  # noqa: A002
        """Sign the operation and have it done; :class:`OperationRefused` if the rules say no.

        An answer that is lost is asked for again with the same operation, which happens once. What the rules
        want to see put in force once it is in the ledger is put in force.
        """
        result = self._do(act, argument, id or new_id())
        detail = result.outcome.detail
        enforce = detail.get("enforce") or (detail.get("result") or {}).get("enforce")
        if enforce is not None:
            self._enforce(enforce)
        return result

    def _enforce(self, change: Mapping[str, Any]) -> None:
        try:
            self._do("enforce", change, new_id())
        except (TokenmeshError, Fault) as error:  # the change itself has been made
            warn(
                f"services act on it, but the ledger does not count it against them yet: {error}; "
                "'tokenmesh enforce' does that"
            )

    def _do(self, act: str, argument: Mapping[str, Any], id: str) -> Result:  # noqa: A002
        now, name = int(self._clock()), self.wallet.name
        expiry = now + OPERATION_TTL_S
        operation = Operation(self.ledger.domain, name, id, now, expiry, act, dict(argument))
        text = sign(operation, self.wallet)
        attempt = 1
        while True:
            try:
                result = answer(self.ledger.submit([text]))[0]
                break
            except LedgerOutcomeUnknown as error:
                if attempt == SUBMIT_ATTEMPTS_MAX:
                    raise LedgerOutcomeUnknown(f"{error}\n{MAY_HAPPEN}") from error
                attempt += 1
        if not result.outcome.ok:
            raise OperationRefused(
                _why(act, result.outcome), code=result.outcome.code, detail=result.outcome.detail
            )
        return result

    def govern(self, act: str, argument: Mapping[str, Any]) -> bool:
        """Do what the policy may ask several governors for; False if it is only proposed now."""
        threshold = answer(self.ledger.policy())["threshold"]
        if threshold <= 1:
            self.do(act, argument)
            return True
        proposed = self.do("propose", {"act": act, "arg": dict(argument)}).outcome.detail
        if proposed["done"]:
            return True
        proposal = proposed["proposal"]
        say(f"Proposed: {act}, as {proposal}. It takes {threshold} governors; the others approve it with")
        say(f"  tokenmesh approve {proposal} --as NAME")
        return False

    def gather(self, tokens: int) -> None:
        """Have so many tokens spendable, sweeping in what waits as credits; a fault says what is lacking."""
        name = self.wallet.name
        for _ in range(SWEEPS_MAX):
            balance = answer(self.ledger.balance(name))
            if balance.spendable >= tokens or not balance.credits:
                break
            waiting = answer(self.ledger.credits(name, SWEEP_ITEMS_MAX))
            self.do("sweep", {"credits": [credit.id for credit in waiting]})
        if balance.spendable < tokens:
            lacking = tokens - balance.spendable
            advice = f": 'tokenmesh mint {lacking}' makes more" if self.wallet.role == "governor" else ""
            raise Fault(f"{name} has {balance.spendable:,} tokens to spend and needs {tokens:,}{advice}")


def answer(future: Future[T]) -> T:
    """What the ledger answers, within ``ANSWER_S_MAX``."""
    try:
        return future.result(ANSWER_S_MAX)
    except TimeoutError as error:
        raise Fault(f"the ledger gave no answer in {ANSWER_S_MAX} s. {MAY_HAPPEN}") from error


def _why(act: str, outcome: Outcome) -> str:
    """What happened, why, and what to do, of a refusal."""
    meaning = MEANING.get(outcome.code, outcome.code).partition("; detail")[0]
    details = ", ".join(
        str(value) if key in ("why", "wallet") else f"{key} {value}" for key, value in outcome.detail.items()
    )
    advice = ADVICE.get(outcome.code)
    return (
        f"{act} is refused ({outcome.code}): {meaning}"
        + (f" ({details})" if details else "")
        + (f"; {advice}" if advice else "")
    )

"""Operations of one wallet: made, signed, and done once however often they are submitted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.identity import Reloading
from tokenmesh.ledger.base import Ledger
from tokenmesh.steps import Steps, wait
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.rules import Outcome

OPERATION_TTL_S = 60
"""How long an operation without an answer can still be applied."""
SUBMIT_TRIES = 3
"""How often an operation without an answer is submitted before its caller hears of it."""

T = TypeVar("T")


class Unanswered(NamedTuple):
    """An operation that was submitted and got no answer; it can be applied until ``exp``."""

    document: str
    exp: int
    act: str
    arg: dict[str, Any]


class Operations:
    """Has operations of ``wallet`` done by ``ledger``."""

    def __init__(
        self, wallet: Reloading, ledger: Ledger, clock: Callable[[], float], ids: Callable[[], str]
    ) -> None:
        self._wallet = wallet
        self._ledger = ledger
        self._clock = clock
        self._ids = ids

    def perform(
        self, act: str, arg: dict[str, Any], unanswered: Callable[[Unanswered], None] | None = None
    ) -> Steps[Outcome]:
        """Have ``act`` done with ``arg``.

        Raises :class:`LedgerError`; before :class:`LedgerOutcomeUnknown`, ``unanswered`` is given what is
        needed to ask again.
        """
        self._wallet.reload()
        now = int(self._clock())
        operation = documents.Operation(
            self._ledger.domain, self._wallet.name, self._ids(), now, now + OPERATION_TTL_S, act, arg
        )
        document = documents.sign(operation, self._wallet)
        try:
            return (yield from self.submit(document))
        except LedgerOutcomeUnknown:
            if unanswered is not None:
                unanswered(Unanswered(document, operation.exp, act, arg))
            raise

    def submit(self, document: str) -> Steps[Outcome]:
        """Have ``document`` done, or hear what became of it earlier."""
        for tries_left in reversed(range(SUBMIT_TRIES)):
            try:
                results = yield from wait(self._ledger.submit([document]))
            except LedgerOutcomeUnknown:
                if not tries_left:
                    raise
            else:
                outcome: Outcome = results[0].outcome
                return outcome
        raise AssertionError("unreachable: the last try returns or raises")


def spawn(steps: Steps[T], result: Future[T]) -> None:
    """Drive ``steps`` on the callbacks of the futures that they wait for; ``result`` gets what they give.

    They may wait for futures only, and run on whatever thread completes those: they must be quick.
    """

    def advance(done: Future[Any] | None) -> None:
        while True:
            try:
                if done is None:
                    effect = next(steps)
                elif (error := done.exception()) is not None:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(done.result())
            except StopIteration as stop:
                result.set_result(stop.value)
                return
            except BaseException as error:
                steps.close()
                result.set_exception(error)
                return
            if not effect.done():
                effect.add_done_callback(advance)
                return
            done = effect

    advance(None)

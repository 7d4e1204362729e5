"""The ledger on Hyperledger Fabric: the rules run as chaincode on the organisations' peers.

Operations travel in batches, several of which are on their way at once (:mod:`.pipeline`,
:mod:`.conflicts`); questions about the state are put to one peer, those about history to an index of its
blocks (:mod:`.history`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from random import Random
from typing import Any, Self, TypeVar

from tokenmesh.errors import ConfigError, LedgerError, LedgerUnavailable
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Gateway, Retry
from tokenmesh.ledger import private
from tokenmesh.ledger.base import (
    Allowance,
    Balance,
    ContractRecord,
    Credit,
    Hold,
    Ledger,
    Proposal,
    Result,
    Supply,
    Transaction,
    WalletRecord,
)
from tokenmesh.ledger.batching import (
    BATCH_BYTES_MAX,
    CLOSE_S_MAX,
    QUESTIONS_MAX,
    QUEUE_BATCHES_MAX,
    QUEUE_MAX,
    Job,
    Reader,
    Room,
    Submission,
)
from tokenmesh.ledger.fabric.conflicts import ENFORCE, conflict_keys
from tokenmesh.ledger.fabric.history import History
from tokenmesh.ledger.fabric.pipeline import Pipeline
from tokenmesh.ledger.fabric.questions import StateQuestions
from tokenmesh.ledger.fabric.sending import Sender, ledger_error
from tokenmesh.telemetry import LedgerWatch
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures, canonical, new_id
from tokenmesh_chaincode.limits import APPLY_OPERATIONS_MAX
from tokenmesh_chaincode.rules import genesis_document

T = TypeVar("T")

IN_FLIGHT_MAX = 3
"""Transactions of one process that are on their way at once."""
TRANSACTION_BYTES_MAX = 4 * 2**20
"""A batch is no larger, whatever ``batch_bytes_max`` says: with what it writes, it is to fit a block."""
QUESTIONS_AT_ONCE_MAX = 4
SUBMIT_RETRY = Retry(attempts=100, wait_s=0.02, wait_s_max=0.5, budget_s=20.0, resend_s=3.0)
"""Short pauses: what is in the way of a batch is most often a block that one of the endorsers lacks yet."""
ASK_RETRY = Retry(attempts=20, wait_s=0.05, wait_s_max=0.5, budget_s=5.0)
GENESIS_REFUSALS = ("begun_already:", "bad_genesis:", "not_administrator:")


class FabricLedger(Ledger):
    """A ledger that ``chaincode`` keeps on ``channel``, reached through ``gateway``, which it closes.

    ``clock`` gives the time of its transactions; an endorser refuses one that is not about now by its own
    clock. ``batch_max`` operations of ``batch_bytes_max`` bytes go into one transaction, ``in_flight_max``
    transactions are on their way at once, ``queue_max`` operations may wait. ``history`` answers questions
    about the past (left out: from an index in a temporary file). ``wallet`` is whose process this is, if that
    matters to anyone. With ``reading`` nothing can be submitted.

    Raises ``ConfigError`` if no ledger has begun there, ``LedgerUnavailable`` if that cannot be learned.
    gRPC does not survive ``fork``: open it in the process that uses it.
    """

    def __init__(
        self,
        gateway: Gateway,
        channel: str,
        chaincode: str,
        *,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        batch_max: int = APPLY_OPERATIONS_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        queue_max: int = QUEUE_MAX,
        in_flight_max: int = IN_FLIGHT_MAX,
        history: History | None = None,
        wallet: str | None = None,
        reading: bool = False,
    ) -> None:
        self.channel = channel
        self.chaincode = chaincode
        self._gateway = gateway
        self._reading = reading
        self._batch_max = min(batch_max, APPLY_OPERATIONS_MAX)
        self._batch_bytes_max = min(batch_bytes_max, TRANSACTION_BYTES_MAX)
        network = gateway.get_network(channel)
        contract = network.get_contract(chaincode, clock=clock, remember_endorsers=True)
        draw = (random or secrets.SystemRandom()).random
        self._state = StateQuestions(contract, _drawing(ASK_RETRY, draw), wallet)
        self.domain = self._state.domain()
        if not self.domain:
            raise ConfigError(
                f"no ledger has begun in chaincode {chaincode} on channel {channel}: "
                "'tokenmesh init' makes one"
            )
        self._watch = watch = LedgerWatch("fabric")
        self._history = history or History(gateway, channel, chaincode)
        self._questions: Pipeline[Callable[[], Any]] = Pipeline(
            "tokenmesh-ledger-questions",
            _answer,
            Room(QUESTIONS_MAX, QUESTIONS_MAX),
            batch_max=1,
            batch_bytes_max=1,
            in_flight_max=QUESTIONS_AT_ONCE_MAX,
        )
        # Apart from the others, for an index that has much to catch up with takes its time.
        self._historian = Reader(watch=watch)
        room = Room(queue_max, QUEUE_BATCHES_MAX * batch_bytes_max)
        watch.queues(room)
        self._pipeline: Pipeline[Submission] = Pipeline(
            "tokenmesh-ledger-sender",
            Sender(contract, _drawing(SUBMIT_RETRY, draw), self._history.seen, watch).send,
            room,
            batch_max=self._batch_max,
            batch_bytes_max=self._batch_bytes_max,
            in_flight_max=in_flight_max,
            unsure=True,
        )

    @classmethod
    def create(
        cls,
        gateway: Gateway,
        channel: str,
        chaincode: str,
        *,
        ca: Sequence[str],
        governors: Mapping[str, str],
        policy: Mapping[str, Any],
        nonce: str | None = None,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> Self:
        """Begin a ledger in ``chaincode`` on ``channel``, and open it, with ``options`` as for the class.

        ``ca`` are the authorities' certificates, ``governors`` the governors' by name, all in PEM. The
        gateway's identity is to be an administrator of its organisation. Raises ``ConfigError`` if another
        ledger has begun there, or if none could be governed so.
        """
        first = genesis_document(
            ca=ca, governors=governors, policy=dict(policy), now=int(clock()), nonce=nonce or new_id()
        )
        contract = gateway.get_network(channel).get_contract(chaincode, clock=clock)
        try:
            contract.submit("genesis", (canonical(first),))
        except FabricError as error:
            if any(refusal in str(error) for refusal in GENESIS_REFUSALS):
                raise ConfigError(f"no ledger can be begun with this: {error}") from error
            raise ledger_error(error) from error
        return cls(gateway, channel, chaincode, clock=clock, **options)

    def submit(
        self, operations: Sequence[str], *, disclosures: Disclosures | None = None
    ) -> Future[list[Result]]:
        future: Future[list[Result]] = Future()
        submission = Submission(operations, disclosures or NO_DISCLOSURES)
        size, length = len(operations), submission.bytes
        if self._reading:
            future.set_exception(
                LedgerError("this ledger was opened without a wallet, to read: nothing can be submitted")
            )
        elif not size:
            future.set_result([])
        elif size > 1 and (size > self._batch_max or length > self._batch_bytes_max):
            future.set_exception(
                LedgerError(
                    f"{size} operations of {length} bytes are too much for one submission: at most "
                    f"{self._batch_max} (batch_max) of {self._batch_bytes_max} bytes (batch_bytes_max)"
                )
            )
        else:
            self._watch.submitted(future)
            keys = frozenset().union(*map(conflict_keys, operations))
            if ENFORCE in keys:
                submission = submission._replace(is_prompt=True)
            self._pipeline.put(Job(submission, future, size, length), keys)
        return future

    def wallet(self, name: str) -> Future[WalletRecord | None]:
        return self._ask(lambda: self._state.wallet(name))

    def wallets(self) -> Future[list[WalletRecord]]:
        return self._ask(self._state.wallets)

    def policy(self) -> Future[dict[str, Any]]:
        return self._ask(self._state.policy)

    def balance(self, name: str) -> Future[Balance]:
        return self._ask(lambda: self._state.balance(name))

    def credits(self, name: str, limit: int) -> Future[list[Credit]]:
        return self._ask(lambda: self._state.credits(name, limit))

    def hold(self, payer: str, hold_id: str) -> Future[Hold | None]:
        return self._ask(lambda: self._state.hold(payer, hold_id))

    def allowance(self, allowance_id: str) -> Future[Allowance | None]:
        return self._ask(lambda: self._state.allowance(allowance_id))

    def allowances(self, payer: str, payee: str | None = None) -> Future[list[Allowance]]:
        return self._ask(lambda: self._state.allowances(payer, payee))

    def expirable(self, now: int, limit: int, payer: str | None = None) -> Future[dict[str, Any]]:
        return self._ask(lambda: self._state.expirable(now, limit, payer))

    def forgettable(self, now: int, limit: int) -> Future[dict[str, Any]]:
        return self._ask(lambda: self._state.forgettable(now, limit))

    def transactions(
        self, after: int = 0, limit: int = 100, wallet: str | None = None, newest_first: bool = False
    ) -> Future[list[Transaction]]:
        return self._historian.ask(lambda: self._history.transactions(after, limit, wallet, newest_first))

    def transaction(self, tx_id: str) -> Future[Transaction | None]:
        return self._historian.ask(lambda: self._history.transaction(tx_id))

    def contract(self, jti: str) -> Future[list[ContractRecord]]:
        return self._historian.ask(lambda: self._disclosed(self._history.contract(jti)))

    def proposals(self, now: int) -> Future[list[Proposal]]:
        return self._ask(lambda: self._state.proposals(now))

    def supply(self) -> Future[Supply]:
        return self._ask(self._state.supply)

    def close(self) -> None:
        self._watch.close()
        until = time.monotonic() + CLOSE_S_MAX
        ended = [
            part.close(max(0.0, until - time.monotonic()))
            for part in (self._pipeline, self._questions, self._historian)
        ]
        # What is still at work after the time is over keeps its connection: daemons end with the process.
        # So does everything in a process that was forked: it is the other one's to close.
        if all(ended):
            self._history.close()
            self._gateway.close()

    def _disclosed(self, records: list[ContractRecord]) -> list[ContractRecord]:
        """What private contracts were for, if the peer is a member of the collection that has it."""
        digests = private.digests_of(records)
        if not digests:
            return records
        try:
            return private.disclosed(records, self._state.disclosures(digests))
        except LedgerUnavailable:
            return records

    def _ask(self, question: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._watch.asked(future)
        self._questions.put(Job(question, future, 1, 0))
        return future


def _answer(jobs: list[Job[Callable[[], Any]]]) -> None:
    for job in jobs:
        try:
            job.future.set_result(job.payload())
        except LedgerError:
            raise
        except Exception as error:
            raise LedgerUnavailable(f"the ledger could not answer: {error!r}") from error


def _drawing(retry: Retry, draw: Callable[[], float]) -> Retry:
    return Retry(retry.attempts, retry.wait_s, retry.wait_s_max, retry.budget_s, retry.resend_s, draw)

"""Settlement: what is fulfilled is carried from the journal to the ledger, in batches.

A batch becomes one operation, signed once and kept in the journal before it is sent. From then on the same
document is sent, by this process or by one that adopts the batch, until the ledger has answered: it takes
effect once however often it arrives. Only when its time is over, and the ledger still has not answered, is
the ledger asked what became of the contracts, and what it has not settled goes into a new operation.

:meth:`Settlement.step` does one round and decides everything by the clock that was handed in; the thread only
repeats it. Every wait in it keeps the journal's lease alive.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future
from random import Random
from typing import Any, NamedTuple, TypeVar

from tokenmesh.config import Settings
from tokenmesh.errors import JournalError, LedgerOutcomeUnknown, OperationRefused, TokenmeshError
from tokenmesh.journal import Batch, Item, Journal
from tokenmesh.journal.base import Key
from tokenmesh.ledger import Ledger
from tokenmesh.settlement.batches import (
    OF_DISCLOSURES,
    disclosures,
    is_disclosed,
    refused_items,
    settle_argument,
)
from tokenmesh.settlement.saying import say_fault, say_judged, say_waiting
from tokenmesh.steps import Steps, run, wait
from tokenmesh.telemetry import JournalGauges, Settled, SettleWatch, measure_round
from tokenmesh.telemetry import now as watch_now
from tokenmesh_chaincode.documents import (
    Operation,
    Signer,
    new_id,
    parse_operation,
    sign,
)
from tokenmesh_chaincode.limits import (
    CLOCK_SKEW_S_MAX,
    OPERATION_BYTES_MAX,
    SETTLE_ITEMS_MAX,
    VOID_ITEMS_MAX,
)
from tokenmesh_chaincode.rules import Outcome

T = TypeVar("T")

OPERATION_TTL_S = 600
"""How long a settlement's operation can be sent again. The ledger remembers it for as long."""
BATCH_BYTES_MAX = OPERATION_BYTES_MAX * 3 // 4 - 512 * 1024
"""Contracts in one operation: base64 makes three bytes four, and the skipped numbers need room too."""
ANSWER_S_MAX = 60.0
"""How long a round waits for one answer. Past it the outcome is unknown, and the same is sent again."""
BACKOFF_S_MIN = 0.1
IDLE_S_MIN = 0.01
LOOK_S = 0.1
"""How often a wait looks whether it should go on: it ends soon after :meth:`Settlement.stop`'s time."""
PRUNE_EVERY_S = 1.0
BEATS_PER_LEASE = 4


class Round(NamedTuple):
    """What one round did, and after how many seconds the next is worth while (0: at once).

    ``idle`` says that nothing waited, or that another process's batch was under way.
    """

    wait_s: float
    idle: bool = False
    settled: int = 0
    tokens: int = 0
    lost: int = 0
    voided: int = 0
    failure: TokenmeshError | None = None


class Settlement:
    """Settles what the journal has, for the payee ``signer``.

    ``settings`` gives the interval, the size of a batch and the longest wait while the ledger is not there.
    ``failure`` is the last round's error, None when it went well. ``upkeep`` is called in every round: what
    else is to be looked after, and waits for nothing.
    """

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        signer: Signer,
        *,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
        ids: Callable[[], str] = new_id,
        random: Random | None = None,
        upkeep: Callable[[], None] | None = None,
    ) -> None:
        settings = settings or Settings()
        self._journal = journal
        self._also = upkeep
        self._ledger = ledger
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._random = random or secrets.SystemRandom()
        self._interval_s = settings.settle_interval_s
        self._beat_s = settings.lease_s / BEATS_PER_LEASE
        self._backoff_s_max = settings.settle_backoff_s_max
        self._batch_max = min(settings.settle_batch_max, SETTLE_ITEMS_MAX, VOID_ITEMS_MAX)
        self._limit = self._batch_max
        self._failures = 0
        self._retry_at = self._beat_at = self._prune_at = float("-inf")
        self._rounds = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._stop_at = float("inf")
        self.failure: TokenmeshError | None = None
        self._watched: tuple[int, SettleWatch | None] = (-1, None)
        self._gauges = JournalGauges(ledger.domain, settings.unsettled_max, settings.journal_bytes_max, clock)

    # One round

    def step(self) -> Round:
        """Do one round, waiting for each answer, though not for ever. Failures are in the answer."""
        return self._step(float("inf"))

    def round(self) -> Steps[Round]:
        """One round as steps: it yields what it waits for, so that a simulator decides when that arrives."""
        try:
            yield from self._upkeep()
            now = self._clock()
            if now < self._retry_at:
                return Round(self._retry_at - now, failure=self.failure)
            batch = yield from wait(self._journal.take_batch(self._limit, now, bytes_max=BATCH_BYTES_MAX))
            if batch is None:
                done = Round(max(self._interval_s, IDLE_S_MIN), idle=True)
            else:
                done = yield from self._measured(batch)
        except TokenmeshError as error:
            return self._back_off(error)
        self._failures, self.failure = 0, None
        return done

    def _upkeep(self) -> Steps[None]:
        """Show life, and drop what need not be kept."""
        now = self._clock()
        if now >= self._beat_at:
            self._beat_at = now + self._beat_s
            yield from wait(self._journal.heartbeat(now))
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            yield from wait(self._journal.prune(now))
        if self._gauges.due():
            self._gauges.noted((yield from wait(self._journal.stats())))
        if self._also is not None:
            self._also()

    def _carry(self, batch: Batch) -> Steps[Round]:
        """Bring one batch to its end, or raise why it has to wait."""
        now = self._clock()
        text = batch.operation
        if text is None:
            text = sign(self._operation(batch, now), self._signer)
            # Kept before it is sent: whoever comes after a crash sends this very document again.
            if not (yield from wait(self._journal.keep_operation(batch.id, text))):
                return Round(0)
        operation = parse_operation(text).body
        self._watch(batch)
        if now > operation.exp:
            # The ledger's clock may be behind this one: until it must be past the expiry as well, the
            # document could still take effect.
            late = operation.exp + CLOCK_SKEW_S_MAX - now
            return Round(late) if late >= 0 else (yield from self._look_up(batch, operation))
        beside = disclosures(batch.items)
        (result,) = yield from wait(self._ledger.submit([text], disclosures=beside))
        outcome = result.outcome
        if outcome.ok:
            return (yield from self._finish(batch, outcome, result.tx_id))
        if outcome.code == "expired":
            return (yield from self._look_up(batch, operation))
        return (yield from self._refused(batch, outcome))

    def _operation(self, batch: Batch, now: float) -> Operation:
        act, arg = "settle", settle_argument(batch)
        if batch.voids:
            act, arg = "void", {"holds": [list(release) for release in batch.voids]}
        iat = int(now)
        return Operation(
            self._ledger.domain, self._signer.name, self._ids(), iat, iat + OPERATION_TTL_S, act, arg
        )

    def _finish(self, batch: Batch, outcome: Outcome, tx_id: str) -> Steps[Round]:
        """The ledger has judged every contract of the batch."""
        lost: dict[Key, str] = {}
        settled: dict[Key, str] = {}
        if batch.items:
            lost, settled = yield from self._judge(refused_items(batch.items, outcome.detail["refused"]))
        if not (
            yield from wait(self._journal.finish_batch(batch.id, lost, tx_id, self._clock(), settled=settled))
        ):
            self._unwatch("TakenOver")
            return Round(0)  # adopted meanwhile by a process that took this one for dead
        watch, self._watched = self._watched[1], (-1, None)
        if watch is not None:
            age_s = self._clock() - batch.since if batch.since else None
            watch.end(tx_id, {jti: code for (_, jti), code in lost.items()}, age_s)
        say_judged(self._signer.name, batch.items, lost, tx_id, watch)
        paid = [item for item in batch.items if (item.payer, item.jti) not in lost]
        full = len(batch.items) + len(batch.voids) >= self._limit
        self._limit = min(self._limit * 2, self._batch_max)
        return Round(
            0 if full else self._interval_s,
            settled=len(paid),
            tokens=sum(item.charged for item in paid),
            lost=len(lost),
            voided=len(batch.voids),
        )

    def _judge(self, refused: Iterable[tuple[Item, str]]) -> Steps[tuple[dict[Key, str], dict[Key, str]]]:
        """Of contracts that were refused, those that are lost, and those that were settled before."""
        lost: dict[Key, str] = {}
        settled: dict[Key, str] = {}
        for item, code in refused:
            records = yield from wait(self._ledger.contract(item.jti))
            mine = [record for record in records if self._is_mine(record, item) and record.code == "ok"]
            if mine:
                settled[item.payer, item.jti] = mine[0].tx_id
            else:
                lost[item.payer, item.jti] = code
        return lost, settled

    def _look_up(self, batch: Batch, operation: Operation) -> Steps[Round]:
        """The operation can no longer take effect; whether it has, the ledger's history says.

        If any contract of the batch is found in it, so is the operation, with what became of the others.
        """
        settled: dict[Key, str] = {}
        for item in batch.items:
            for record in (yield from wait(self._ledger.contract(item.jti))):
                if not self._is_mine(record, item):
                    continue
                transaction = yield from wait(self._ledger.transaction(record.tx_id))
                for done in transaction.operations if transaction is not None else ():
                    if (done.issuer, done.id) == (operation.iss, operation.jti):
                        return (yield from self._finish(batch, done.outcome, record.tx_id))
                if record.code == "ok":
                    settled[item.payer, item.jti] = record.tx_id
        yield from wait(self._journal.release_batch(batch.id, settled=settled))
        self._unwatch("expired")
        return Round(0, settled=len(settled))

    def _is_mine(self, record: Any, item: Item) -> bool:
        return bool((record.payer, record.payee) == (item.payer, self._signer.name))

    def _refused(self, batch: Batch, outcome: Outcome) -> Steps[Round]:
        """The rules refused the operation as a whole, which no honest contract causes.

        Something is wrong with this wallet, or with a single item: next time, a new operation tries half.
        What can no longer be settled in time by then is lost.
        """
        if outcome.code != "not_yet_valid":  # that one may still take effect: it stays, and is sent again
            now = self._clock()
            lost: dict[Key, str] = {}
            for item in batch.items:
                if outcome.code in OF_DISCLOSURES and not is_disclosed(item):
                    lost[item.payer, item.jti] = outcome.code  # for good: the others need not wait for it
                    continue
                claim = yield from wait(self._journal.find(item.payer, item.jti))
                if claim is not None and now > claim.settle_by:
                    lost[item.payer, item.jti] = outcome.code
            yield from wait(self._journal.release_batch(batch.id, refused=lost))
            self._unwatch(outcome.code)
            self._limit = max(1, (len(batch.items) + len(batch.voids)) // 2)
        raise OperationRefused(
            f"the ledger refused a settlement: {outcome.code}", code=outcome.code, detail=outcome.detail
        )

    def _back_off(self, error: TokenmeshError) -> Round:
        """Wait longer after each failure, and not in step with others."""
        self._failures += 1
        # 2 ** 30 tenths of a second are years: no need to count on.
        longest = min(BACKOFF_S_MIN * 2 ** min(self._failures, 30), self._backoff_s_max)
        delay = longest * (0.5 + self._random.random() / 2)
        self._retry_at = self._clock() + delay
        if self._failures == 1 or type(error) is not type(self.failure):
            say_waiting(self._signer.name, error, self._watched[1])
        self.failure = error
        if self._watched[1] is not None:
            self._watched[1].again(type(error).__name__)
        return Round(delay, failure=error)

    # What it shows

    def _measured(self, batch: Batch) -> Steps[Round]:
        since = watch_now()
        try:
            done = yield from self._carry(batch)
        except TokenmeshError as error:
            measure_round(self._ledger.domain, since, error)
            raise
        measure_round(self._ledger.domain, since)
        return done

    def _watch(self, batch: Batch) -> None:
        """Have a span for a batch: one, however many rounds it takes."""
        if self._watched[0] == batch.id:
            return
        self._unwatch("TakenOver")
        contracts = [Settled._make(item) for item in batch.items]
        contracts += [Settled(release.payer, release.jti, None, 0) for release in batch.voids]
        act = "void" if batch.voids else "settle"
        self._watched = batch.id, SettleWatch.begin(self._signer.name, self._ledger.domain, act, contracts)

    def _unwatch(self, why: str) -> None:
        """The batch that there was goes to the ledger in another operation, or by another process."""
        watch, self._watched = self._watched[1], (-1, None)
        if watch is not None:
            watch.give_up(why)

    # The thread

    def start(self) -> None:
        """Settle on a thread of its own until :meth:`stop`. After a fork the child has to start its own."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._gauges.open()
        self._stopping.clear()
        self._stop_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="tokenmesh-settlement", daemon=True)
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Settle now, until nothing is left to settle or ``timeout_s`` has passed; whether nothing is."""
        deadline = time.monotonic() + timeout_s
        self._retry_at = float("-inf")
        while (left := deadline - time.monotonic()) > 0:
            done = self._step(deadline)
            if done.idle and self._is_settled():
                return True
            if done.idle or done.failure:  # wait for the other process, or for the ledger
                time.sleep(min(left, done.wait_s if done.failure else LOOK_S))
        return self._is_settled()

    def stop(self, timeout_s: float = 0) -> bool:
        """Stop the thread, and settle what is left for at most ``timeout_s`` seconds; whether nothing is."""
        self._stop_at = time.monotonic() + timeout_s
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s + 2 * LOOK_S)
        self._gauges.close()
        return self.flush(max(self._stop_at - time.monotonic(), 0))

    def _is_settled(self) -> bool:
        return run(wait(self._journal.stats())).unsettled == 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._idle(self.step().wait_s)
            except Exception as error:
                # A fault of ours must not end settlement for good: what is owed would never be paid.
                say_fault(self._signer.name)
                self._stopping.wait(self._back_off(TokenmeshError(repr(error))).wait_s)

    def _idle(self, seconds: float) -> None:
        """Let ``seconds`` pass, or the stop come; the lease is kept alive meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.wait(min(left, PRUNE_EVERY_S)):
            try:
                self._drive(self._upkeep(), float("inf"))
            except JournalError as error:
                self._back_off(error)

    def _step(self, deadline: float) -> Round:
        """One round; of two that are asked for at once, one waits for the other."""
        if not self._rounds.acquire(timeout=min(max(deadline - time.monotonic(), 0), ANSWER_S_MAX)):
            return Round(LOOK_S, failure=LedgerOutcomeUnknown("a settlement is under way and has no answer"))
        try:
            return self._drive(self.round(), deadline)
        finally:
            self._rounds.release()

    def _drive(self, steps: Steps[T], deadline: float) -> T:
        """Run steps on this thread."""
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                future = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value, error = self._answer(future, min(deadline, time.monotonic() + ANSWER_S_MAX))

    def _answer(self, future: Future[Any], deadline: float) -> tuple[Any, Exception | None]:
        """What a future gives or raises. The lease is kept alive however long that takes."""
        try:
            while not future.done():
                futures.wait([future], timeout=LOOK_S)
                if time.monotonic() >= min(deadline, self._stop_at):
                    break
                now = self._clock()
                if now >= self._beat_at:
                    self._beat_at = now + self._beat_s
                    run(wait(self._journal.heartbeat(now)))
            else:
                return future.result(), None
        except Exception as error:
            return None, error
        return None, LedgerOutcomeUnknown("the ledger did not answer in time; the same will be sent again")

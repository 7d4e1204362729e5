"""The services of a simulation: payers that have jobs to do, and payees' workers that do them.

What is here stands where a framework, a client library and the threads of a service stand in production: it
brings requests to the product's code and carries out what that waits for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Any

from simulation.far import far
from simulation.ledger import SimulatedLedger
from simulation.plan import OPERATIONS, Job
from simulation.wire import Incoming, Reply
from simulation.world import Killed, Process, Resume, Task
from tokenmesh.config import Settings
from tokenmesh.consumer import CallOptions, Consumer, OutRequest
from tokenmesh.consumer.messages import Ask, Send
from tokenmesh.errors import LedgerOutcomeUnknown, TokenmeshError
from tokenmesh.frameworks.base import OFFERS_PATH, RECEIPTS_PATH
from tokenmesh.journal import StoredResponse
from tokenmesh.journal.base import Journal
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.provider import Answer, Answered, Exchange, Offer, Provider
from tokenmesh.provider.problems import RECEIPT_HEADER
from tokenmesh.provider.terms import Request, Terms
from tokenmesh.settlement import Settlement
from tokenmesh.settlement.settlement import ANSWER_S_MAX, BEATS_PER_LEASE
from tokenmesh.steps import Sleep, Steps, Within, wait
from tokenmesh.treasury import Treasury
from tokenmesh_chaincode import documents

if TYPE_CHECKING:
    from simulation.simulation import Simulation

LEASE_S = 3.0
RESPONSE_BYTES_MAX = 500
SETTINGS: dict[str, Any] = {
    "contract_ttl_s": 15,
    "hold_ttl_s": 40,
    "allowance_ttl_s": 60,
    "allowance_calls": 3,
    "sweep_interval_s": 10,
    "offers_cache_s": 10,
    "retry_attempts_max": 6,
    "retry_s_max": 12,
    "retry_wait_s_max": 2,
    "wallet_cache_s": 2,
    "policy_cache_s": 2,
    "ledger_wait_s": 2,
    "lease_s": LEASE_S,
    "retention_s": 3_600,
    "response_bytes_max": RESPONSE_BYTES_MAX,
    "settle_interval_s": 2,
    "settle_backoff_s_max": 3,
}
TERMS = {
    name: Terms(tokens=None, up_to=one.tokens, via=one.via)
    if one.open_price
    else Terms(tokens=one.tokens, via=one.via)
    for name, one in OPERATIONS.items()
}
AGAIN_S = 2.0
"""After so long a payer's code tries a job again whose end it does not know."""


class Service(Process):
    """A process with the ledger open."""

    ledger: SimulatedLedger

    def __init__(self, simulation: Simulation, name: str, wallet: str) -> None:
        super().__init__(simulation.world, name)
        self.simulation = simulation
        self.service = wallet
        self.wallet = simulation.home[wallet]
        self.chance = Random(f"{name} {simulation.plan.seed}")
        self.settings = Settings(home=simulation.folder, service=wallet, **SETTINGS)
        self._ids = 0

    def new_id(self) -> str:
        """An id that nobody else has, the same each time."""
        self._ids += 1
        return f"{self.name}-{self._ids}"

    def start(self) -> None:
        """Open what there is to open; again later, if it cannot be opened now."""
        super().start()
        simulation = self.simulation
        try:
            self.ledger = SimulatedLedger(
                simulation.ledger_path, self.wallet, self, simulation.disk, simulation.weather
            )
            self.open()
        except Killed:
            self.die()
        except TokenmeshError as error:
            self.say(f"cannot start: {type(error).__name__}")
            self.die()

    def open(self) -> None:
        """Open the rest."""

    def died(self) -> None:
        self.let_go()
        self.simulation.ended(self)

    def let_go(self) -> None:
        """Close its files and drop its locks, as the operating system does."""
        self.simulation.disk.let_go(self)
        if hasattr(self, "ledger"):
            self.ledger._turnstile.close()


class Payer(Service):
    """A service that calls: its code wants jobs done, and remembers durably which are."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        super().__init__(simulation, name, name.partition("-")[0])
        self.jobs = [job for job in simulation.plan.jobs if job.payer == name]
        self.begun: dict[str, int] = {}
        self.finished: set[str] = set()

    def open(self) -> None:
        self.treasury = Treasury(
            self.wallet,
            self.ledger,
            self.settings,
            clock=self.clock,
            ids=self.new_id,  # type: ignore[arg-type]
        )
        self.consumer = Consumer(
            self.wallet,  # type: ignore[arg-type]
            self.ledger,
            self.treasury,
            self.settings,
            clock=self.clock,
            monotonic=self.monotonic,
            chance=self.chance,
            ids=self.new_id,
        )
        for job in self.jobs:
            if job.id not in self.finished and (job.keyed or job.id not in self.begun):
                self.after(max(0.0, job.at - self.world.elapsed), lambda job=job: self.call(job))

    def call(self, job: Job) -> None:
        """Have a job done."""
        attempt = self.begun[job.id] = self.begun.get(job.id, 0) + 1
        self.say(f"calls for {job.id}" + (f", attempt {attempt}" if attempt > 1 else ""))
        url = f"http://{job.payee}"
        key = job.id if job.keyed else None
        request = OutRequest(job.operation.method, url + job.target, job.target, job.body, key)
        call = self.simulation.auditor.call(self, job)
        options = CallOptions(url, max_tokens=job.max_tokens)
        steps = self.consumer.call(job.payee, request, options)
        self.task(steps, lambda response, error: self._called(job, call, response, error), (job, call))

    def _called(self, job: Job, call: Any, response: Any, error: BaseException | None) -> None:
        sure = self.simulation.auditor.called(call, response, error)
        if job.keyed and not sure:
            self.after(AGAIN_S, lambda: self.call(job))
        else:
            self.finished.add(job.id)

    def carry_out(self, effect: Any, task: Task, resume: Resume) -> None:
        job, call = task.context
        number = self.simulation.next_request()
        if isinstance(effect, Send):
            incoming = Incoming(number, job.operation.method, job.target, job.body, effect.contract)
            self.simulation.auditor.sent(call, incoming)
        elif isinstance(effect, Ask):
            target = effect.url.removeprefix(f"http://{job.payee}")
            incoming = Incoming(number, "GET", target, b"", None)
        else:
            raise TypeError(effect)
        self.simulation.wire.request(self, job.payee, incoming, resume)

    @property
    def idle(self) -> bool:
        """Whether no job is left to be done."""
        return all(job.id in self.finished or (job.id in self.begun and not job.keyed) for job in self.jobs)


class Worker(Service):
    """One process of a payee; all its workers share a journal."""

    journal: Journal

    def __init__(self, simulation: Simulation, name: str) -> None:
        super().__init__(simulation, name, name.partition("-")[0])
        self._serving: dict[int, Reply] = {}
        self._requests = 0
        self.listening = False
        self._own: SqliteJournal | None = None

    def open(self) -> None:
        plan, clock = self.simulation.plan, self.clock
        journal = self._own = SqliteJournal(
            self.simulation.journal_path(self.service),
            owner=self.name,
            on_crash="rerun" if plan.rerun else "refuse",
            lease_s=LEASE_S,
            retention_s=self.settings.retention_s,
            response_bytes_max=RESPONSE_BYTES_MAX,
            synchronous="FULL" if plan.synced else "NORMAL",
            clock=clock,
            random=self.chance,
            opener=self.simulation.disk.opener(self, "journal"),
        )
        self.journal = far(journal, self, self.chance) if plan.far_journal else journal
        self.provider = Provider(self.wallet, self.ledger, self.journal, settings=self.settings, clock=clock)
        self.treasury = Treasury(
            self.wallet,
            self.ledger,
            self.settings,
            clock=clock,
            ids=self.new_id,  # type: ignore[arg-type]
        )
        self.settlement = Settlement(
            self.journal,
            self.ledger,
            self.wallet,
            settings=self.settings,
            clock=clock,
            ids=self.new_id,
            random=self.chance,
            upkeep=self.treasury.look_after,
        )
        self.listening = True
        self.task(self._settle())
        self.task(self._show_life())

    def died(self) -> None:
        super().died()
        self.listening = False
        if self._own is not None:
            self._own._owner.drop_lock()  # as the operating system does
        serving, self._serving = self._serving, {}
        for reply in serving.values():
            if self.chance.random() < 0.5:
                reply(None)

    @property
    def idle(self) -> bool:
        """Whether it serves nobody."""
        return not self._serving

    # Settlement's thread

    def _settle(self) -> Iterator[Any]:
        while True:
            done = yield from _in_time(self.settlement.round())
            if done.settled or done.lost:
                self.say(f"settles {done.settled} contracts for {done.tokens} tokens, {done.lost} are lost")
            yield Sleep(done.wait_s)

    def _show_life(self) -> Iterator[Any]:
        while True:
            yield Sleep(LEASE_S / BEATS_PER_LEASE)
            with contextlib.suppress(TokenmeshError):
                yield from wait(self.journal.heartbeat(self.clock()))

    # The framework

    def receive(self, incoming: Incoming, reply: Reply) -> None:
        """Serve a request."""
        self._requests += 1
        number = self._requests
        self._serving[number] = reply

        def answered(answer: Any, error: BaseException | None) -> None:
            if self._serving.pop(number, None) is None:
                return
            if error is not None:
                raise error
            self.simulation.auditor.replied(self, incoming, answer)
            date = ("Date", formatdate(self.clock(), usegmt=True))
            reply(answer._replace(headers=[*answer.headers, date]))

        self.task(self._serve(incoming), answered)

    def _serve(self, incoming: Incoming) -> Steps[Answer]:
        path, _, query = incoming.target.partition("?")
        if path == OFFERS_PATH:
            return self._offers()
        if path.startswith(RECEIPTS_PATH):
            payer = query.removeprefix("payer=") or None
            return (yield from self.provider.receipt(payer, path.removeprefix(RECEIPTS_PATH)))
        name, _, job = path.removeprefix("/").partition("/")
        request = Request(
            incoming.method,
            incoming.target,
            OPERATIONS[name].name,
            OPERATIONS[name].path,
            [] if incoming.contract is None else [incoming.contract.encode()],
            lambda: incoming.body,
        )
        exchange = Exchange(self.provider, TERMS[name], request, None)
        try:
            return (yield from self._paid(exchange, incoming, self.simulation.job(job)))
        except Answered as answered:
            return answered.answer

    def _paid(self, exchange: Exchange, incoming: Incoming, job: Job) -> Steps[Answer]:
        careful = (exchange.check, exchange.admit) if self.simulation.plan.careful else ()
        for stage in (*careful, exchange.begin):
            steps = stage()
            if steps is not None:
                yield from steps
        auditor = self.simulation.auditor
        run = auditor.runs(self, incoming, job)
        if job.work_s:
            yield Sleep(job.work_s)
        body = run.body
        if job.fails:
            body = b"it failed"
            if job.fails == 500:
                exchange.fail(RuntimeError("the handler failed"))
        elif job.operation.open_price:
            exchange.charge(job.charge)
        auditor.worked(run)
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        stored = StoredResponse(job.fails or 200, headers, body, documents.digest(body))
        receipt = exchange.end_at_once(stored)
        if receipt is None:
            receipt = yield from exchange.end(stored, lambda: None)
        yield Sleep(0)
        if receipt is not None:
            headers = [*headers, (RECEIPT_HEADER, receipt)]
        return Answer(stored.status, headers, body)

    def _offers(self) -> Answer:
        offers = [Offer.of(TERMS[name], one.method, one.path) for name, one in OPERATIONS.items()]
        body = json.dumps(self.provider.offers(offers)).encode()
        return Answer(200, [("Content-Type", "application/json")], body)


def _in_time(steps: Steps[Any]) -> Steps[Any]:
    """Settlement's steps as its thread drives them: no answer is waited for for ever."""
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            effect = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            value = yield Within(effect, ANSWER_S_MAX)
        except TimeoutError:
            error = LedgerOutcomeUnknown("the ledger did not answer in time")
        except Exception as raised:
            error = raised

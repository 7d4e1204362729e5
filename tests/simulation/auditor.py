"""The auditor: sees every request, run, receipt and answer, and says what must not be.

It knows a contract from the moment it is sent, predicts what its call must come to, and compares at every
step what payers were told, what payees wrote down, and what the ledger did. Its one piece of patience: where
an answer was lost or late, a call may end as *unknown*; nowhere else.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.books import Books, Violation
from simulation.journals import End, Journal
from simulation.plan import Job
from simulation.wire import TIMEOUT_S, Incoming
from tokenmesh.errors import NotSpent, OutcomeUnknown, Refused, ResponseNotKept, Unreachable
from tokenmesh.ledger.base import Balance, Result

if TYPE_CHECKING:
    from simulation.services import Payer, Service, Worker
    from simulation.simulation import Simulation

WOKE_S = 0.2
CALM_S = 10.0
"""A call in the middle of so much time without trouble must end as predicted."""
UNRECORDED = ("expired", "not_yet_valid", "id_reused", "bad_argument")
"""What an operation may come to that leaves no trace."""
LONG = b"x" * 600
"""Added to responses that are too long to be kept."""


@dataclass
class Run:
    """A handler at work."""

    worker: Worker
    life: int
    incoming: Incoming
    job: Job
    body: bytes
    key: tuple[str, str, str]
    begun: float
    slept: float
    finished: bool = False


@dataclass
class Known:
    """What the auditor knows of one contract (one id of one payer at one payee)."""

    payer: str
    jti: str
    payee: str
    job: Job
    texts: list[Incoming] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    receipt: End | None = None
    """What the first receipt said that anybody was given."""
    end: End | None = None
    """What the payee's journal says."""
    tainted: bool = False
    """A crooked payer has signed the id for another request too: what its call comes to is its own affair."""
    doubled: bool = False
    """The network has made a copy of a request with it, which arrives whenever it likes."""


@dataclass
class Made:
    """A call of a payer's code, and the contracts that were sent for it."""

    payer: str
    job: Job
    begun: float
    contracts: set[tuple[str, str, str]] = field(default_factory=set)


class Auditor:
    """One simulation's auditor."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self.books = Books(simulation.world, simulation.ledger_path, simulation.home)
        self.contracts: dict[tuple[str, str, str], Known] = {}
        """By payee, payer and id."""
        self.fulfilled_jobs: dict[str, list[tuple[str, str, str]]] = {}
        self._journals: dict[str, Journal] = {}
        self._runs = 0
        self._trouble_at = float("-inf")

    # What the simulation reports

    def troubled(self) -> None:
        """Something goes wrong now."""
        self._trouble_at = self._world.now

    def call(self, payer: Payer, job: Job) -> Made:
        """A call begins."""
        return Made(payer.name, job, self._world.now)

    def sent(self, call: Made, incoming: Incoming) -> None:
        """A request goes out for a call."""
        if incoming.contract is None:
            return
        body = self.books.economy.read(incoming.contract).body
        key = (body["aud"], body["iss"], body["jti"])
        known = self.contracts.setdefault(key, Known(body["iss"], body["jti"], body["aud"], call.job))
        call.contracts.add(key)
        if not known.texts or known.texts[-1].contract != incoming.contract:
            known.texts.append(incoming)
        most = call.job.max_tokens
        if most is not None and body["tok"] > most:
            raise Violation(f"contract {body['jti']} offers {body['tok']} tokens; the caller allows {most}")

    def imitated(self, incoming: Incoming) -> None:
        """A crook makes a request of one that it saw."""
        body = self.books.economy.read(incoming.contract or "").body
        known = self.contracts.get((body["aud"], body["iss"], body["jti"]))
        if known is not None and known.texts[-1].contract != incoming.contract:
            known.tainted = True

    def doubled(self, incoming: Incoming) -> None:
        """The network makes a copy of a request, and its sender does not know."""
        if incoming.contract is not None:
            body = self.books.economy.read(incoming.contract).body
            self.contracts[body["aud"], body["iss"], body["jti"]].doubled = True

    def runs(self, worker: Worker, incoming: Incoming, job: Job) -> Run:
        """A handler begins."""
        self._runs += 1
        text = incoming.contract
        if text is None:
            raise Violation(f"the handler of {job.id} runs for a request without a contract")
        signed = self.books.economy.read(text)
        contract = signed.body
        key = (worker.service, contract["iss"], contract["jti"])
        name = f"contract {contract['jti']}"
        if not signed.holds or signed.signer != contract["iss"]:
            raise Violation(f"the handler runs for {name}, which its payer has not signed")
        if contract["aud"] != worker.service:
            raise Violation(f"{worker.service} works for {name}, which is for {contract['aud']}")
        if (contract["htm"], contract["htu"]) != (incoming.method, incoming.target):
            raise Violation(f"{name} is for {contract['htu']}, and pays for {incoming.target}")
        if contract["dig"] != _digest(incoming.body):
            raise Violation(f"{name} is for another body than it pays for")
        if (why := self.books.economy.why_forbidden(contract)) is not None:
            raise Violation(f"the handler runs for {name}, which is {why} for longer than news may take")
        if contract["tok"] < job.operation.tokens:
            raise Violation(f"{name} offers {contract['tok']} tokens for {job.operation.tokens}")
        known = self.contracts.setdefault(key, Known(contract["iss"], contract["jti"], worker.service, job))
        self._check_runs(worker, known, contract)
        claim = self._journal(worker.service).claim(contract["iss"], contract["jti"])
        if claim is None or claim.ended is not None:
            raise Violation(f"the handler runs for {name}, and no open claim of it is in the journal")
        body = f"{job.id}, run {self._runs}".encode() + (LONG if job.long else b"")
        run = Run(worker, worker.life, incoming, job, body, key, self._world.now, worker.asleep_until)
        known.runs.append(run)
        worker.say(f"works for {name} ({job.id})")
        return run

    def _check_runs(self, worker: Worker, known: Known, contract: dict[str, Any]) -> None:
        name = f"contract {contract['jti']}"
        now = worker.clock()
        woke = self._world.now - worker.asleep_until < WOKE_S  # it may have claimed it before it slept
        if not known.runs and now >= contract["exp"] and not woke:
            raise Violation(f"{name} had expired {now - contract['exp']:.1f} s before it was worked on")
        if not known.runs:
            return
        if not self._simulation.plan.rerun:
            raise Violation(f"the handler runs a second time for {name}")
        last = known.runs[-1]
        if known.end is not None:
            raise Violation(f"the handler runs for {name}, which has ended as {known.end.out}")
        if not _given_up(last):
            raise Violation(f"the handler runs again for {name} while {last.worker.name} works for it")

    def worked(self, run: Run) -> None:
        """A handler has done what it was asked."""
        run.finished = True

    def replied(self, worker: Worker, incoming: Incoming, answer: Any) -> None:
        """A response leaves a payee."""
        headers = {name.lower(): value for name, value in answer.headers}
        worker.say(f"answers request {incoming.number}: {answer.status}")
        text = headers.get("token-receipt")
        if incoming.contract is None:
            return
        contract = self.books.economy.read(incoming.contract).body
        key = (worker.service, contract["iss"], contract["jti"])
        if text is not None:
            self._check_receipt(worker, key, incoming, text, answer)
        elif answer.status < 400:
            raise Violation(f"contract {contract['jti']} was answered {answer.status} without a receipt")
        elif answer.status == 402:
            claim = self._journal(worker.service).claim(contract["iss"], contract["jti"])
            if claim is not None and (claim.ended is None or claim.ended > 0):
                raise Violation(f"402 was said for contract {contract['jti']}, which was taken")

    def heard(self, process: Service, text: str, result: Result) -> None:
        """The ledger has answered: what its books say, if the operation is in them, and else a refusal."""
        self.books.look()
        signed = self.books.economy.read(text)
        body, outcome = signed.body, result.outcome
        name = f"{body['act']} {body['jti']} of {body['iss']}"
        known = self.books.economy.outcomes.get((body["iss"], body["jti"]))
        if known is not None and known[0] == signed.digest:
            if outcome.to_json() != known[1]:
                raise Violation(f"{name} came to {known[1]}, and {process.name} was told {outcome.to_json()}")
        elif outcome.ok or outcome.code not in UNRECORDED:
            raise Violation(f"{process.name} was told that {name} came to {outcome}; it is not in the ledger")

    def asked_again(self, answers: dict[tuple[str, str, str], Any]) -> None:
        """What each contract that had ended was answered when it was sent once more; None: nothing."""
        for key, answer in answers.items():
            known = self.contracts[key]
            name = f"contract {known.jti}"
            if answer is None:
                raise Violation(f"{name}, sent again, gets no answer")
            fulfilled = known.end is not None and known.end.out == "fulfilled"
            status = answer.status
            if fulfilled and status != (410 if known.job.long else 200):
                raise Violation(f"{name} was fulfilled, and is answered {status} when it is sent again")
            if not fulfilled and status < 400:
                raise Violation(f"{name} is void, and is answered {status} when it is sent again")

    def _check_receipt(
        self, worker: Worker, key: tuple[str, str, str], incoming: Incoming, text: str, answer: Any
    ) -> None:
        signed = self.books.economy.read(text)
        receipt, name = signed.body, f"contract {key[2]}"
        if not signed.holds or signed.signer != worker.service or receipt["jti"] != key[2]:
            raise Violation(f"the receipt for {name} does not hold")
        known = self.contracts[key]
        end = End(receipt["out"], receipt["tok"])
        written = self._journal(worker.service).end(*key[1:])
        if written != end:
            raise Violation(f"{name} was said to be {end}, and the journal has {written}")
        if known.receipt is None:
            known.receipt = end
        elif known.receipt != end:
            raise Violation(f"{name} was said to be {known.receipt} first, and then {end}")
        contract = self.books.economy.read(incoming.contract or "").body
        if end.charged > contract["tok"]:
            raise Violation(f"{name} is charged {end.charged} tokens, and offers {contract['tok']}")
        if answer.status == 200:
            if receipt["dig"] != _digest(answer.body):
                raise Violation(f"the response to {name} is not the one in its receipt")
            given = {run.body for run in known.runs if run.incoming[1:4] == incoming[1:4]}
            if answer.body not in given:
                raise Violation(f"the response to {name} is none that its handler gave for this request")

    def called(self, call: Made, response: Any, error: BaseException | None) -> bool:
        """A call has ended, with a response or an error; whether its payer knows how."""
        job, name = call.job, f"the call for {call.job.id}"
        ends = [self.contracts[key].end or _NOTHING for key in sorted(call.contracts)]
        fulfilled = [end for end in ends if end.out == "fulfilled"]
        what = f"{type(error).__name__}" if error is not None else f"{response.status}"
        self._world.say(call.payer, f"hears of {job.id}: {what}")
        if any(self.contracts[key].tainted for key in call.contracts):
            return True
        if len(fulfilled) > 1:
            raise Violation(f"{name} was fulfilled {len(fulfilled)} times")
        if isinstance(error, OutcomeUnknown):
            if self._calm_since(call.begun) and job.work_s < TIMEOUT_S - 1:
                raise Violation(f"{name} ended as unknown, and nothing had gone wrong: {error}")
            return False
        if error is not None:
            self._failed(call, name, error, fulfilled)
        elif response.status == 200:
            if [end.charged for end in fulfilled] != [response.info.charged]:
                raise Violation(f"{name} was said to cost {response.info.charged}; its ends are {ends}")
        elif fulfilled:
            raise Violation(f"{name} was answered {response.status}, and was fulfilled")
        self._check_prediction(call, response, error)
        return True

    def _failed(self, call: Made, name: str, error: BaseException, fulfilled: list[End]) -> None:
        """A call has ended with an error that says what it cost."""
        if isinstance(error, NotSpent):
            # With a key, what an earlier call was charged was charged for this one too.
            before = call.job.keyed and isinstance(error, Unreachable) and call.job.id in self.fulfilled_jobs
            if before or any(end.charged for end in fulfilled):
                raise Violation(f"{name} cost nothing, it was said, and was charged: {error}") from error
            self._never(call, error)
        elif isinstance(error, ResponseNotKept):
            if not fulfilled or not call.job.long:
                raise Violation(f"the response of {name} was not kept: {error}") from error
        else:
            raise Violation(f"{name} ended with {error!r}") from error

    def _never(self, call: Made, error: NotSpent) -> None:
        """Said to cost nothing: from now on none of its contracts may be fulfilled.

        But for this: governance forbade it, and takes that back while a copy is on its way that the network
        has made. No payee remembers what it refused, as that would cost it more than the refusal.
        """
        passes = isinstance(error, Refused) and error.status == 403
        for key in call.contracts:
            if passes and self.contracts[key].doubled:
                continue
            self.contracts[key].receipt = self.contracts[key].receipt or End("void", 0)

    def _check_prediction(self, call: Made, response: Any, error: BaseException | None) -> None:
        job = call.job
        if not self._calm_since(call.begun) or job.payer == "desk" or job.work_s > 2 or job.keyed:
            return
        most = job.max_tokens
        if most is not None and most < job.operation.tokens:
            if not isinstance(error, NotSpent):
                raise Violation(f"{job.id} asks more than its caller allows, and was not refused")
        elif job.fails:
            if job.fails != 503 and (error is not None or response.status != job.fails):
                raise Violation(f"{job.id} fails with {job.fails}, and ended with {error or response.status}")
        elif error is not None or response.status != 200 or response.info.charged != job.charge:
            raise Violation(f"{job.id} must cost {job.charge}, and ended with {error or response}") from error

    def _calm_since(self, moment: float) -> bool:
        economy = self.books.economy
        decreed = bool(economy.frozen or economy.policy["rules"])
        return not decreed and self._trouble_at < moment - CALM_S

    # What it looks at by itself

    def look(self, changed: set[str]) -> None:
        """After each step: whatever was written must be as it should."""
        if "ledger" in changed:
            self.books.look()
        if "journal" in changed:
            for payee in self._simulation.payees:
                for payer, jti, end in self._journal(payee).new_ends():
                    self._ended((payee, payer, jti), end)

    def _ended(self, key: tuple[str, str, str], end: End) -> None:
        """A contract has ended, says the journal of its payee."""
        name = f"contract {key[2]}"
        known = self.contracts.get(key)
        if known is None:
            raise Violation(f"{name}, which nobody sent, has ended")
        if known.end is not None:
            raise Violation(f"{name} has ended twice: as {known.end}, and as {end}")
        known.end = end
        self._world.say(key[0], f"{name} ({known.job.id}) has ended: {end.out}, {end.charged} tokens")
        if known.receipt is not None and known.receipt != end:
            raise Violation(f"{name} was said to be {known.receipt}, and has ended as {end}")
        job = known.runs[-1].job if known.runs else known.job
        if end.out == "fulfilled":
            if not any(run.finished for run in known.runs):
                raise Violation(f"{name} is fulfilled, and its work was not done")
            if job.fails or end.charged != job.charge:
                raise Violation(
                    f"{name} is charged {end.charged}; its handler says {job.fails or job.charge}"
                )
            self.fulfilled_jobs.setdefault(job.id, []).append(key)
            if job.keyed and len(self.fulfilled_jobs[job.id]) > 1:
                raise Violation(f"{job.id}, which has an idempotency key, was fulfilled twice")
        elif known.runs and not any(run.finished for run in known.runs) and not self._was_given_up(known):
            raise Violation(f"{name} is void, and its handler still works")

    def _was_given_up(self, known: Known) -> bool:
        return any(_given_up(run) for run in known.runs) or known.job.work_s > CALM_S

    def balance(self, wallet: str, said: Balance) -> None:
        """What the ledger says that a wallet has."""
        economy = self.books.economy
        held = sum(
            hold.tokens for hold in economy.holds.values() if hold.payer == wallet and hold.state == "open"
        )
        parts = (said.spendable, said.held, said.held + said.allowed, sum(said))
        mine = (economy.balances[wallet], held, economy.set_aside.get(wallet, 0), economy.total(wallet))
        if parts != mine:
            raise Violation(f"the ledger says that {wallet} has {said}, and it has {mine}")

    # At the end

    def conclude(self) -> None:
        """Everything has had its time: what was fulfilled is charged, nothing else is, all else is back."""
        settled = self.books.economy.settled
        for key, known in self.contracts.items():
            owed = known.end.charged if known.end is not None and known.end.out == "fulfilled" else 0
            if settled.get(key, 0) != owed:
                raise Violation(f"contract {key[2]} owes {owed} tokens, and was charged {settled.get(key)}")
        for key in settled:
            if key not in self.contracts:
                raise Violation(f"contract {key[2]}, which nobody sent, was charged")
        for wallet, tokens in self.books.economy.set_aside.items():
            if tokens:
                raise Violation(f"{tokens} tokens of {wallet} never came back")
        for payee in self._simulation.payees:
            if lost := self._journal(payee).lost():
                raise Violation(f"{payee} has worked for nothing: {lost}")

    def kept(self) -> list[Known]:
        """The contracts whose responses must still be had."""
        return [known for known in self.contracts.values() if known.end is not None and known.texts]

    def close(self) -> None:
        """Let go of all files."""
        self.books.close()
        for journal in self._journals.values():
            journal.close()

    def power_is_back(self) -> None:
        """Whatever was said to anybody must still be true."""
        self.books.look()
        for (payee, payer, jti), known in self.contracts.items():
            written = self._journal(payee).end(payer, jti)
            if known.end is not None and written != known.end:
                raise Violation(f"contract {jti} had ended as {known.end}; after a power cut as {written}")

    def _journal(self, payee: str) -> Journal:
        if payee not in self._journals:
            self._journals[payee] = Journal(self._simulation.journal_path(payee))
        return self._journals[payee]


_NOTHING = End("none", 0)


def _given_up(run: Run) -> bool:
    """Whether the worker of a run has died since, or slept too long to be waited for.

    One that had just woken when the run began may have slept between its claim and its work: the claim was
    given up meanwhile, and nobody can have told it.
    """
    worker = run.worker
    slept_since_claim = worker.asleep_until > run.slept or run.begun - run.slept < WOKE_S
    return worker.life != run.life or slept_since_claim


def _digest(body: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"

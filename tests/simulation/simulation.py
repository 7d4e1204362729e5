"""One simulation: the services of a plan, its faults, and the auditor, in a world of their own."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import traceback
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from simulation import crooks
from simulation.auditor import Auditor, Violation
from simulation.disk import CommitFault, Disk
from simulation.governor import Governor
from simulation.home import DIRECTORY, GOVERNANCE, PAYEES, home
from simulation.ledger import Weather
from simulation.plan import BUSY_S, CALLERS, SERVICES, Fault, Job, Plan
from simulation.services import Payer, Service, Worker
from simulation.wire import Wire
from simulation.world import START, Killed, Line, World
from tokenmesh.ledger.verify import verify_ledger

CALM_S = BUSY_S + 8
"""From here on nothing goes wrong any more."""
SETTLED_S = 8.0
"""So long after the last job's end all of it is settled."""
DONE_S = 120.0
"""All jobs have ended by then."""
OVER_S = 130.0
"""So long after that, all that was set aside has expired."""


class Result(NamedTuple):
    """What came of a simulation: None, or what should not be; every line of its log; its steps."""

    violation: str | None
    log: list[Line]
    steps: int

    @property
    def digest(self) -> str:
        """What stands for everything that happened."""
        return hashlib.sha256("\n".join(map(str, self.log)).encode()).hexdigest()


class Simulation:
    """One run of a plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.home = home()
        self.world = World()
        self.disk = Disk()
        self.disk.may_lose_power = any(fault.kind == "power" for fault in plan.faults)
        self.weather = Weather(Random(f"weather {plan.seed}"))
        self.payees = PAYEES
        self.ledger_path = folder / "ledger.db"
        self.home.copy_ledger(self.ledger_path)
        for payee in PAYEES:
            self.home.copy_journal(self.journal_path(payee))
        self.wire = Wire(self.world, Random(f"wire {plan.seed}"), list(plan.faults))
        self.auditor = Auditor(self)
        self.wire.troubled = self.auditor.troubled
        self.wire.imitated = self.auditor.imitated
        self.wire.doubled = self.auditor.doubled
        self.weather.heard = self.auditor.heard
        self.weather.troubled = self.disk.troubled = self.auditor.troubled
        self._jobs = {job.id: job for job in plan.jobs}
        self._requests = 0
        self._down_s: dict[str, float] = {}
        self._calm = self._stopped = False
        self.processes: dict[str, Service] = {name: self._process(name) for name in plan.processes}
        if plan.decrees:
            self.processes[GOVERNANCE] = Governor(self)
        self.workers = [one for one in self.processes.values() if isinstance(one, Worker)]
        for payee in PAYEES:
            self.wire.listeners[payee] = [one for one in self.workers if one.service == payee]
        for service, skew in zip(SERVICES, plan.skews, strict=False):
            if skew:
                self._set_clock(service, skew)
        self.world.after_each = self._audit

    def journal_path(self, payee: str) -> Path:
        """Where a payee's journal lies."""
        return self.folder / f"journal-{payee}.db"

    def job(self, job_id: str) -> Job:
        """The job that a request is about."""
        return self._jobs[job_id]

    def next_request(self) -> int:
        """A number for a request."""
        self._requests += 1
        return self._requests

    def run(self) -> None:
        """Let it all happen; raises :class:`Violation`."""
        world = self.world
        self.auditor.books.look()
        self._prepare()
        for process in self.processes.values():
            process.start()
        world.run(START + CALM_S)
        self._make_calm()
        world.run(START + DONE_S, done=self._is_done)
        world.run(world.now + SETTLED_S)
        self._compare_balances()
        self._ask_again()
        self._stop_workers()
        world.run(world.now + OVER_S)
        self._ask_late()
        for payer in CALLERS:
            process = self.processes[payer]
            assert isinstance(process, Payer), payer
            if not process.idle:
                raise Violation(f"the jobs of {payer} never end")
            process.task(process.treasury.upkeep(), _nothing)
        world.run(world.now + 5)
        self.auditor.conclude()
        self._compare_balances()
        report = verify_ledger(self.ledger_path)
        if not report.ok:
            raise Violation(f"the ledger's own verification finds: {report.findings}")

    def close(self) -> None:
        """Let go of everything; whatever code wakes up in the process finds that it is dead."""
        self.auditor.close()
        for process in self.processes.values():
            process.alive = False
            process.life += 1
        for process in self.processes.values():
            process.let_go()
            for task in process._graveyard:
                with contextlib.suppress(BaseException):
                    task.steps.close()
            if isinstance(process, Worker) and process._own is not None:
                process._own._owner.drop_lock()

    # Faults

    def _prepare(self) -> None:
        kills: dict[str, dict[int, Any]] = {}
        for fault in self.plan.faults:
            at = int(fault.at)
            if fault.kind in ("kill", "sleep"):
                kills.setdefault(fault.who, {})[at] = fault
            elif fault.kind == "kill at commit":
                after, down_s = fault.arg
                self.disk.faults[fault.who, at] = CommitFault("kill", after)
                self._down_s[fault.who.partition("/")[0]] = down_s
            elif fault.kind == "disk":
                self.disk.faults[fault.who, at] = CommitFault(fault.arg)
            elif fault.kind == "ledger disk":
                done = fault.arg == "done"
                self.disk.faults[fault.who, at] = CommitFault("sync" if done else fault.arg, done)
            elif fault.kind == "answer":
                self.weather.answers[fault.who, at] = fault.arg
            elif fault.kind == "crook":
                self.world.at(START + fault.at, lambda fault=fault: self._ask(fault.who))
            elif fault.kind == "clock":
                self.world.at(START + fault.at, lambda fault=fault: self._set_clock(fault.who, fault.arg))
            elif fault.who != "message":
                self.world.at(START + fault.at, lambda fault=fault: self._happen(fault))
        for name, faults in kills.items():
            process = self.processes[name]
            process.at_await = lambda process=process, faults=faults: self._at_await(process, faults)

    def _at_await(self, process: Service, faults: dict[int, Fault]) -> None:
        fault = faults.get(process.awaits)
        if fault is None or self._calm:
            return
        self.auditor.troubled()
        if fault.kind == "kill":
            self._down_s[process.name] = fault.arg
            raise Killed
        process.say(f"falls asleep for {fault.arg:g} s")
        process.asleep_until = max(process.asleep_until, self.world.now + fault.arg)

    def _set_clock(self, service: str, skew: float) -> None:
        self.world.say(service, f"its clock is {skew:+g} s wrong from here on")
        for process in self.processes.values():
            if process.service == service:
                process.skew = skew

    def _ask(self, what: str) -> None:
        self.world.say("crook", what)
        crooks.ask(self, what)

    def _happen(self, fault: Fault) -> None:
        self.auditor.troubled()
        until = self.world.now + fault.arg
        self.world.say(fault.who, f"{fault.kind} for {fault.arg:g} s")
        if fault.kind == "ledger down":
            self.disk.down["ledger"] = until
        elif fault.kind == "ledger slow":
            self.weather.slow_until = until
        else:
            for process in self.processes.values():
                self._down_s[process.name] = fault.arg
                process.die()
            self.auditor.close()
            self.disk.cut_power([self.ledger_path, *map(self.journal_path, PAYEES)])
            self.auditor.power_is_back()

    def ended(self, process: Service) -> None:
        """A process has died: it is started again after a while."""
        self.auditor.troubled()
        self.restart(process, self._down_s.get(process.name, 1.0))

    def restart(self, process: Service, after_s: float) -> None:
        """Start a process again, if nobody does so before."""
        life = process.life

        def start() -> None:
            if not self._stopped and not process.alive and process.life == life:
                process.say("starts again")
                process.start()

        self.world.at(self.world.now + after_s, start)

    def _compare_balances(self) -> None:
        """What the ledger says that wallets have, and hold, is what the auditor's books have."""
        asked = next(process for process in self.processes.values() if process.alive).ledger
        for name in SERVICES:
            self.auditor.balance(name, asked._ask_now(lambda ask, name=name: ask.balance(name)))

    def _ask_again(self) -> None:
        """Every response must still be had, by the contract that paid for it."""
        answers: dict[tuple[str, str, str], Any] = {}
        for known in self.auditor.kept():
            key = (known.payee, known.payer, known.jti)
            answers[key] = None
            last = known.runs[-1].incoming if known.runs else known.texts[-1]
            incoming = last._replace(number=self.next_request())
            if not self.wire.bring(
                known.payee, incoming, lambda answer, key=key: answers.update({key: answer})
            ):
                raise Violation(f"no worker of {known.payee} listens any more")
        self.world.run(self.world.now + 3)
        self.auditor.asked_again(answers)

    def _ask_late(self) -> None:
        """All time is over, and nothing has been given back yet: nobody may take any of it now."""
        for name in (f"{payee}-1" for payee in PAYEES):
            self.processes[name].start()
        for what in ("settle again", "settle dear", "void again"):
            crooks.ask(self, what)
        self.world.run(self.world.now + 1)

    def _stop_workers(self) -> None:
        self._stopped = True
        for process in self.processes.values():
            if isinstance(process, Worker):
                process.die()

    def _make_calm(self) -> None:
        self._calm = True
        self.disk.faults.clear()
        self.weather.answers.clear()
        self.world.say("world", "is calm from here on")

    # What is looked at

    def _is_done(self) -> bool:
        return all(process.idle for process in self.processes.values())

    def _audit(self) -> None:
        changed = self.disk.changed
        if changed:
            self.disk.changed = set()
            self.auditor.look(changed)

    def _process(self, name: str) -> Service:
        return Payer(self, name) if name in CALLERS else Worker(self, name)


def run(plan: Plan) -> Result:
    """Simulate a plan."""
    folder = Path(tempfile.mkdtemp(prefix="tokenmesh-simulation-", dir=DIRECTORY))
    simulation = Simulation(plan, folder)
    violation = None
    ours = logging.getLogger("tokenmesh")
    level = ours.level
    ours.setLevel(logging.CRITICAL)
    try:
        simulation.run()
    except Violation as error:
        violation = str(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        violation = f"{error!r} came out at {place.name}, {Path(place.filename).name}:{place.lineno}"
    finally:
        ours.setLevel(level)
        simulation.close()
        shutil.rmtree(folder)
    return Result(violation, simulation.world.log, simulation.world.steps)


def _nothing(value: Any, error: BaseException | None) -> None:
    """Whatever came of it."""


__all__ = ["Result", "Simulation", "run"]

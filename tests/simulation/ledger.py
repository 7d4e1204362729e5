"""The embedded ledger in a simulated process: the product's own, with events where it has threads.

Its batcher, its reader and its writer are what runs in production; only the thread that a
:class:`~tokenmesh.ledger.batching.Worker` is, is replaced. Beside that, an answer may come late, or be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

from simulation.disk import Disk
from simulation.home import Signer
from simulation.world import Process
from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.batching import Worker
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import Disclosures

SILENT_S = 0.5
"""After so long it is certain that no answer comes."""
SLOW_S = 4.0
"""How long each piece of work takes, at most, while the ledger is slow."""


class Weather:
    """How the ledger is doing: how long it takes, and which submissions (by process and number) get no
    proper answer."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.slow_until = 0.0
        self.answers: dict[tuple[str, int], tuple[str, float]] = {}
        self.submissions: dict[str, int] = {}
        self.troubled: Callable[[], None] = lambda: None
        self.heard: Callable[[Process, str, Result], None] = lambda *_: None

    def takes_s(self, now: float) -> float:
        """How long the next piece of work takes."""
        return self.chance.uniform(0, SLOW_S if now < self.slow_until else 0.02)


def events_of(process: Process, weather: Weather) -> type[Worker[Any]]:
    """A worker whose jobs are done by events of ``process``, as many at once as have gathered by then."""

    class Events(Worker[Any]):
        _begun = False

        def put(self, job: Any) -> None:
            self._queue.put(job)
            self._begin()

        def _begin(self) -> None:
            if not self._begun:
                self._begun = True
                process.after(weather.takes_s(process.world.now), self._turn)

        def _turn(self) -> None:
            self._begun = False
            batch, _ = self._take()
            self._do(batch)
            if self._ahead is not None or not self._queue.empty():
                self._begin()

    return Events


class SimulatedLedger(EmbeddedLedger):
    """The ledger, as one process has it open."""

    def __init__(self, path: Path, signer: Signer, process: Process, disk: Disk, weather: Weather) -> None:
        self._process = process
        self._weather = weather
        super().__init__(
            path,
            signer,
            clock=process.clock,
            random=weather.chance,
            opener=disk.opener(process, "ledger"),
            worker=events_of(process, weather),
        )

    def _certificates(self, name: str) -> Mapping[str, str]:
        # Asked by the preparer, in the middle of an event: here there is no other thread that could answer.
        wallet = self._ask_now(lambda ask: ask.wallet(name))
        return {} if wallet is None else {one.x5t: one.pem for one in wallet.certificates}

    def submit(
        self, operations: Sequence[str], *, disclosures: Disclosures | None = None
    ) -> Future[list[Result]]:
        process, weather = self._process, self._weather
        number = weather.submissions[process.name] = weather.submissions.get(process.name, 0) + 1
        fate, delay_s = weather.answers.get((process.name, number), ("", 0.0))
        answer: Future[list[Result]] = Future()

        def hear(done: Future[list[Result]]) -> None:
            if done.exception() is None:
                for text, result in zip(operations, done.result(), strict=True):
                    weather.heard(process, text, result)

        def submit(then: Callable[[Future[list[Result]]], None]) -> None:
            done = super(SimulatedLedger, self).submit(operations, disclosures=disclosures)
            done.add_done_callback(hear)
            done.add_done_callback(then)

        if not fate:
            submit(lambda done: _answer(answer, done))
            return answer
        weather.troubled()
        process.say(f"its submission {number} to the ledger: {fate} ({delay_s:g} s)")
        if fate == "late":
            submit(lambda done: process.after(delay_s, lambda: _answer(answer, done)))
        elif fate == "lost":
            submit(lambda _: answer.set_exception(_no_answer()))
        else:
            process.after(SILENT_S, lambda: answer.set_exception(_no_answer()))
            if fate == "much later":
                process.after(SILENT_S + delay_s, lambda: submit(lambda _: None))
        return answer


def _answer(answer: Future[list[Result]], done: Future[list[Result]]) -> None:
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


def _no_answer() -> LedgerOutcomeUnknown:
    return LedgerOutcomeUnknown("the answer was lost: submit the same again")

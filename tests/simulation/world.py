"""Virtual time and all that waits in it: events in order, processes that can die, tasks that are driven.

Nothing here knows what is simulated. A *step* is one event: a message that arrives, an answer, a pause that
is over. What the product's code waits for (:mod:`tokenmesh.steps`) is carried out by events, so which of two
things happens first is decided by the seed and by nothing else.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple

from tokenmesh.steps import Sleep, Within

START = 1_800_000_000.0
"""When every simulation begins, in unix seconds."""
EVENTS_MAX = 200_000
"""A simulation that needs more goes round in circles."""

Resume = Callable[[Any, BaseException | None], None]


class Killed(BaseException):
    """Ends what a process is doing, wherever that is. No code of the product catches it for good: from then
    on whatever the dead process does to a disk raises it again, and nothing it says is heard."""


class Line(NamedTuple):
    """Something that happened: when (seconds since the start), to whom, and what."""

    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:8.3f}  {self.who:<10}  {self.what}"


class World:
    """The clock, the events to come, and the log of what was."""

    def __init__(self) -> None:
        self.now = START
        self.steps = 0
        self.log: list[Line] = []
        self.after_each: Callable[[], None] = lambda: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now - START

    def say(self, who: str, what: str) -> None:
        """Write a line of the log."""
        self.log.append(Line(round(self.now - START, 3), who, what))

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Have ``what`` happen at a moment, which may be now, but not before what is under way has ended."""
        self._count += 1
        heapq.heappush(self._events, (max(moment, self.now), self._count, what))

    def run(self, until: float, *, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until a moment, or until ``done``."""
        while self._events and self._events[0][0] <= until:
            if done():
                return
            self.now, _, what = heapq.heappop(self._events)
            what()
            self.steps += 1
            assert self.steps < EVENTS_MAX, "the simulation does not come to an end"
            self.after_each()
        self.now = max(self.now, until)


class Process:
    """What can be killed, started again, and put to sleep. What it holds in memory dies with it.

    ``skew`` is by how much its clock is wrong.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = False
        self.life = 0
        self.skew = 0.0
        self.asleep_until = 0.0
        self.awaits = 0
        """How often anything in it has waited, over all its lives."""
        self.at_await: Callable[[], None] = lambda: None
        self._graveyard: list[Task] = []

    def clock(self) -> float:
        """What time this process believes it is."""
        return self.world.now + self.skew

    def monotonic(self) -> float:
        """A clock that nobody sets."""
        return self.world.now

    def say(self, what: str) -> None:
        self.world.say(self.name, what)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have ``what`` happen, unless the process has died by then; if it sleeps, once it wakes."""
        life = self.life

        def event() -> None:
            if not self.alive or self.life != life:
                return
            if self.world.now < self.asleep_until:
                self.world.at(self.asleep_until, event)
                return
            try:
                what()
            except Killed:
                self.die()

        self.world.at(self.world.now + seconds, event)

    def task(self, steps: Generator[Any, Any, Any], done: Resume | None = None, context: Any = None) -> None:
        """Drive ``steps`` until they have ended, or the process has."""
        task = Task(self, steps, done, context)
        self.after(0, lambda: task.go(lambda: next(steps)))

    def carry_out(self, effect: Any, task: Task, resume: Resume) -> None:
        """Do what a step asks for and this module does not know."""
        raise TypeError(f"{self.name} cannot carry out {effect!r}")

    def start(self) -> None:
        """Begin a life."""
        self.alive = True
        self.asleep_until = 0.0

    def die(self) -> None:
        """End it: no ``finally`` runs, no one is told."""
        if self.alive:
            self.alive = False
            self.life += 1
            self.say("is killed")
            self.died()

    def died(self) -> None:
        """What the operating system does when a process has ended."""

    def bury(self, task: Task) -> None:
        """Keep what a task had, so that none of its code runs while the simulation lasts."""
        self._graveyard.append(task)


class Task:
    """Steps under way in a process. ``context`` is for whoever carries out their effects."""

    def __init__(
        self, process: Process, steps: Generator[Any, Any, Any], done: Resume | None, context: Any
    ) -> None:
        self.process = process
        self.steps = steps
        self.done = done
        self.context = context
        process.bury(self)

    def go(self, advance: Callable[[], Any]) -> None:
        """Run the steps to where they wait next."""
        try:
            effect = advance()
        except StopIteration as stop:
            if self.done is not None:
                self.done(stop.value, None)
            return
        except Exception as error:
            if self.done is None:
                raise
            self.done(None, error)
            return
        self._wait(effect)

    def _wait(self, effect: Any) -> None:
        process, life, answered = self.process, self.process.life, False

        def resume(value: Any, error: BaseException | None) -> None:
            nonlocal answered
            if answered or process.life != life:
                return
            answered = True
            steps = self.steps
            if error is None:
                process.after(0, lambda: self.go(lambda: steps.send(value)))
            else:
                process.after(0, lambda: self.go(lambda: steps.throw(error)))

        if isinstance(effect, Sleep):
            process.after(effect.seconds, lambda: resume(None, None))
        elif isinstance(effect, Within):
            effect.future.add_done_callback(lambda future: _pass_on(future, resume))
            process.after(effect.seconds, lambda: resume(None, TimeoutError()))
        elif isinstance(effect, Future):
            effect.add_done_callback(lambda future: _pass_on(future, resume))
        else:
            process.carry_out(effect, self, resume)
        process.awaits += 1
        process.at_await()


def _pass_on(future: Future[Any], resume: Resume) -> None:
    error = future.exception()
    resume(None if error is not None else future.result(), error)

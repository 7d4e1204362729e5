"""The network: requests and responses that take their time, get lost, come twice, or overtake each other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from simulation.crooks import CROOKED, Incoming
from simulation.plan import Fault
from simulation.world import Process, Resume, World
from tokenmesh.consumer.messages import InResponse, TransportFailed
from tokenmesh.provider import Answer

TIMEOUT_S = 3.0
"""How long a payer waits for a response."""
LATENCY_S_MAX = 0.05


class Headers(dict[str, str]):
    """Looked up without regard to case."""

    def get(self, name: str, default: Any = None, /) -> Any:
        return next((value for key, value in self.items() if key.lower() == name.lower()), default)


Reply = Callable[[Answer | None], None]


class Wire:
    """Carries messages between processes. ``faults`` are those of messages, by their number."""

    def __init__(self, world: World, chance: Random, faults: list[Fault]) -> None:
        self._world = world
        self._chance = chance
        mine = [fault for fault in faults if fault.who == "message"]
        self._faults = {int(fault.at): fault for fault in mine if fault.kind not in CROOKED}
        self._crooked = sorted(
            (fault for fault in mine if fault.kind in CROOKED), key=lambda fault: -fault.at
        )
        self._messages = 0
        self.listeners: dict[str, list[Any]] = {}
        """The workers of each service; a worker has ``receive(incoming, reply)``."""
        self.troubled: Callable[[], None] = lambda: None
        self.imitated: Callable[[Incoming], None] = lambda _: None
        self.doubled: Callable[[Incoming], None] = lambda _: None

    def request(self, process: Process, service: str, incoming: Incoming, resume: Resume) -> None:
        """Send a request of ``process``, and give the response; :class:`TransportFailed` if none comes."""

        def failed(why: str, *, sent: bool) -> None:
            resume(None, TransportFailed(why, sent=sent))

        def reply(answer: Answer | None) -> None:
            if answer is None:
                self._world.at(self._world.now + self._latency(), lambda: failed("reset", sent=True))
                return
            received = InResponse(answer.status, Headers(answer.headers), answer.body, answer)
            what = f"{answer.status} for request {incoming.number}"
            self._carry(what, lambda: resume(received, None))

        def arrive() -> None:
            if not self.bring(service, incoming, reply):
                # Who doubles a request sits in between, and cannot say that nothing of it will arrive.
                failed("reset" if copied else "refused", sent=copied)

        contract = "with its contract" if incoming.contract else "without a contract"
        process.say(f"sends request {incoming.number}: {incoming.method} {incoming.target} {contract}")
        process.after(TIMEOUT_S, lambda: failed("timed out", sent=True))
        copied = self._carry(f"request {incoming.number}", arrive)
        if copied:
            self.doubled(incoming)
        if incoming.contract is not None:
            self._imitate(service, incoming)

    def bring(self, service: str, incoming: Incoming, reply: Reply) -> bool:
        """Hand a request to some worker of a service; False if none listens."""
        alive = [worker for worker in self.listeners[service] if worker.listening]
        if alive:
            self._chance.choice(alive).receive(incoming, reply)
        return bool(alive)

    def _imitate(self, service: str, incoming: Incoming) -> None:
        """Have a crook see a request, if it is time for one; what it makes of it arrives later."""
        if not self._crooked or self._crooked[-1].at > self._messages:
            return
        fault = self._crooked.pop()
        to, crooked = CROOKED[fault.kind](service, incoming)
        self.troubled()
        self.imitated(crooked)
        self._world.say("crook", f"saw request {incoming.number}, and makes another: {fault.kind}")
        self._world.at(self._world.now + fault.arg, lambda: void(self.bring(to, crooked, void)))

    def _carry(self, what: str, arrive: Callable[[], None]) -> bool:
        """Have a message arrive, unless it is lost; whether it arrives twice."""
        self._messages += 1
        fault = self._faults.get(self._messages)
        delay_s = self._latency()
        if fault is not None:
            self._world.say("wire", f"message {self._messages} ({what}): {fault.kind}")
            self.troubled()
            if fault.kind == "lose":
                return False
            if fault.kind == "late":
                delay_s += fault.arg
            else:
                self._world.at(self._world.now + delay_s + fault.arg, arrive)
        self._world.at(self._world.now + delay_s, arrive)
        return fault is not None and fault.kind == "double"

    def _latency(self) -> float:
        return self._chance.uniform(0.001, LATENCY_S_MAX)


def void(_: object) -> None:
    """Nobody waits for it."""

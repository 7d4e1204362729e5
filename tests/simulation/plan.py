"""What a simulation does, and what goes wrong in it: drawn from a seed, and short enough to be read.

Everything that is decided beforehand stands in a :class:`Plan`, so a part of it can be left out: that is how
a failing seed's story is made short. What is decided on the way (how long a message takes) comes from a
generator of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from simulation.home import PAYEES, PAYERS

CROOKS = ("settle again", "settle dear", "settle another's", "void again", "expire early", "send again")
"""What crooked wallets ask of the ledger: see :mod:`simulation.crooks`."""
TOO_LONG_S = 70.0
"""A handler that takes so long cannot be settled in time any more."""
CALLERS = ("shop", "desk", "shop-2")
"""The processes that call. Two of them share a wallet, its balance and its allowances."""
SERVICES = (*PAYERS, *PAYEES)
BUSY_S = 12.0
"""Calls begin, and trouble is made, within so many seconds."""


class Operation(NamedTuple):
    """An operation that payees offer. ``tokens`` is its price, or the most that it may be."""

    name: str
    method: str
    path: str
    tokens: int
    open_price: bool
    via: Literal["allowance", "hold"]


OPERATIONS = {
    "quote": Operation("GET /quote/{job}", "GET", "/quote/{job}", 5, False, "allowance"),
    "render": Operation("POST /render/{job}", "POST", "/render/{job}", 20, True, "allowance"),
    "deliver": Operation("POST /deliver/{job}", "POST", "/deliver/{job}", 7, False, "hold"),
    "reserve": Operation("PUT /reserve/{job}", "PUT", "/reserve/{job}", 9, True, "hold"),
}


class Job(NamedTuple):
    """Something that a payer's code wants done, and what the payee's handler makes of it.

    ``payer`` is a process; what stands before a dash is its wallet. ``keyed``: the caller gives an
    idempotency key, and goes on after its own end. ``fails``: the handler raises, or answers with that
    status. ``long``: the response is too long to be kept.
    """

    id: str
    at: float
    payer: str
    payee: str
    op: str
    charge: int
    fails: int
    work_s: float
    keyed: bool
    long: bool
    max_tokens: int | None

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.op]

    @property
    def target(self) -> str:
        return f"/{self.op}/{self.id}"

    @property
    def body(self) -> bytes:
        return b"" if self.operation.method == "GET" else f"the body of {self.id}".encode()

    def __str__(self) -> str:
        how = [f"{self.payer} calls {self.operation.method} {self.target} of {self.payee}"]
        how.append(f"which takes {self.work_s:g} s")
        how.append(f"and fails with {self.fails}" if self.fails else f"and costs {self.charge}")
        if self.keyed:
            how.append("with an idempotency key")
        return f"{self.at:8.3f}  " + ", ".join(how)


class Fault(NamedTuple):
    """Something that goes wrong. ``at`` is a moment (seconds), or a count: the n-th message, await, commit,
    submission; ``kind`` says which."""

    kind: str
    who: str
    at: float
    arg: Any = None

    def __str__(self) -> str:
        return f"{self.kind} {self.who} at {self.at:g}" + ("" if self.arg is None else f" ({self.arg})")


class Decree(NamedTuple):
    """Governance takes something from a payer for a while: everything, or one operation.

    ``late_s``: how much older the change is by its own time than it is. ``cut_short``: it is never put in
    force.
    """

    at: float
    payer: str
    operation: str | None
    for_s: float
    late_s: float
    cut_short: bool

    def __str__(self) -> str:
        what = "is frozen" if self.operation is None else f"may not {self.operation}"
        how = [f"{self.at:8.3f}  {self.payer} {what} for {self.for_s:g} s"]
        how += [f"recorded {self.late_s:g} s after its time"] if self.late_s else []
        how += ["never put in force"] if self.cut_short else []
        return ", ".join(how)


@dataclass(frozen=True)
class Plan:
    """One simulation. The flags say how the services are set up."""

    seed: int
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]
    workers: int = 1
    rerun: bool = False
    far_journal: bool = False
    """The journal lies across a network: each of its answers is waited for."""
    synced: bool = True
    careful: bool = False
    """The payee's framework checks a contract step by step, as an asynchronous one does."""
    skews: tuple[float, ...] = ()
    """By how much the clock of each service is wrong: its workers share a host."""
    decrees: tuple[Decree, ...] = ()

    def without(self, part: Job | Fault | Decree) -> Plan:
        """The same, less one thing."""
        return replace(
            self,
            decrees=tuple(decree for decree in self.decrees if decree is not part),
            jobs=tuple(job for job in self.jobs if job is not part),
            faults=tuple(fault for fault in self.faults if fault is not part),
        )

    @property
    def processes(self) -> list[str]:
        """The names of all processes."""
        return [*CALLERS, *(f"{payee}-{n}" for payee in PAYEES for n in range(1, self.workers + 1))]


def plan(seed: int) -> Plan:
    """The plan of a seed."""
    chance = Random(f"plan {seed}")
    workers = chance.choice((1, 1, 2))
    flags = {
        "workers": workers,
        "rerun": chance.random() < 0.25,
        "far_journal": chance.random() < 0.4,
        "synced": chance.random() < 0.7,
        "careful": chance.random() < 0.5,
    }
    callers = chance.choice((("shop", "shop", "desk"), CALLERS))
    jobs = tuple(_job(number, chance, callers) for number in range(chance.randint(3, 9)))
    drawn = Plan(seed, jobs, (), **flags)
    troubles = 0 if chance.random() < 0.1 else chance.randint(1, 8)
    faults = tuple(_fault(drawn, chance) for _ in range(troubles))
    skews = tuple(_skew(chance) if chance.random() < 0.4 else 0.0 for _ in SERVICES)
    return replace(drawn, faults=faults, skews=skews, decrees=_decrees(Random(f"decrees {seed}")))


def _skew(chance: Random) -> float:
    return round(chance.uniform(-2, 2), 1)


def _decrees(chance: Random) -> tuple[Decree, ...]:
    if chance.random() < 0.6:
        return ()
    return tuple(
        Decree(
            at=round(chance.uniform(0, BUSY_S / 2), 2),
            payer=chance.choice(PAYERS),
            operation=chance.choice((None, *(one.name for one in OPERATIONS.values()))),
            for_s=round(chance.choice((1.0, BUSY_S)) * chance.uniform(0.5, 1), 1),
            late_s=round(chance.uniform(1, 8), 1) if chance.random() < 0.5 else 0.0,
            cut_short=chance.random() < 0.2,
        )
        for _ in range(chance.randint(1, 2))
    )


def _job(number: int, chance: Random, callers: tuple[str, ...]) -> Job:
    op = chance.choice(("quote", "quote", "render", "deliver", "reserve"))
    operation = OPERATIONS[op]
    work_s = round(chance.choice((0.0, 0.05, 0.5, 2.0, 5.0)) * chance.uniform(0.5, 1), 2)
    if chance.random() < 0.03:
        work_s = TOO_LONG_S
    charge = chance.randint(0, operation.tokens) if operation.open_price else operation.tokens
    return Job(
        id=f"j{number}",
        at=round(chance.uniform(0, BUSY_S), 2),
        payer=chance.choice(callers),
        payee=chance.choice(("quotes", "quotes", "maps")),
        op=op,
        charge=charge,
        fails=chance.choice((500, 500, 404, 503)) if chance.random() < 0.15 else 0,
        work_s=work_s,
        keyed=work_s < BUSY_S and chance.random() < 0.5,
        long=chance.random() < 0.08,
        max_tokens=chance.choice((None, None, None, 20, 4)),
    )


def _fault(drawn: Plan, chance: Random) -> Fault:
    kinds = [
        ("lose", 5),
        ("double", 4),
        ("stray", 2),
        ("forge", 2),
        ("same id", 3),
        ("stale", 2),
        ("crook", 4),
        ("late", 3),
        ("kill", 5),
        ("kill at commit", 5),
        ("sleep", 3),
        ("disk", 3),
        ("ledger disk", 2),
        ("ledger down", 1),
        ("ledger slow", 1),
        ("answer", 3),
        ("clock", 2),
        ("power", 3 if drawn.synced else 0),
    ]
    kind = chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    messages = 5 * len(drawn.jobs)
    process = chance.choice(drawn.processes)
    worker = chance.choice(drawn.processes[len(CALLERS) :])
    down_s = round(chance.uniform(0.1, 6), 1)
    moment = round(chance.uniform(0, BUSY_S + 5), 2)
    fates: dict[str, Fault] = {
        "lose": Fault(kind, "message", chance.randint(1, messages)),
        "double": Fault(kind, "message", chance.randint(1, messages), round(chance.expovariate(1 / 6), 2)),
        "stray": Fault(kind, "message", chance.randint(1, messages // 2), round(chance.uniform(0, 3), 2)),
        "forge": Fault(kind, "message", chance.randint(1, messages // 2), round(chance.uniform(0, 3), 2)),
        "same id": Fault(kind, "message", chance.randint(1, messages // 2), round(chance.uniform(0, 6), 2)),
        "stale": Fault(kind, "message", chance.randint(1, messages // 2), round(chance.uniform(0, 3), 2)),
        "crook": Fault(kind, chance.choice(CROOKS), round(chance.uniform(4, BUSY_S + 5), 2)),
        "late": Fault(kind, "message", chance.randint(1, messages), round(chance.uniform(0.5, 12), 2)),
        "kill": Fault(kind, process, chance.randint(1, 60), down_s),
        "kill at commit": Fault(
            kind,
            f"{process}/{'journal' if process == worker else 'ledger'}",
            chance.randint(1, 12),
            (chance.random() < 0.5, down_s),
        ),
        "sleep": Fault(kind, process, chance.randint(1, 60), round(chance.uniform(1, 8), 1)),
        "disk": Fault(kind, f"{worker}/journal", chance.randint(1, 15), chance.choice(("full", "write"))),
        "ledger disk": Fault(
            kind, f"{process}/ledger", chance.randint(1, 6), chance.choice(("full", "write", "sync", "done"))
        ),
        "ledger down": Fault(kind, "ledger", moment, down_s),
        "ledger slow": Fault(kind, "ledger", moment, down_s),
        "answer": Fault(
            kind,
            process,
            chance.randint(1, 6),
            (chance.choice(("late", "lost", "never sent", "much later")), down_s),
        ),
        "clock": Fault(kind, chance.choice(SERVICES), moment, _skew(chance)),
        "power": Fault(kind, "host", moment, down_s),
    }
    return fates[kind]

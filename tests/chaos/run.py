"""One run: a domain is founded, all start, the plan is carried out, and the checker has the last word."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
from chaos.cast import PAYERS, Cast, Warden
from chaos.checker import check
from chaos.gather import books, expire_and_sweep, journal_of
from chaos.grounds import Ground, prepared
from chaos.notes import Folder
from chaos.payer import PAYEE
from chaos.plan import Deed, draw

from support.cli import Cli
from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.processes import free_ports
from tokenmesh.steps import run, wait

SUPPLY = 10_000_000
TOKENS = 1_000_000
REST_S_MAX = 120.0
POLL_S = 0.1
FRAMEWORKS = ("flask", "fastapi")

Tell = Callable[[str], None]


class Report(NamedTuple):
    """How a run went. ``story`` is what was done, to whom and when; ``wrong`` what the checker found."""

    seed: int
    kind: str
    framework: str
    story: Sequence[str]
    counts: dict[str, int]
    wrong: Sequence[str]

    def __str__(self) -> str:
        head = f"{self.kind} ledger, payee on {self.framework}, seed {self.seed}"
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        if not self.wrong:
            return f"{head}: everything adds up ({counts})"
        lines = [f"{head}: NOT everything adds up ({counts})", "what was done:", *self.story]
        return "\n".join([*lines, "what is wrong:", *(f"  {finding}" for finding in self.wrong)])


class Chaos:
    """A run of ``seconds`` of trouble on a ledger of ``kind``; all it leaves is below ``path``."""

    def __init__(self, kind: str, seed: int, seconds: float, path: Path, tell: Tell) -> None:
        self._kind = kind
        self._seed = seed
        self._seconds = seconds
        self._folder = Folder(path)
        self._framework = FRAMEWORKS[(seed + (kind == "fabric")) % len(FRAMEWORKS)]
        self._tell = tell
        self._story: list[str] = []
        self._wrong: list[str] = []
        self._began = 0.0
        self._over = threading.Event()

    def run(self) -> Report:
        """Carry it out from beginning to end."""
        with ExitStack() as stack:
            warden = Warden()
            stack.callback(warden.close)
            self._tell(f"{self._kind} ledger, seed {self._seed}: founding")
            ground = stack.enter_context(prepared(self._kind, self._folder, warden.network))
            (port,) = free_ports(1, seeded("port", time.time_ns()).choice)
            cast = stack.enter_context(Cast(ground, self._framework, port, warden.group))
            founded = self._found(ground, cast)
            cast.start()
            self._make_trouble(cast)
            self._come_to_rest(cast)
            self._tell("hours later: expiry, sweep, and the checker")
            expire_and_sweep(ground)
            found = books(ground, SUPPLY, founded)
        counts = {
            "deeds": len(self._story),
            "runs of a handler": len(found.runs),
            "contracts settled": len(found.evidence.settled),
            "tokens earned": sum(settled.charged for settled in found.evidence.settled),
            "answers": len(found.answers),
            "acts of governance": len(found.recorded),
        }
        wrong = [*self._wrong, *check(found)]
        return Report(self._seed, self._kind, self._framework, sorted(self._story), counts, wrong)

    def _found(self, ground: Ground, cast: Cast) -> int:
        """Make the domain and its wallets; the number of the last transaction of the founding."""
        cli = Cli(self._folder.home)
        where = ("--ledger", ground.url)
        cli("init", "--supply", str(SUPPLY), *where)
        cli("wallet", "create", PAYEE, "--url", cast.url, *where)
        for name in sorted(set(PAYERS.values())):
            cli("wallet", "create", name, "--tokens", str(TOKENS), *where)
        # A ledger of its own, as `later` would put the clock of the rules forward.
        listed = cli.json("history", "--limit", "1", *where)
        return int(listed[0]["number"])

    def _make_trouble(self, cast: Cast) -> None:
        """Carry out the plan, each deed on a thread of its own: some last while others begin."""
        plan = draw(self._seed, self._seconds, self._kind, cast.victims, cast.nodes)
        self._tell(f"{len(plan)} deeds in {self._seconds:g} s")
        self._began = time.monotonic()
        with ThreadPoolExecutor(len(cast.victims), thread_name_prefix="chaos") as pool:
            doing = []
            for deed in plan:
                self._over.wait(max(0.0, deed.at_s - self._now()))
                doing.append(pool.submit(self._do, cast, deed))
            for one in doing:
                one.result()
        self._over.wait(max(0.0, self._seconds - self._now()))

    def _do(self, cast: Cast, deed: Deed) -> None:
        began = self._now()
        pids = cast.attack(deed.victim, signal.Signals[deed.how])
        who = f"{deed.victim} ({', '.join(map(str, pids)) or 'not there just now'})"
        self._over.wait(deed.for_s)
        try:
            cast.go_on(deed.victim, pids)
        except Exception as error:
            self._wrong.append(f"{deed.victim} did not come back: {error}")
        line = f"{began:8.2f} s  {deed.how} {who}"
        if deed.for_s:
            line += f", until {self._now():.2f} s"
        self._story.append(line)
        self._tell(line)

    def _come_to_rest(self, cast: Cast) -> None:
        """Let everyone finish what they have begun, and wait until all that is owed is settled."""
        self._tell("the trouble is over: payers and governance finish")
        self._wrong += cast.finish()
        self._tell("waiting until everything is settled")
        deadline = time.monotonic() + REST_S_MAX
        journal = journal_of(self._folder)
        try:
            while (stats := run(wait(journal.stats()))).unsettled or stats.open:
                if time.monotonic() > deadline:
                    self._wrong.append(f"not at rest after {REST_S_MAX:g} s: {stats}")
                    break
                _look_after(cast.url)
                self._over.wait(POLL_S)
        finally:
            journal.close()
        cast.stop_payee()

    def _now(self) -> float:
        return time.monotonic() - self._began


def _look_after(url: str) -> None:
    """See whether the payee is there, as an orchestrator does: on Flask a new process begins to settle with
    its first request, whatever it is."""
    try:
        httpx.get(f"{url}/is-there-anybody", timeout=5)
    except httpx.HTTPError:
        return

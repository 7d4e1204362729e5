"""One run: a domain is founded, all start, the plan is carried out, and the checker has the last word."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
from chaos.cast import PAYERS, Cast, Warden
from chaos.checker import Books, check
from chaos.gather import books, expire_and_sweep, journal_of
from chaos.grounds import Ground, prepared
from chaos.notes import Folder
from chaos.pace import Pace
from chaos.payer import PAYEE
from chaos.plan import Deed, draw

from support.cli import Cli
from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.processes import free_ports
from tokenmesh.steps import run, wait

SUPPLY = 10_000_000
TOKENS = 1_000_000
GRACE_S = 3_600
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
        self._pace = Pace()
        self._busy: dict[str, threading.Lock] = {}

    def run(self) -> Report:
        """Carry it out from beginning to end; whatever goes wrong on the way is in the report."""
        counts: dict[str, int] = {"deeds": 0}
        try:
            found = self._carry_out()
            counts = _counts(found)
            self._wrong += check(found)
        except Exception:
            self._wrong.append(f"the run broke off: {traceback.format_exc()}")
        counts["deeds"] = len(self._story)
        return Report(self._seed, self._kind, self._framework, sorted(self._story), counts, self._wrong)

    def _carry_out(self) -> Books:
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
            return books(ground, SUPPLY, founded)

    def _found(self, ground: Ground, cast: Cast) -> int:
        """Make the domain and its wallets; the number of the last transaction of the founding."""
        cli = Cli(self._folder.home)
        where = ("--ledger", ground.url)
        cli("init", "--supply", str(SUPPLY), *where)
        cli("wallet", "create", PAYEE, "--url", cast.url, *where)
        for name in sorted(set(PAYERS.values())):
            cli("wallet", "create", name, "--tokens", str(TOKENS), *where)
        # Longer than a ledger can be away in a run: what is owed and not settled by then is lost by design.
        cli("policy", "set", f"grace_s={GRACE_S}", *where)
        listed = cli.json("history", "--limit", "1", *where)
        return int(listed[0]["number"])

    def _make_trouble(self, cast: Cast) -> None:
        """Carry out the plan, each deed on a thread of its own: some last while others begin."""
        plan = draw(self._seed, self._seconds, self._kind, cast.victims, cast.nodes)
        self._tell(f"{len(plan)} deeds in {self._seconds:g} s")
        self._pace = Pace()
        self._busy = {group: threading.Lock() for group in cast.victims.values()}
        with ThreadPoolExecutor(len(cast.victims), thread_name_prefix="chaos") as pool:
            doing = []
            for deed in plan:
                self._pace.until(deed.at_s)
                doing.append(pool.submit(self._do, cast, deed))
            for one in doing:
                one.result()
        self._pace.until(self._seconds)

    def _do(self, cast: Cast, deed: Deed) -> None:
        began = self._pace.now()
        line = f"{began:8.2f} s  {deed.how} {deed.victim}"
        busy = self._busy[cast.victims[deed.victim]]
        if not busy.acquire(blocking=False):
            self._note(f"{line}: left out, it is not yet back from the last time")
            return
        try:
            pids = cast.attack(deed.victim, signal.Signals[deed.how])
            line += f" ({', '.join(map(str, pids)) or 'not there just now'})"
            self._pace.until(began + deed.for_s)
            cast.go_on(deed.victim, pids)
            if deed.for_s:
                line += f", until {self._pace.now():.2f} s"
        except Exception as error:
            self._wrong.append(f"{deed.victim} did not come back: {error}")
            line += ", and it did not come back"
        finally:
            busy.release()
        self._note(line)

    def _note(self, line: str) -> None:
        self._story.append(line)
        self._tell(line)

    def _come_to_rest(self, cast: Cast) -> None:
        """Let everyone finish what they have begun, and wait until all that is owed is settled."""
        self._tell("the trouble is over: payers and governance finish")
        self._wrong += cast.finish()
        self._tell("waiting until everything is settled")
        deadline = self._pace.now() + REST_S_MAX
        journal = journal_of(self._folder)
        try:
            while (stats := run(wait(journal.stats()))).unsettled or stats.open:
                if self._pace.now() > deadline:
                    self._wrong.append(f"not at rest after {REST_S_MAX:g} s: {stats}")
                    break
                _look_after(cast.url)
                self._pace.until(self._pace.now() + POLL_S)
        finally:
            journal.close()
        cast.stop_payee()


def _counts(found: Books) -> dict[str, int]:
    """How much happened."""
    return {
        "deeds": 0,
        "runs of a handler": len(found.runs),
        "contracts settled": len(found.evidence.settled),
        "tokens earned": sum(settled.charged for settled in found.evidence.settled),
        "answers": len(found.answers),
        "acts of governance": len(found.recorded),
    }


def _look_after(url: str) -> None:
    """See whether the payee is there, as an orchestrator does: on Flask a new process begins to settle with
    its first request, whatever it is."""
    try:
        httpx.get(f"{url}/is-there-anybody", timeout=5)
    except httpx.HTTPError:
        return

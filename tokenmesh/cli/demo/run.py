"""The demo from beginning to end: it founds a domain, opens the shop, makes trouble, and counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack

from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.auditor import Evidence, audit
from tokenmesh.cli.demo.economy import Economy
from tokenmesh.cli.demo.evidence import gather, happened, published
from tokenmesh.cli.demo.ground import Ground, network_home, prepare
from tokenmesh.cli.demo.launch import SHOPPERS, Launch, Options, served_by
from tokenmesh.cli.demo.notes import Notes, Reader
from tokenmesh.cli.demo.plan import (
    ALLOWANCE_TTL_S,
    GRACE_S,
    NAMES,
    RUNS_DRY,
    SHOPPER,
    Paths,
    starting_tokens,
    trouble,
)
from tokenmesh.cli.demo.processes import ChildFailed, Children
from tokenmesh.cli.demo.scenes import Deed, freezing, killing, running_dry
from tokenmesh.cli.demo.summary import Summary, Visit
from tokenmesh.cli.demo.tally import Passage, Tally
from tokenmesh.cli.demo.traced import Traced
from tokenmesh.cli.demo.view import Row, View
from tokenmesh.journal import Journal, open_journal
from tokenmesh.steps import run, wait

TICK_S = 0.2
START_S_MAX = 90.0
LAST_PAGE_S_MAX = 20.0
SETTLE_S_MAX = 10.0
EXPIRE_S_MAX = ALLOWANCE_TTL_S + GRACE_S + 5.0
OVER = object()


class Demo:
    """One run. It is the stage on which the scenes of trouble are played."""

    def __init__(self, options: Options, paths: Paths, view: View, *, keep: bool = False) -> None:
        """``keep`` is whether the home is to be kept, and with it what a network knows."""
        self._options = options
        self._keep = keep
        self._paths = paths
        self._view = view
        self._began = time.monotonic()
        self._opened: float | None = None
        self._shopped_s = 0.0
        self.states = dict.fromkeys(NAMES, "starting")
        self._tally = Tally()
        self._passages: list[Passage] = []
        self._deeds: list[Deed] = []
        self._dry = False
        self._wire_notes = Reader(paths.wire)
        self._happenings = Reader(paths.happenings)

    def run(self) -> Summary:
        """Play it. Raises :class:`ChildFailed` if a process ends that should not."""
        with ExitStack() as stack:
            self._view.show("founding the domain", 0.0, [])
            self._children = stack.enter_context(Children(self._paths.home, self._paths.log))
            ground = stack.enter_context(self._ground())
            # Only now: it looks for free ports, and a network takes some of its own.
            self._launch = Launch(self._options, self._paths, self._children)
            # Before their ledger goes.
            stack.callback(self._children.stop, seconds=1.0)
            self._economy = Economy(self._paths.home, ground)
            stack.callback(self._economy.ledger.close)
            self._economy.open_wallets(self._launch.urls, starting_tokens(self._options.seconds))
            self._start()
            self._shop()
            journals = self._open_journals(stack)
            self._come_to_rest(journals)
            return self._account(journals)

    def _ground(self) -> AbstractContextManager[Ground]:
        home = self._paths.home
        told: set[str] = set()

        def tell(what: str) -> None:
            self._view.show(what, 0.0, [])
            if what not in told:  # a build tells of every step of its own
                told.add(what)
                self.event(what)

        self._children.guard(network_home(home))
        return prepare(self._options.ledger, home, tell, keep=self._keep)

    # The phases

    def _start(self) -> None:
        self._launch.start(self._economy.url)
        otlp = self._options.otlp
        if otlp is not None and not exporting.takes_spans(otlp):
            self.event(f"nothing takes spans at {otlp}: the demo goes on without", "yellow")
        deadline = time.monotonic() + START_S_MAX
        missing = set(NAMES)
        while missing:
            self._phase(f"starting {len(NAMES)} services", 0.2 * (1 - len(missing) / len(NAMES)))
            for name in list(missing):
                if self.answers(name):
                    missing.remove(name)
                    self.states[name] = "up"
            if missing and time.monotonic() > deadline:
                words = self._children.last_words(min(missing))
                raise ChildFailed(f"in {START_S_MAX:.0f} s {', '.join(missing)} did not start:\n{words}")
            self._tick()
        self.event(f"{len(NAMES)} services are up", "green")

    def _shop(self) -> None:
        """Open the door, and make trouble while the shoppers shop."""
        self._paths.door.touch()
        self._opened = time.monotonic()
        self.event(f"the shop opens for {self._options.shoppers} shoppers")
        plan = trouble(self._options.seed, self._options.seconds)
        plays = (killing, freezing, running_dry)
        scenes: list[Iterator[object]] = [play(self, plan, self._deeds) for play in plays]
        deadline = self._options.seconds + LAST_PAGE_S_MAX
        code = None
        # A service that is still being restarted when the last shopper leaves has to settle, too.
        while (code is None or scenes) and self.seconds() < deadline:
            scenes = [scene for scene in scenes if next(scene, OVER) is not OVER]
            if code is None and (code := self._children.wait(SHOPPERS, 0)) is not None:
                self._shopped_s = self.seconds()
                self.event("the last shopper has left")
            self._phase("the shop is open", 0.2 + 0.5 * min(1.0, self.seconds() / self._options.seconds))
            self._tick(but=SHOPPERS)
        if code != 0:
            how = "did not come to an end" if code is None else f"ended with {code}"
            raise ChildFailed(f"the shoppers {how}:\n{self._children.last_words(SHOPPERS)}")

    def _come_to_rest(self, journals: Mapping[str, Journal]) -> None:
        """Wait until all is settled, stop the services, and let what they had set aside expire."""
        self._until(SETTLE_S_MAX, lambda: self._settle(journals))
        self._phase("stopping the services", 0.75)
        self._children.stop(*NAMES)
        self.states.update(dict.fromkeys(NAMES, "stopped"))
        self.event("the services have stopped; what they had set aside comes back when it expires")
        began = time.monotonic()
        self._until(EXPIRE_S_MAX, lambda: self._expire(time.monotonic() - began))

    def _settle(self, journals: Mapping[str, Journal]) -> bool:
        waiting = sum(run(wait(journal.stats())).unsettled for journal in journals.values())
        self._phase(f"settling: {waiting:,} contracts wait", 0.7)
        return waiting == 0

    def _expire(self, waited_s: float) -> bool:
        aside = self._economy.expire()
        self._phase(
            f"waiting for expiry: {aside:,} tokens are set aside", 0.75 + 0.2 * waited_s / EXPIRE_S_MAX
        )
        return aside == 0

    def _account(self, journals: Mapping[str, Journal]) -> Summary:
        self._take_notes()
        verify_findings = self._economy.verify(self._replaying)
        self._phase("the auditor reads everything", 0.98)
        evidence = gather(
            paths=self._paths,
            ledger=self._economy.ledger,
            journals=journals,
            passages=self._passages,
            offers=published(self._launch.offers),
            minted=self._economy.minted,
            verify_findings=verify_findings,
        )
        settled = Notes(self._paths.settled)
        for one in evidence.settled:
            settled.write(**one._asdict())
        visits = [
            Visit(note["page"], note["ms"], note["outcome"]) for note in Reader(self._paths.visits).new()
        ]
        return Summary(
            options=self._options._asdict(),
            evidence=evidence,
            checks=audit(evidence),
            tally=self._tally,
            visits=visits,
            deeds=self._deeds,
            happenings=happened(self._paths),
            shopping_s=self._shopped_s,
            total_s=time.monotonic() - self._began,
            traced=self._traced(evidence),
        )

    def _traced(self, evidence: Evidence) -> Traced | None:
        endpoint = self._options.otlp
        if endpoint is None:
            return None
        return Traced.of(endpoint, exporting.takes_spans(endpoint), evidence.settled)

    def _replaying(self, done: int, total: int) -> None:
        self._phase(f"replaying the ledger: {done:,} of {total:,} transactions", 0.95)

    # What the scenes may do and see

    def seconds(self) -> float:
        return 0.0 if self._opened is None else time.monotonic() - self._opened

    def event(self, text: str, style: str = "") -> None:
        self._view.event(text, style)

    def kill(self, service: str) -> None:
        self._children.kill(service)

    def restart(self, service: str) -> None:
        self._children.restart(service)

    def answers(self, service: str) -> bool:
        return self._launch.answers(service)

    def seen_dry(self) -> bool:
        return self._dry

    def govern(self, act: str, **argument: object) -> None:
        self._economy.governance.do(act, argument)

    # The loop

    def _phase(self, headline: str, part: float) -> None:
        self._view.show(headline, part, self._rows())

    def _tick(self, *, but: str | None = None) -> None:
        """One turn of the loop: look after the children, take up what was noted, and rest."""
        self._children.check(but=but)
        self._take_notes()
        time.sleep(TICK_S)

    def _until(self, seconds: float, done: Callable[[], bool]) -> None:
        """Go on until ``done``; past ``seconds`` the auditor will find what is missing."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self._tick()

    def _take_notes(self) -> None:
        for note in self._wire_notes.new():
            passage = Passage.read(note)
            self._passages.append(passage)
            self._tally.add(passage)
        for note in self._happenings.new():
            if note["service"] == RUNS_DRY and note["why"] == "InsufficientFunds":
                self._dry = True

    def _rows(self) -> list[Row]:
        rows = []
        for name in (SHOPPER, *NAMES):
            balance = self._economy.balance(name) if self._view.watched else None
            rows.append(
                Row(
                    name=name,
                    served_by=served_by(name),
                    state=self.states.get(name, ""),
                    balance=None if balance is None else sum(balance),
                    calls=self._tally.calls[name],
                    earned=self._tally.earned[name],
                    spent=self._tally.spent[name],
                    lost=self._tally.lost[name],
                )
            )
        return rows

    def _open_journals(self, stack: ExitStack) -> dict[str, Journal]:
        journals = {}
        for name in NAMES:
            journal = open_journal(f"sqlite:///{self._paths.home}/journal-{name}.db")
            stack.callback(journal.close)
            journals[name] = journal
        return journals

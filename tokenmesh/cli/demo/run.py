"""The demo from beginning to end: it founds a domain, opens the shop, makes trouble, and counts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

from tokenmesh.cli.demo.auditor import audit
from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.economy import Economy
from tokenmesh.cli.demo.evidence import gather, happened, published
from tokenmesh.cli.demo.notes import Reader
from tokenmesh.cli.demo.plan import (
    ALLOWANCE_TTL_S,
    CONTRACT_TTL_S,
    GRACE_S,
    LOSS,
    NAMES,
    RUNS_DRY,
    SERVICES,
    SHOPPER,
    Paths,
    Service,
    trouble,
)
from tokenmesh.cli.demo.processes import ChildFailed, Children, free_ports
from tokenmesh.cli.demo.scenes import Deed, freezing, killing, running_dry
from tokenmesh.cli.demo.summary import Summary, Visit
from tokenmesh.cli.demo.tally import Passage, Tally
from tokenmesh.cli.demo.view import Row, View
from tokenmesh.journal import Journal, open_journal
from tokenmesh.steps import run, wait

TICK_S = 0.2
PROBE_S_MAX = 0.5
START_S_MAX = 40.0
LAST_PAGE_S_MAX = 15.0
SETTLE_S_MAX = 10.0
EXPIRE_S_MAX = ALLOWANCE_TTL_S + GRACE_S + 5.0
OFFERS = "/.well-known/tokenmesh/offers"
WIRE = "wire"
SHOPPERS = "shoppers"

SETTINGS = {
    "TOKENMESH_CONTRACT_TTL_S": str(CONTRACT_TTL_S),
    "TOKENMESH_HOLD_TTL_S": str(CONTRACT_TTL_S),
    "TOKENMESH_ALLOWANCE_TTL_S": str(ALLOWANCE_TTL_S),
    "TOKENMESH_ALLOWANCE_CALLS": "50",
    "TOKENMESH_TIMEOUT_S": "3",
    "TOKENMESH_RETRY_S_MAX": str(CONTRACT_TTL_S - 1),
    "TOKENMESH_SETTLE_INTERVAL_S": "0.3",
    "TOKENMESH_SWEEP_INTERVAL_S": "1",
    "TOKENMESH_LEASE_S": "2",
    "TOKENMESH_WALLET_CACHE_S": "1",
    "TOKENMESH_CLOSE_S_MAX": "3",
}
"""Short times for the services, so that in half a minute everything happens that takes hours elsewhere."""


class Options(NamedTuple):
    """What the user may choose."""

    seed: int
    seconds: float
    shoppers: int


class Demo:
    """One run. It is the stage on which the scenes of trouble are played."""

    def __init__(self, options: Options, paths: Paths, view: View) -> None:
        self._options = options
        self._paths = paths
        self._view = view
        self._began = time.monotonic()
        self._opened: float | None = None
        self._plan = trouble(options.seed, options.seconds)
        self.states = dict.fromkeys(NAMES, "starting")
        self._tally = Tally()
        self._passages: list[Passage] = []
        self._deeds: list[Deed] = []
        self._dry = False
        self._wire_notes = Reader(paths.wire)
        self._happenings = Reader(paths.happenings)
        self._offers: dict[str, Mapping[str, object]] = {}
        ports = free_ports(2 * len(SERVICES), seeded("ports", time.time_ns()).choice)
        self._ports = dict(zip(NAMES, ports[: len(SERVICES)], strict=True))
        self._wire_ports = dict(zip(NAMES, ports[len(SERVICES) :], strict=True))

    def run(self) -> Summary:
        """Play it. Raises :class:`ChildFailed` if a process ends that should not."""
        with ExitStack() as stack:
            self._phase("founding the domain", 0.0)
            self._economy = Economy(self._paths.home)
            stack.callback(self._economy.ledger.close)
            self._economy.open_wallets(
                {name: f"http://127.0.0.1:{port}" for name, port in self._wire_ports.items()}
            )
            self._children = stack.enter_context(Children(self._paths.home, self._paths.log))
            self._start()
            self._shop()
            shopping_s = self.seconds()
            journals = self._open_journals(stack)
            self._come_to_rest(journals)
            return self._account(shopping_s, journals)

    # The phases

    def _start(self) -> None:
        config = {
            "routes": [(name, self._wire_ports[name], self._ports[name]) for name in NAMES],
            "seed": self._options.seed,
            "loss": LOSS,
            "log": str(self._paths.wire),
        }
        self._paths.wire_config.write_text(json.dumps(config))
        python = sys.executable
        self._children.start(
            WIRE, [python, "-m", "tokenmesh.cli.demo.wire", str(self._paths.wire_config)], {}
        )
        for service in SERVICES:
            self._children.start(
                service.name, _command(service, self._ports[service.name]), self._environment(service.name)
            )
        seed, seconds, shoppers = self._options
        load = [
            python,
            "-m",
            "tokenmesh.cli.demo.shoppers",
            str(seed),
            str(shoppers),
            str(seconds),
        ]
        self._children.start(SHOPPERS, load, self._environment(SHOPPER))
        deadline = time.monotonic() + START_S_MAX
        missing = list(NAMES)
        while missing:
            self._phase(f"starting {len(NAMES)} services", 0.2 * (1 - len(missing) / len(NAMES)))
            missing = [name for name in missing if not self.answers(name)]
            for name in set(NAMES) - set(missing):
                self.states[name] = "up"
            if time.monotonic() > deadline:
                words = self._children.last_words(missing[0])
                raise ChildFailed(f"{', '.join(missing)} did not start; the last of {missing[0]}:\n{words}")
            self._tick()
        self.event(f"{len(NAMES)} services are up", "green")

    def _shop(self) -> None:
        """Open the door, and make trouble while the shoppers shop."""
        self._paths.door.touch()
        self._opened = time.monotonic()
        self.event(f"the shop opens for {self._options.shoppers} shoppers")
        plays = (killing, freezing, running_dry)
        scenes: list[Iterator[None]] = [play(self, self._plan, self._deeds) for play in plays]
        deadline = self._options.seconds + LAST_PAGE_S_MAX
        while (code := self._children.wait(SHOPPERS, 0)) is None and self.seconds() < deadline:
            for scene in scenes:
                next(scene, None)
            part = min(1.0, self.seconds() / self._options.seconds)
            self._phase("the shop is open", 0.2 + 0.5 * part)
            self._tick(but=SHOPPERS)
        if code != 0:
            raise ChildFailed(f"the shoppers ended with {code}:\n{self._children.last_words(SHOPPERS)}")
        self.event("the last shopper has left")

    def _come_to_rest(self, journals: Mapping[str, Journal]) -> None:
        """Wait until all is settled, stop the services, and let what they had set aside expire."""
        self._until(
            "settling", 0.7, SETTLE_S_MAX, lambda: all(_settled(journal) for journal in journals.values())
        )
        self._phase("stopping the services", 0.75)
        self._children.stop(*NAMES)
        self.states.update(dict.fromkeys(NAMES, "stopped"))
        self.event("the services have stopped; what they had set aside comes back when it expires")
        self._until("waiting for expiry", 0.8, EXPIRE_S_MAX, lambda: self._economy.expire() == 0)

    def _account(self, shopping_s: float, journals: Mapping[str, Journal]) -> Summary:
        self._phase("the auditor reads everything", 0.95)
        self._take_notes()
        evidence = gather(
            paths=self._paths,
            ledger=self._economy.ledger,
            journals=journals,
            passages=self._passages,
            offers=published(self._offers),
            minted=self._economy.minted,
            verify_findings=self._economy.verify(self._replaying),
        )
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
            shopping_s=shopping_s,
            total_s=time.monotonic() - self._began,
        )

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
        """Whether the service itself, not the wire before it, says what it offers."""
        connection = HTTPConnection("127.0.0.1", self._ports[service], timeout=PROBE_S_MAX)
        try:
            connection.request("GET", OFFERS)
            response = connection.getresponse()
            document = response.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        if response.status != 200:
            return False
        self._offers[service] = json.loads(document)
        return True

    def seen_dry(self) -> bool:
        return self._dry

    def govern(self, act: str, **argument: object) -> None:
        self._economy.governance.do(act, argument)

    # The loop

    def _phase(self, headline: str, part: float) -> None:
        self._headline, self._part = headline, part
        self._view.show(headline, part, self._rows())

    def _tick(self, *, but: str | None = None) -> None:
        """One turn of the loop: look after the children, take up what was noted, show it, and rest."""
        self._children.check(but=but)
        self._take_notes()
        self._view.show(self._headline, self._part, self._rows())
        time.sleep(TICK_S)

    def _until(self, headline: str, part: float, seconds: float, done: Callable[[], bool]) -> None:
        """Go on until ``done``; past ``seconds`` the auditor will find what is missing."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self._phase(headline, part)
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
        servers = {service.name: service for service in SERVICES}
        for name in (SHOPPER, *NAMES):
            balance = self._economy.balance(name) if self._view.watched else None
            rows.append(
                Row(
                    name=name,
                    served_by=_served_by(servers[name]) if name in servers else "",
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

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **SETTINGS,
            "TOKENMESH_HOME": str(self._paths.home),
            "TOKENMESH_SERVICE": name,
            "PYTHONUNBUFFERED": "1",
        }


def _command(service: Service, port: int) -> list[str]:
    python = [sys.executable, "-m"]
    if service.server == "uvicorn":
        options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
        return [*python, "uvicorn", service.app, *options]
    options = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8"]
    options += ["--workers", str(service.workers), "--log-level", "warning", "--graceful-timeout", "5"]
    return [*python, "gunicorn", service.app, *options]


def _served_by(service: Service) -> str:
    framework = {"uvicorn": "FastAPI", "gunicorn": "Flask"}[service.server]
    return f"{framework}, {service.workers} workers" if service.workers > 1 else framework


def _settled(journal: Journal) -> bool:
    return run(wait(journal.stats())).unsettled == 0

"""A load of calls on a real network, while everything that can be killed is killed, and the rules change.

The payer and the payee are processes of their own, started again when they end, as a supervisor would do it.
What is counted is counted outside of the product: runs of the handler, and responses that the payer has
seen.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.homes import TESTS, Supervised, server_command, until
from support.load_payer import CALLERS
from support.loaded_payee import PRICE
from support.servers import free_port
from tokenmesh.cli.rules import CHAINCODE, deploy_rules
from tokenmesh.fabric.network import Network
from tokenmesh.ledger.fabric.verify_url import verify_url

MORE = 12
"""Jobs of every caller that must be done after each disturbance."""
SECONDS = 90.0


class Load:
    """A payer and a payee at work on ``network``."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.url = f"fabric:///{network.layout.profile}?channel=mesh"
        self.cli = Cli(folder / "home")
        port = free_port()
        self._at = f"http://127.0.0.1:{port}"
        self.govern("init", "--supply", "1000000")
        self.govern("wallet", "create", "payee", "--url", self._at)
        self.govern("wallet", "create", "payer", "--tokens", "500000")
        command = server_command("fastapi", "support.loaded_payee", port)
        self.payee = Supervised(command, self._environment("payee"), folder / "payee.log")
        self.payee.wait_until_listening(port)
        payer = [sys.executable, str(TESTS / "support" / "load_payer.py"), self._at, str(folder)]
        self.payer = Supervised(payer, self._environment("payer"), folder / "payer.log")

    def _environment(self, service: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMESH_")}
        return {
            **own,
            "PYTHONPATH": str(TESTS),
            "TOKENMESH_HOME": str(self.cli.home),
            "TOKENMESH_SERVICE": service,
            "TOKENMESH_LEDGER": self.url,
            "TOKENMESH_SETTLE_INTERVAL_S": "0.2",
            "TOKENMESH_ALLOWANCE_CALLS": "50",
            "TOKENMESH_LEASE_S": "1",
            "RUNS": str(self.folder / "runs"),
        }

    def govern(self, *arguments: str) -> str:
        return self.cli(*arguments, "--ledger", self.url)

    def done(self) -> list[list[list[str]]]:
        """What each caller has noted: number, charged, contract."""
        files = [self.folder / f"done-{number}" for number in range(CALLERS)]
        texts = [file.read_text() if file.exists() else "" for file in files]
        return [[line.split() for line in text[: text.rfind("\n") + 1].splitlines()] for text in texts]

    def goes_on(self, what: str) -> None:
        """Every caller does several more jobs; or the test fails."""
        wanted = [len(jobs) + MORE for jobs in self.done()]

        def went_on() -> bool:
            return all(len(jobs) >= count for jobs, count in zip(self.done(), wanted, strict=True))

        try:
            until(went_on, f"the load goes on {what}", SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._tail()}") from None

    def _tail(self) -> str:
        logs = [self.folder / "payee.log", self.folder / "payer.log"]
        return "\n".join(log.read_text()[-1500:] for log in logs if log.exists())

    def finish(self) -> None:
        """Let the payer come to its end."""
        (self.folder / "stop").touch()
        self.payer.finish(SECONDS)

    def total(self, name: str) -> int:
        return int(self.cli.json("balance", name, "--ledger", self.url)["total"])

    def check(self) -> None:
        """All that was acknowledged is paid, once; nothing ran twice; no token is lost; blocks prove it."""
        jobs = [job for caller in self.done() for job in caller]
        assert {charged for _, charged, _ in jobs} == {str(PRICE)}
        contracts = Counter(contract for _, _, contract in jobs)
        assert set(contracts.values()) == {1}
        for caller in self.done():
            assert [int(number) for number, _, _ in caller] == list(range(len(caller)))
        runs = Counter((self.folder / "runs").read_text().split())
        assert set(runs.values()) == {1}, runs.most_common(3)
        assert contracts.keys() <= runs.keys()
        earned = PRICE * len(jobs)
        until(lambda: self.total("payee") == earned, f"the payee has {earned}: {self._tail()}", SECONDS)
        assert self.total("payer") == 500_000 - earned
        verified, _ = verify_url(self.url, self.cli.home)
        assert verified.report.findings == []

    def close(self) -> None:
        self.payer.stop()
        self.payee.stop()


@pytest.fixture
def load(home: Path, tmp_path: Path) -> Iterator[Load]:
    network = Network(home, batch_timeout_ms=50)
    network.up()
    deploy_rules(network)
    load = Load(network, tmp_path)
    try:
        yield load
    finally:
        load.close()


@pytest.mark.slow
def test_whatever_is_killed_the_load_goes_on_and_nothing_is_lost_or_paid_twice(load: Load) -> None:
    """A peer, the orderer, the chaincode, the payee and the payer, in turn, by SIGKILL."""
    load.goes_on("at all")
    nodes = ("peer0.services", "peer0.governance", "orderer0.governance", f"chaincode.{CHAINCODE}.services")
    for node in nodes:
        load.network.kill(node)
        load.network.start(node)
        load.goes_on(f"without {node} for a while")
    kills: list[tuple[str, Callable[[], None]]] = [("payee", load.payee.kill), ("payer", load.payer.kill)]
    for name, kill in kills:
        kill()
        load.goes_on(f"after the {name} was killed")
    load.finish()
    load.check()


@pytest.mark.slow
def test_rules_and_policy_change_while_calls_go_on(load: Load) -> None:
    """Another version of the chaincode, agreed on by all, and another policy: none lost, none wrong."""
    load.goes_on("at all")
    load.network.upgrade(CHAINCODE, version="another")
    load.goes_on("with another version of the rules")
    load.govern("policy", "set", "grace_s=120", "--rule", "allow", "payer", "payee", "*", "default=deny")
    load.goes_on("with another policy")
    load.finish()
    load.check()

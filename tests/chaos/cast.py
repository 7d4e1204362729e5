"""Everyone who takes part in a run, each a process of its own, and what can be done to them.

Payers, payee and governance are started again as soon as they end, as a supervisor would; a node of the
network stays away for a while. Should the run itself be gone, the demo's warden kills whoever is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.grounds import Ground

from support.homes import TESTS, Supervised, server_command
from tokenmesh.cli.demo import warden
from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network import Network, processes

WORKERS = 2
PAYERS = {"alice-1": "alice", "alice-2": "alice", "bob-1": "bob"}
"""Each paying process, and whose wallet it pays from."""
SETTINGS = {
    "TOKENMESH_ALLOWANCE_CALLS": "40",
    "TOKENMESH_ALLOWANCE_TTL_S": "20",
    "TOKENMESH_HOLD_TTL_S": "10",
    "TOKENMESH_LEASE_S": "2",
    "TOKENMESH_SETTLE_BACKOFF_S_MAX": "1",
    "TOKENMESH_SETTLE_INTERVAL_S": "0.2",
    "TOKENMESH_SWEEP_INTERVAL_S": "1",
    "TOKENMESH_TIMEOUT_S": "3",
}
"""Short times, so that leases and holds run out, and allowances are opened anew many times in a minute."""
FINISH_S_MAX = 300.0
STARTS_MAX = 3


class Warden:
    """Kills the process groups and the network it was told of, once this process is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", warden.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def group(self, pid: int) -> None:
        self._tell(f"+{pid}")

    def network(self, home: Path) -> None:
        self._tell(f"={home}")

    def close(self) -> None:
        """Everything is ended already, or ends now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


class Cast:
    """All processes of a run. Closing it ends them, whatever state they are in."""

    def __init__(self, ground: Ground, framework: str, port: int, started: Callable[[int], None]) -> None:
        self._ground = ground
        self._folder = ground.folder
        self._framework = framework
        self._port = port
        self._started = started
        self._supervised: dict[str, Supervised] = {}
        self._nodes = threading.Lock()
        """A network is worked on by one at a time."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def victims(self) -> dict[str, str]:
        """Everyone who can be attacked, each with what it is part of."""
        workers = {f"payee worker {number}": "payee" for number in range(1, WORKERS + 1)}
        own = {name: name for name in (*PAYERS, "governor")}
        return {**own, "payee": "payee", **workers, **self._ground.nodes}

    @property
    def nodes(self) -> Collection[str]:
        """Those among them that are nodes of a network."""
        return self._ground.nodes

    def start(self) -> None:
        """Start everyone; the payee first, as it takes longest."""
        command = server_command(self._framework, "chaos.payee", self._port, WORKERS)
        payee = self._start("payee", "payee", command)
        payee.wait_until_listening(self._port)
        python = [sys.executable, "-m"]
        folder = str(self._folder.path)
        for name, wallet in PAYERS.items():
            self._start(name, wallet, [*python, "chaos.payer", name, self.url, folder])
        payers = sorted(set(PAYERS.values()))
        self._start("governor", "governance", [*python, "chaos.governor", self._ground.url, folder, *payers])

    def _start(self, name: str, wallet: str, command: list[str]) -> Supervised:
        log = self._folder.log(name)
        process = Supervised(command, self._environment(wallet), log, started=self._started)
        self._supervised[name] = process
        return process

    def _environment(self, wallet: str) -> Mapping[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMESH_")}
        return {
            **own,
            **SETTINGS,
            "CHAOS_FOLDER": str(self._folder.path),
            "PYTHONPATH": str(TESTS),
            "PYTHONUNBUFFERED": "1",
            "TOKENMESH_HOME": str(self._folder.home),
            "TOKENMESH_LEDGER": self._ground.url,
            "TOKENMESH_SERVICE": wallet,
        }

    # What can be done to them

    def attack(self, victim: str, number: signal.Signals) -> list[int]:
        """Send a signal; the pids that got it, of which there may be none: it may be starting just now."""
        if victim in self._ground.nodes:
            return self._signal_node(victim, number)
        if victim.startswith("payee worker "):
            return _send(os.kill, self._worker(int(victim.rpartition(" ")[2])), number)
        return _send(os.killpg, [self._supervised[victim].pid], number)

    def go_on(self, victim: str, pids: Iterable[int]) -> None:
        """Wake who was stopped, and start the node that was killed."""
        network = self._ground.network
        if victim in self._ground.nodes and network is not None:
            self._signal_node(victim, signal.SIGCONT)
            with self._nodes:
                _start(network, victim)
            return
        kill = os.kill if victim.startswith("payee worker ") else os.killpg
        _send(kill, pids, signal.SIGCONT)

    def _signal_node(self, name: str, number: signal.Signals) -> list[int]:
        assert self._ground.network is not None
        process = processes.running(name, self._ground.network.layout.run)
        return [] if process is None else _send(os.kill, [process.pid], number)

    def _worker(self, number: int) -> list[int]:
        """The pid of one of the payee's workers: they are their master's children, oldest first."""
        master = self._supervised["payee"].pid
        with suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            workers = [int(child) for child in children if _is_worker(int(child))]
            return workers[number - 1 : number]
        return []

    # How it ends

    def finish(self) -> list[str]:
        """Let payers and governance come to their end by themselves; who did not, with its last words."""
        self._folder.stop.touch()
        stuck = []
        for name in (*PAYERS, "governor"):
            try:
                self._supervised[name].finish(FINISH_S_MAX)
            except AssertionError as error:
                stuck.append(f"{name} did not come to its end: {str(error)[-600:]}")
        return stuck

    def stop_payee(self) -> None:
        self._supervised["payee"].stop()

    def close(self) -> None:
        for process in self._supervised.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            process.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(network: Network, node: str) -> None:
    """Start a node; again if it takes too long, as it may while what it depends on is away."""
    for attempt in range(STARTS_MAX):
        try:
            network.start(node)
        except NetworkError:
            if attempt + 1 == STARTS_MAX:
                raise
        else:
            return


def _is_worker(pid: int) -> bool:
    """uvicorn has a child more, which only keeps count of semaphores."""
    return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def _send(kill: Callable[[int, int], None], pids: Iterable[int], number: signal.Signals) -> list[int]:
    reached = []
    for pid in pids:
        with suppress(ProcessLookupError):
            kill(pid, number)
            reached.append(pid)
    return reached

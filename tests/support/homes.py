"""A whole home for tests with real processes: keys in files, a ledger, wallets with tokens, and its books."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.servers import wait_until_listening
from tokenmesh.identity import CertificateAuthority, Wallet, wallet_path
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import Operation, new_id, sign
from tokenmesh_chaincode.rules import default_policy

GOVERNANCE = "governance"
SUPPLY = 1_000_000
TESTS = Path(__file__).parent.parent


class Home:
    """A domain in a directory; governance acts through it.

    With another ``ledger`` it is a second domain in the same directory: the same keys, tokens of its own.
    """

    def __init__(self, path: Path, ledger: str = "ledger.db", **policy: Any) -> None:
        self.path = path
        self.url = f"sqlite:///{path / ledger}"
        if wallet_path(path, GOVERNANCE).exists():
            self.authority = CertificateAuthority.load(path)
            self.governance = Wallet.load(path, GOVERNANCE)
        else:
            self.authority = CertificateAuthority.create(path)
            self.governance = Wallet.create(path, GOVERNANCE, self.authority, "governor")
        self.ledger = EmbeddedLedger.create(
            path / ledger,
            self.governance,
            ca=[self.authority.certificate_pem],
            governors={GOVERNANCE: self.governance.certificate_pem},
            policy={**default_policy(), **policy},
            nonce=new_id(),
        )
        self.do("mint", {"tokens": SUPPLY})

    def do(self, act: str, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Have an operation of governance done, which must end well."""
        now = int(time.time())
        body = Operation(self.ledger.domain, GOVERNANCE, new_id(), now, now + 60, act, dict(argument))
        outcome = self.ledger.submit([sign(body, self.governance)]).result(30)[0].outcome
        assert outcome.ok, outcome
        return outcome.detail

    def open_wallet(self, name: str, tokens: int = 0, url: str | None = None) -> Wallet:
        known = wallet_path(self.path, name).exists()
        wallet = Wallet.load(self.path, name) if known else Wallet.create(self.path, name, self.authority)
        record = {"name": name, "cert": wallet.certificate_pem, "role": "service", "url": url}
        self.do("register", record)
        if tokens:
            self.do("grant", {"to": name, "tokens": tokens})
        return wallet

    def total(self, name: str) -> int:
        """All tokens of a wallet, wherever they are."""
        return sum(self.ledger.balance(name).result(30))

    def environment(self, service: str, **more: object) -> dict[str, str]:
        """What a process of ``service`` needs in its environment."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMESH_")}
        given = {name: str(value) for name, value in more.items()}
        python = {"PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"}
        mine = {"TOKENMESH_HOME": str(self.path), "TOKENMESH_SERVICE": service}
        return {**own, **python, **mine, **given}


def server_command(framework: str, module: str, port: int, workers: int = 1) -> list[str]:
    """A real server for ``module:flask_app`` or ``module:fastapi_app``."""
    python = [sys.executable, "-m"]
    if framework == "flask":
        options = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "16"]
        return [*python, "gunicorn", f"{module}:flask_app", *options, "--workers", str(workers)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    workers_option = ["--workers", str(workers)] if workers > 1 else []
    return [*python, "uvicorn", f"{module}:fastapi_app", *options, *workers_option]


class Supervised:
    """A process that is started again whenever it ends, as a supervisor would."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        started: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """``started`` is told the pid, which is the group's too, at every start."""
        self.starts = 0
        self._started = started
        self._command = command
        self._environment = environment
        self._log = log
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._started(process.pid)
        return process

    @property
    def pid(self) -> int:
        """The process as it is now; its group has the same number."""
        return self._process.pid

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._process.wait()
            if not self._stopping.is_set():
                self._process = self._start()

    def wait_until_listening(self, port: int) -> None:
        wait_until_listening(port, self._process, self._log)

    def kill(self) -> None:
        """Kill it, and everything it started, as a crash would; it is started again."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self, seconds: float) -> None:
        """Wait until it has ended by itself, and well; it is not started again."""
        self._stopping.set()
        self._thread.join(seconds)
        assert self._process.poll() == 0, self._log.read_text()[-4000:]

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it, and everything it started."""
        self._stopping.set()
        try:
            os.killpg(self._process.pid, how)
        except ProcessLookupError:
            return
        finally:
            self._thread.join(30)


@contextmanager
def served(command: list[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[Supervised]:
    """A supervised server that listens."""
    process = Supervised(command, environment, log)
    try:
        process.wait_until_listening(port)
        yield process
    finally:
        process.stop()


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Return once ``condition`` holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.05)

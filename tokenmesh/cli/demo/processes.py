"""The demo's child processes: started side by side, killed on purpose, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tokenmesh.cli.demo import warden
from tokenmesh.cli.demo.exporting import VARIABLE

PORTS = range(20_000, 32_000)
"""Below the ports that the system gives to outgoing connections: none of those may take the port of a
service while it is down."""
PORT_TRIES_MAX = 1_000
STOP_S_MAX = 6.0
LOG_LINES_SHOWN = 15


class ChildFailed(Exception):
    """A child ended though it should run; the message holds the last lines of its log."""


def free_ports(count: int, choose: Callable[[Sequence[int]], int]) -> list[int]:
    """So many ports of 127.0.0.1 that nobody listens on; ``choose`` picks one of a range."""
    found: list[int] = []
    for _ in range(PORT_TRIES_MAX):
        if len(found) == count:
            return found
        port = choose(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    raise ChildFailed(f"no {count} free ports between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def _inherited() -> dict[str, str]:
    """The user's environment without what would change the demo: settings of tokenmesh, of the servers, and
    proxies, which would stand between services of one host."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TOKENMESH_", "GUNICORN_", "UVICORN_", "FLASK_"))
        and name not in ("WEB_CONCURRENCY", VARIABLE)
        and not name.lower().endswith("_proxy")
    }


class Children:
    """All children of one demo. As a context manager it stops them at the end, whatever the end is."""

    def __init__(self, home: Path, log: Callable[[str], Path]) -> None:
        """Children work in ``home``, so nothing that lies where the user stands gets into them."""
        self._home = home
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
        self._warden: subprocess.Popen[str] | None = None

    def __enter__(self) -> Children:
        self._warden = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-S", warden.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(seconds=STOP_S_MAX if kind is None else 1.0)
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            self._warden.wait()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a child in a process group of its own; what it says goes into its log."""
        path = self._log(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - commands of our own plan
                command,
                cwd=self._home,
                env={**_inherited(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = process
        self._starts[name] = command, environment
        self._tell_warden(f"+{process.pid}")

    def guard(self, network: Path) -> None:
        """Should the demo be gone before its Fabric network below ``network``, the nodes are killed, too."""
        self._tell_warden(f"={network}")

    def restart(self, name: str) -> None:
        """Start a child again with the very same command."""
        self.start(name, *self._starts[name])

    def kill(self, name: str) -> None:
        """SIGKILL for a child and all of its workers: no goodbye, no flush."""
        process = self._running.pop(name)
        self._signal(process, signal.SIGKILL)
        process.wait()
        self._tell_warden(f"-{process.pid}")

    def check(self, *, but: str | None = None) -> None:
        """:class:`ChildFailed` if a child, other than ``but``, ended that should run."""
        for name, process in self._running.items():
            if name != but and process.poll() is not None:
                raise ChildFailed(
                    f"{name} ended with {process.returncode}; the end of its log:\n{self.last_words(name)}"
                )

    def last_words(self, name: str) -> str:
        """The last lines of a child's log."""
        path = self._log(name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:]) or "  (nothing)"

    def wait(self, name: str, seconds: float) -> int | None:
        """Wait for a child to end by itself; its exit code, None if it still runs."""
        process = self._running[name]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._forget(name)
        return code

    def stop(self, *names: str, seconds: float = STOP_S_MAX) -> None:
        """SIGTERM for the named children, or all; SIGKILL for what is still there after ``seconds``."""
        leaving = {name: self._running[name] for name in names or tuple(self._running)}
        for process in leaving.values():
            self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for name, process in leaving.items():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Its workers may outlive it: the group goes as a whole.
            self._signal(process, signal.SIGKILL)
            process.wait()
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._tell_warden(f"-{self._running.pop(name).pid}")

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def _tell_warden(self, line: str) -> None:
        pipe: IO[str] | None = self._warden.stdin if self._warden else None
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.write(line + "\n")
                pipe.flush()

"""Processes that outlive whoever started them: started, recognised, stopped.

A pid file holds the pid and the moment the process started. Pids are given again, moments are not: after a
SIGKILL or a reboot, a file that is left over never makes a stranger look like a node, or be stopped for one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tokenmesh.fabric.errors import NodeFailed
from tokenmesh.fabric.files import write_private

POLL_S = 0.02
STOP_S = 10.0
"""How long a process may take to end on SIGTERM before it is killed."""
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16_384


class Running(NamedTuple):
    """A process that is certainly the one that was started."""

    pid: int
    memory_bytes: int


def start(
    name: str, command: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path, run: Path
) -> int:
    """Start ``command`` in ``folder``, detached, its output going to ``log``; note it in ``run/NAME.pid``."""
    # A shell in between that ends at once: the process is nobody's child, and leaves no zombie behind.
    done = subprocess.run(
        ["/bin/sh", "-c", 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!', "sh", str(log), *command],
        cwd=folder,
        env=dict(environ),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    pid = int(done.stdout)
    write_private(run / f"{name}.pid", json.dumps({"pid": pid, "started": _started(pid)}))
    return pid


def running(name: str, run: Path) -> Running | None:
    """The process of that name, or None if it is not there (any more)."""
    noted = _noted(run / f"{name}.pid")
    if noted is None or noted[1] is None or _started(noted[0]) != noted[1]:
        return None
    return Running(noted[0], _memory(noted[0]))


def was_started(name: str, run: Path) -> bool:
    """Whether a process of that name was started and not stopped: if it isn't running now, it crashed."""
    return (run / f"{name}.pid").exists()


def stop(names: Sequence[str], run: Path, *, within_s: float = STOP_S) -> list[str]:
    """Stop these processes, all at once; the answer names those that had to be killed."""
    for name in names:
        send(name, run, signal.SIGTERM)
    deadline = time.monotonic() + within_s
    stubborn = [name for name in names if not _gone(name, run, deadline)]
    for name in stubborn:
        kill(name, run)
    for name in names:
        (run / f"{name}.pid").unlink(missing_ok=True)
    return stubborn


def rename(name: str, to: str, run: Path) -> None:
    """Let a process be known by another name from now on."""
    (run / f"{name}.pid").replace(run / f"{to}.pid")


def kill(name: str, run: Path) -> None:
    """SIGKILL: the process has no time for anything. Its pid file stays, as after a crash."""
    send(name, run, signal.SIGKILL)
    _gone(name, run, time.monotonic() + STOP_S)


def send(name: str, run: Path, number: signal.Signals) -> None:
    process = running(name, run)
    if process is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_until(
    ready: Callable[[], bool], what: str, *, name: str, run: Path, log: Path, within_s: float
) -> None:
    """Wait until ``ready()``; :class:`NodeFailed`, with the end of the log, if that can't be any more."""
    deadline = time.monotonic() + within_s
    while not ready():
        if running(name, run) is None:
            raise NodeFailed(f"{name} ended before {what}; the end of {log}:", node=name, log=tail(log))
        if time.monotonic() > deadline:
            raise NodeFailed(
                f"{name}: not {what} within {within_s:.0f} s; the end of {log}:", node=name, log=tail(log)
            )
        time.sleep(POLL_S)


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])


def _gone(name: str, run: Path, deadline: float) -> bool:
    while running(name, run) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _noted(path: Path) -> tuple[int, str | None] | None:
    try:
        kept = json.loads(path.read_text())
        return int(kept["pid"]), kept["started"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _started(pid: int) -> str | None:
    """When the process started, in the system's own terms, and since which boot; None if it has ended."""
    process = Path(f"/proc/{pid}")
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        # A zombie with threads left is still ending: until the last is gone it has its ports and files.
        if fields[0] in ("Z", "X") and len(list((process / "task").iterdir())) <= 1:
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() else _started_by_ps(pid)
    return f"{boot} {fields[19]}"


def _started_by_ps(pid: int) -> str | None:
    """The same where there is no /proc."""
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _memory(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Ports and processes of the tests' own servers, on loopback only."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_listening(
    port: int, process: subprocess.Popen[bytes], log: Path | None = None, seconds: float = 30
) -> None:
    """Return once something listens on the port; fail with the log if the process ends before."""
    deadline = time.monotonic() + seconds
    while not listens(port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = log.read_text()[-4000:] if log else ""
            raise AssertionError(f"nothing listens on {port} ({'ended' if ended else 'too slow'})\n{said}")
        time.sleep(0.02)

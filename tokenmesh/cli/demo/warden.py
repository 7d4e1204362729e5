"""Kills the demo's children if the demo itself is gone: no orphans, even after SIGKILL.

Reads the process groups of the children from its standard input, one ``+GROUP`` or ``-GROUP`` a line; and
``=FOLDER``, where the demo may have a Fabric network, whose nodes note their pids in ``run``. The other end
of that pipe belongs to the demo: when it closes, the demo has ended, one way or another. Run by its path,
with nothing of ours imported, so that it stands ready in milliseconds.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def watch(lines: Iterable[str]) -> None:
    """Keep the list until the lines end, then kill every group that is still on it."""
    groups: set[int] = set()
    networks: set[Path] = set()
    for line in lines:
        kind, what = line[0], line[1:].rstrip("\n")
        if kind == "=":
            networks.add(Path(what))
        elif kind == "+":
            groups.add(int(what))
        else:
            groups.discard(int(what))
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for network in networks:
        for note in network.glob("run/*.pid"):
            _kill_node(note, network)


def _kill_node(note: Path, network: Path) -> None:
    """Kill the process that a pid file names, if it certainly is a node: nodes work below their network."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        pid = int(json.loads(note.read_text())["pid"])
        if Path(f"/proc/{pid}/cwd").readlink().is_relative_to(network.resolve()):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    # The demo decides when a Ctrl-C ends it; the warden is there for what comes after.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(sys.stdin)

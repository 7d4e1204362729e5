"""Kills the demo's children if the demo itself is gone: no orphans, even after SIGKILL.

Reads the process groups of the children from its standard input, one ``+GROUP`` or ``-GROUP`` a line. The
other end of that pipe belongs to the demo: when it closes, the demo has ended, one way or another. Run by
its path, with nothing of ours imported, so that it stands ready in milliseconds.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def watch(lines: Iterable[str]) -> None:
    """Keep the list until the lines end, then kill every group that is still on it."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    # The demo decides when a Ctrl-C ends it; the warden is there for what comes after.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(sys.stdin)

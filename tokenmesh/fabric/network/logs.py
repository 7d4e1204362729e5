"""Logs with a limit: a small watcher cuts them while the network runs.

Nodes write to their logs by themselves. The watcher is no pipe that they would depend on: when it dies, the
nodes go on and only their logs grow, until the next ``up`` starts it again.
"""

from __future__ import annotations

import os

from tokenmesh.fabric.network import processes
from tokenmesh.fabric.network.layout import Layout

LOG_BYTES_MAX = 8 * 2**20
"""A log that grows past this is cut: its last quarter is kept in ``NAME.log.old``."""
WATCH_S = 5
NAME = "log-watcher"
SCRIPT = """
while sleep "$3"; do
  [ -d "$1" ] || exit 0
  for log in "$1"/*.log; do
    size=$(wc -c <"$log" 2>/dev/null) || continue
    if [ "$size" -gt "$2" ]; then tail -c $(($2 / 4)) "$log" >"$log.old"; : >"$log"; fi
  done
done
"""


def keep_short(layout: Layout, *, bytes_max: int = LOG_BYTES_MAX, watch_s: float = WATCH_S) -> None:
    """Start the watcher of a network's logs, unless it runs."""
    if processes.running(NAME, layout.run) is not None:
        return
    folder = layout.home / "logs"
    processes.start(
        NAME,
        ["/bin/sh", "-c", SCRIPT, NAME, str(folder), str(bytes_max), str(watch_s)],
        environ={"PATH": os.environ.get("PATH", os.defpath)},
        folder=layout.home,
        log=layout.run / "log-watcher.txt",
        run=layout.run,
    )


def stop_keeping(layout: Layout) -> None:
    processes.stop([NAME], layout.run)

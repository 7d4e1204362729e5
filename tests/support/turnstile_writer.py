"""A process that writes to a file as fast as the turnstile lets it."""

from __future__ import annotations

import random
import sqlite3
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tokenmesh.ledger.turnstile import Turnstile


def write(path: Path, writer: int, rounds: int, start: Barrier) -> None:
    """Write ``rounds`` times without a pause: whoever has written would like to go on at once."""
    turnstile = Turnstile(path, busy_s_max=30, random=random.Random(writer))
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    start.wait(30)
    for _ in range(rounds):
        turnstile.begin(connection)
        connection.execute("INSERT INTO turns VALUES (?)", (writer,))
        time.sleep(0.001)  # the work of a batch
        connection.execute("COMMIT")
    connection.close()
    turnstile.close()

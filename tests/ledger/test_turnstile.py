"""The turnstile: writers on one file take turns, wait a bounded time, and never see "database is locked"."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
from collections import Counter

import pytest

from support.turnstile_writer import write
from tokenmesh.errors import LedgerUnavailable
from tokenmesh.ledger.turnstile import Turnstile

WRITERS = 4
ROUNDS = 60


def connect(path):
    return sqlite3.connect(path, timeout=0, isolation_level=None)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.db"
    connection = connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE turns (writer INTEGER)")
    connection.close()
    return path


def test_writers_take_turns(path):
    """Four processes that all write without a pause all get on, and none is starved: when the first has
    finished, each other has done at least half of its work. (SQLite's own waiting starves them.)"""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(WRITERS)
    processes = [context.Process(target=write, args=(path, n, ROUNDS, start)) for n in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    turns = [writer for (writer,) in connect(path).execute("SELECT writer FROM turns ORDER BY rowid")]
    assert len(turns) == WRITERS * ROUNDS
    done = Counter[int]()
    for writer in turns:
        done[writer] += 1
        if done[writer] == ROUNDS:
            break
    assert len(done) == WRITERS
    assert min(done.values()) >= ROUNDS / 2, done


def test_waiting_is_bounded(path):
    """A file held by someone for longer than busy_s_max is unavailable; the message names the limit."""
    holder = connect(path)
    holder.execute("BEGIN IMMEDIATE")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    turnstile = Turnstile(path, busy_s_max=5, random=random.Random(1), clock=lambda: now[0], sleep=sleep)
    connection = connect(path)
    with pytest.raises(LedgerUnavailable, match="ledger_busy_s_max"):
        turnstile.begin(connection)
    assert 5 <= now[0] < 5.1
    holder.execute("COMMIT")
    turnstile.begin(connection)
    connection.execute("ROLLBACK")
    turnstile.close()


def test_one_who_stands_in_line_and_is_stopped_blocks_nobody(path):
    """The line is courtesy: past its limit the file itself is tried, so a stopped process only delays."""
    stopped = Turnstile(path, busy_s_max=5, random=random.Random(1))
    assert stopped._enter()
    turnstile = Turnstile(path, busy_s_max=5, random=random.Random(2))
    connection = connect(path)
    turnstile.begin(connection)
    connection.execute("ROLLBACK")
    stopped.close()
    turnstile.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_holds_no_place_in_line(path):
    """A lock inherited by a forked child would outlive its process: the child gives it back."""
    turnstile = Turnstile(path, busy_s_max=5, random=random.Random(1))
    assert turnstile._enter()
    up, here = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.write(here, b"x")
        os.read(wait, 1)  # live until the parent has looked
        os._exit(0)
    os.read(up, 1)
    turnstile.close()
    other = Turnstile(path, busy_s_max=5, random=random.Random(2))
    assert other._enter()
    os.close(go)
    os.waitpid(child, 0)
    other.close()


def test_other_errors_are_not_waited_for(tmp_path):
    """Only a busy file is worth waiting for."""
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"not a database, not even nearly" * 100)
    turnstile = Turnstile(bad, busy_s_max=5, random=random.Random(1))
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        turnstile.begin(connect(bad))
    turnstile.close()

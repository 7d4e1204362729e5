"""One ledger file and many processes: at once, killed, without room, without rights."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from support.ledger_processes import (
    use_without_rights,
    write_beside_others,
    write_until_killed,
    write_with_little_room,
)
from support.ledgers import make_ledger, now_of
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.verify import verify_ledger

SPAWN = multiprocessing.get_context("spawn")
PROCESSES, THREADS, EACH = 4, 4, 15
JOIN_S = 90


def test_many_processes_write_at_once(tmp_path):
    """Four processes, four threads each, as fast as they go: nobody meets an error, every transfer is there,
    each transaction is signed by the wallet whose process wrote it, and the whole ledger holds."""
    names = [f"service-{n}" for n in range(PROCESSES)]
    domain = make_ledger(tmp_path, {**dict.fromkeys(names, 1_000), "payee": 0})
    start = SPAWN.Barrier(PROCESSES)
    processes = [
        SPAWN.Process(
            target=write_beside_others,
            args=(domain.ledger.path, domain.wallets.save(name), "payee", THREADS, EACH, start),
        )
        for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(JOIN_S)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    for name in names:
        assert domain.balance(name).spendable == 1_000 - THREADS * EACH
    assert domain.balance("payee").credits == PROCESSES * THREADS * EACH
    transfers = Counter[str]()
    after = 0
    while page := now_of(domain.ledger.transactions(after=after)):
        after = page[-1].number
        for transaction in page:
            for operation in transaction.operations:
                if operation.act == "transfer":
                    assert operation.issuer == transaction.signer
                    transfers[operation.issuer] += 1
    assert transfers == Counter(dict.fromkeys(names, THREADS * EACH))
    domain.ledger.close()
    report = verify_ledger(domain.ledger.path)
    assert report.findings == []


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_nothing_acknowledged(tmp_path, seed):
    """SIGKILL at any moment: what was acknowledged is there, once; what was submitted and not answered is
    there once or not at all, and submitting it again settles which; others go on writing at once."""
    domain = make_ledger(tmp_path, {"service-a": 100_000, "payee": 0})
    notes, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(
        target=write_until_killed,
        args=(domain.ledger.path, domain.wallets.save("service-a"), "payee", 8, theirs),
    )
    process.start()
    theirs.close()
    submitted, acknowledged = set(), set()
    enough = random.Random(seed).randrange(20, 200)
    with notes:
        while True:
            try:
                kind, text = notes.recv()
            except EOFError:
                break
            assert kind in ("submitted", "ok")
            (submitted if kind == "submitted" else acknowledged).add(text)
            if len(acknowledged) == enough:
                process.kill()
    process.join(JOIN_S)
    assert len(acknowledged) >= enough
    before = domain.balance("payee").credits
    assert len(acknowledged) <= before <= len(submitted)
    domain.do("service-a", "transfer", {"to": "payee", "tokens": 1})
    again: list[Future[list[Result]]] = [domain.ledger.submit([text]) for text in submitted]
    assert all(now_of(future)[0].outcome.ok for future in again)
    assert domain.balance("payee").credits == len(submitted) + 1
    domain.ledger.close()
    assert verify_ledger(domain.ledger.path).ok


@pytest.mark.parametrize("room", [0, 60_000, 300_000])
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, room):
    """When the file cannot grow, what was acknowledged stays, the error says why, and with room again the
    same process goes on."""
    domain = make_ledger(tmp_path, {"service-a": 100_000, "payee": 0})
    answers, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(
        target=write_with_little_room,
        args=(domain.ledger.path, domain.wallets.save("service-a"), "payee", room, theirs),
    )
    process.start()
    theirs.close()
    error, message, done, again = answers.recv()
    process.join(JOIN_S)
    assert error == "LedgerUnavailable"
    assert "cannot grow" in message
    assert "nothing happened" in message
    assert again == "ok"
    assert domain.balance("payee").credits == done + 1
    domain.ledger.close()
    assert verify_ledger(domain.ledger.path).ok


def test_without_the_right_to_write_one_can_read(tmp_path):
    """Somebody who may only read the file gets answers; what it submits is refused with what to do."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        domain = make_ledger(directory, {"service-a": 10, "payee": 0})
        identity = domain.wallets.save("service-a")
        path = domain.ledger.path
        for file in directory.glob("ledger.db*"):
            file.chmod(0o444)
        directory.chmod(0o555)
        answers, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=use_without_rights, args=(path, identity, "payee", theirs))
        process.start()
        theirs.close()
        read, error, message = answers.recv()
        process.join(JOIN_S)
        directory.chmod(0o755)
        assert read == 10
        assert error == "LedgerUnavailable"
        assert "read-only" in message
        assert domain.balance("payee").credits == 0
        domain.ledger.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_ledger_alone(tmp_path):
    """After a fork the child is told to open its own, and its closing does not disturb the parent."""
    domain = make_ledger(tmp_path)
    child = os.fork()
    if child == 0:
        error = domain.ledger.submit(["anything"]).exception(0)
        asked = domain.ledger.policy().exception(0)
        domain.ledger.close()
        os._exit(0 if "fork" in str(error) and "fork" in str(asked) else 1)
    assert os.waitpid(child, 0)[1] == 0
    domain.do("service-a", "transfer", {"to": "service-b", "tokens": 1})
    domain.ledger.close()
    assert verify_ledger(domain.ledger.path).ok


def test_a_copy_of_the_files_is_a_ledger(tmp_path):
    """What lies on the disk at any moment, copied as after a power cut, opens and holds."""
    domain = make_ledger(tmp_path)
    for tokens in range(1, 20):
        domain.do("service-a", "transfer", {"to": "service-b", "tokens": tokens})
    copy = tmp_path / "copy"
    copy.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{domain.ledger.path}{end}", copy)
    with closing(sqlite3.connect(copy / "ledger.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM operations WHERE act = 'transfer'").fetchone()
    assert count == 19
    assert verify_ledger(copy / "ledger.db").ok
    domain.ledger.close()

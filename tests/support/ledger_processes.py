"""Processes that write to a ledger on their own: to run beside others, and to be killed."""

from __future__ import annotations

import os
import resource
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from support.wallets import load
from tokenmesh.errors import LedgerError
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import Operation, Signer, new_id, sign

ANSWER_S = 60.0
NOBODY = 65534


def transfer(ledger: EmbeddedLedger, signer: Signer, to: str, tokens: int, jti: str) -> str:
    """The document of a transfer."""
    now = int(time.time())
    arg = {"to": to, "tokens": tokens}
    return sign(Operation(ledger.domain, signer.name, jti, now, now + 300, "transfer", arg), signer)


def write_beside_others(path: Path, identity: Path, to: str, threads: int, each: int, start: Barrier) -> None:
    """Make ``threads`` times ``each`` transfers of one token as fast as they go, reading in between.

    Whatever goes wrong ends the process with an exit code other than 0.
    """
    signer = load(identity)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(each):
                (result,) = ledger.submit([transfer(ledger, signer, to, 1, new_id())]).result(ANSWER_S)
                assert result.outcome.ok, result
                assert ledger.balance(signer.name).result(ANSWER_S).spendable >= 0
        except BaseException as error:
            failures.append(error)
            raise

    with EmbeddedLedger(path, signer) as ledger:
        start.wait(60)
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not failures, failures


def write_until_killed(path: Path, identity: Path, to: str, threads: int, notes: Connection) -> None:
    """Transfer one token at a time for ever, from several threads; tell ``notes`` of each what is about to be
    submitted, and what was acknowledged."""
    signer = load(identity)
    ledger = EmbeddedLedger(path, signer)
    lock = threading.Lock()

    def note(kind: str, text: str) -> None:
        with lock:
            notes.send((kind, text))

    def work() -> None:
        while True:
            text = transfer(ledger, signer, to, 1, new_id())
            note("submitted", text)
            (result,) = ledger.submit([text]).result(ANSWER_S)
            note(result.outcome.code, text)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def write_with_little_room(path: Path, identity: Path, to: str, room: int, answers: Connection) -> None:
    """Write with files limited to ``room`` bytes more than the ledger has, until that is not enough; then
    without the limit. Sends the error, the transfers done before, and whether it works again after."""
    signer = load(identity)
    with EmbeddedLedger(path, signer) as ledger:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = max(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
        done = 0
        error: LedgerError | None = None
        while error is None:
            try:
                text = transfer(ledger, signer, to, 1, new_id())
                ledger.submit([text]).result(ANSWER_S)
                done += 1
            except LedgerError as caught:
                error = caught
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        (again,) = ledger.submit([text]).result(ANSWER_S)
        answers.send((type(error).__name__, str(error), done, again.outcome.code))


def use_without_rights(path: Path, identity: Path, to: str, answers: Connection) -> None:
    """Read, and try to write, as somebody who may only read the ledger's file. Sends both answers."""
    signer = load(identity)
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    with EmbeddedLedger(path, signer) as ledger:
        read = ledger.balance(signer.name).result(ANSWER_S).spendable
        error = ledger.submit([transfer(ledger, signer, to, 1, new_id())]).exception(ANSWER_S)
        answers.send((read, type(error).__name__, str(error)))

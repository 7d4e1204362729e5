"""The embedded ledger: the rules over one SQLite file that many processes on one host share.

Every process writes its own transactions, signed by its own wallet, in batches from one thread; another
thread answers questions from a connection of its own, so that none waits behind a settlement.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError, LedgerError
from tokenmesh.ledger import private
from tokenmesh.ledger.ahead import Preparer
from tokenmesh.ledger.base import (
    Allowance,
    Balance,
    ContractRecord,
    Credit,
    Hold,
    Ledger,
    Proposal,
    Result,
    Supply,
    Transaction,
    WalletRecord,
)
from tokenmesh.ledger.batching import BATCH_BYTES_MAX, BATCH_MAX, QUEUE_MAX, Batcher, Reader, Worker
from tokenmesh.ledger.chain import append, beginning, can_write
from tokenmesh.ledger.queries import Questions
from tokenmesh.ledger.state import StoredState
from tokenmesh.ledger.store import (
    Connect,
    LedgerFile,
    Synchronous,
    check_file,
    connect,
    create_tables,
    sync_directory,
    unavailable,
)
from tokenmesh.ledger.turnstile import Turnstile
from tokenmesh.ledger.writer import Writer
from tokenmesh.telemetry import LedgerWatch
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures, Signer, new_id
from tokenmesh_chaincode.prepared import Prepared
from tokenmesh_chaincode.rules import genesis, genesis_document

T = TypeVar("T")

BUSY_S_MAX = 30.0
SCHEME = "sqlite:///"


class EmbeddedLedger(Ledger):
    """A ledger in the SQLite file at ``path``.

    ``signer`` is the wallet of this process, which must be registered on the ledger; without one the
    ledger can only be read. ``batch_max`` operations of ``batch_bytes_max`` bytes go into one transaction,
    ``queue_max`` may wait, and ``busy_s_max`` seconds are waited for other processes. With
    ``synchronous="FULL"`` what is answered survives a power cut, with ``"NORMAL"`` a killed process only.
    ``opener`` opens SQLite's files, and a ``worker`` does what waits, in a thread of its own: a simulator has
    others.

    Raises ``ConfigError`` if there is no ledger at ``path``, ``LedgerUnavailable`` if it cannot be read.
    """

    def __init__(
        self,
        path: Path | str,
        signer: Signer | None = None,
        *,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        synchronous: Synchronous = "FULL",
        busy_s_max: float = BUSY_S_MAX,
        batch_max: int = BATCH_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        queue_max: int = QUEUE_MAX,
        opener: Connect = sqlite3.connect,
        worker: type[Worker[Any]] = Worker,
    ) -> None:
        self.path = Path(path).absolute()
        if not self.path.exists():
            raise ConfigError(f"there is no ledger at {self.path}: 'tokenmesh init' makes one")
        self._file = LedgerFile(self.path)
        self._connection = self._open(busy_s_max, opener)
        self._questions = Questions(self._connection)
        watch = LedgerWatch("embedded")
        self._reader = Reader(watch=watch, worker=worker)
        self.domain: str = self._ask_now(Questions.domain)
        self._batcher: Batcher[Prepared] | None = None
        if signer is not None:
            self._preparer = Preparer(self._certificates)
            self._turnstile = Turnstile(
                self.path, busy_s_max=busy_s_max, random=random or secrets.SystemRandom()
            )
            self._writer = Writer(
                self._file,
                self.domain,
                signer,
                turnstile=self._turnstile,
                clock=clock,
                synchronous=synchronous,
                busy_s_max=busy_s_max,
                opener=opener,
            )
            self._batcher = Batcher(
                self._preparer.prepare,
                self._writer.write,
                watch=watch,
                batch_max=batch_max,
                batch_bytes_max=batch_bytes_max,
                queue_max=queue_max,
                worker=worker,
            )

    @classmethod
    def create(
        cls,
        path: Path | str,
        signer: Signer,
        *,
        ca: Sequence[str],
        governors: Mapping[str, str],
        policy: Mapping[str, Any],
        nonce: str | None = None,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> Self:
        """Make a new ledger at ``path`` and open it, with ``options`` as for the class.

        ``ca`` are the authorities' certificates, ``governors`` the governors' by name, all in PEM; ``signer``
        is one of the governors. Whole or not at all, whoever else may be making one at the same time.
        Raises ``ConfigError`` if there is something at ``path``, or if it could not be governed so.
        """
        path = Path(path).absolute()
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        now = clock()
        first = genesis_document(
            ca=ca, governors=governors, policy=dict(policy), now=int(now), nonce=nonce or new_id()
        )
        try:
            draft.touch(exist_ok=False)
            _begin(draft, first, signer, int(now * 1000))
            # Unlike a rename, a link never takes the place of a file that is there.
            os.link(draft, path)
            sync_directory(path)
        except FileExistsError as error:
            raise ConfigError(f"there is a file at {path} already: a ledger is begun only once") from error
        except ValueError as error:
            raise ConfigError(f"no ledger can be begun with this: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error, path) from error
        finally:
            for leftover in (draft, *(draft.with_name(draft.name + end) for end in ("-wal", "-shm"))):
                leftover.unlink(missing_ok=True)
        return cls(path, signer, clock=clock, **options)

    def _open(self, busy_s_max: float, opener: Connect) -> sqlite3.Connection:
        try:
            connection = connect(self.path, busy_s_max=busy_s_max, opener=opener)
            check_file(connection, self.path)
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error
        return connection

    def submit(
        self, operations: Sequence[str], *, disclosures: Disclosures | None = None
    ) -> Future[list[Result]]:
        if self._batcher is None:
            future: Future[list[Result]] = Future()
            future.set_exception(
                LedgerError("this ledger was opened without a wallet, to read: nothing can be submitted")
            )
            return future
        return self._batcher.submit(operations, disclosures or NO_DISCLOSURES)

    def wallet(self, name: str) -> Future[WalletRecord | None]:
        return self._ask(lambda ask: ask.wallet(name))

    def wallets(self) -> Future[list[WalletRecord]]:
        return self._ask(Questions.wallets)

    def policy(self) -> Future[dict[str, Any]]:
        return self._ask(Questions.policy)

    def balance(self, name: str) -> Future[Balance]:
        return self._ask(lambda ask: ask.balance(name))

    def credits(self, name: str, limit: int) -> Future[list[Credit]]:
        return self._ask(lambda ask: ask.credits(name, limit))

    def hold(self, payer: str, hold_id: str) -> Future[Hold | None]:
        return self._ask(lambda ask: ask.hold(payer, hold_id))

    def allowance(self, allowance_id: str) -> Future[Allowance | None]:
        return self._ask(lambda ask: ask.allowance(allowance_id))

    def allowances(self, payer: str, payee: str | None = None) -> Future[list[Allowance]]:
        return self._ask(lambda ask: ask.allowances(payer, payee))

    def expirable(self, now: int, limit: int, payer: str | None = None) -> Future[dict[str, Any]]:
        return self._ask(lambda ask: ask.expirable(now, limit, payer))

    def forgettable(self, now: int, limit: int) -> Future[dict[str, Any]]:
        return self._ask(lambda ask: ask.forgettable(now, limit))

    def transactions(
        self, after: int = 0, limit: int = 100, wallet: str | None = None, newest_first: bool = False
    ) -> Future[list[Transaction]]:
        return self._ask(lambda ask: ask.transactions(after, limit, wallet, newest_first))

    def transaction(self, tx_id: str) -> Future[Transaction | None]:
        return self._ask(lambda ask: ask.transaction(tx_id))

    def contract(self, jti: str) -> Future[list[ContractRecord]]:
        return self._ask(lambda ask: self._disclosed(ask.contract(jti)))

    def proposals(self, now: int) -> Future[list[Proposal]]:
        return self._ask(lambda ask: ask.proposals(now))

    def supply(self) -> Future[Supply]:
        return self._ask(Questions.supply)

    def close(self) -> None:
        # What is still at work after the time is over keeps its connection: daemons end with the process.
        # So does everything in a process that was forked: it is the other one's to close.
        if self._batcher is not None and self._batcher.close():
            self._preparer.close()
            self._writer.close()
            self._turnstile.close()
        if self._reader.close():
            self._connection.close()

    def _certificates(self, name: str) -> Mapping[str, str]:
        """The certificates of a wallet, for checking ahead: what is not answered is checked in its turn."""
        try:
            wallet = self.wallet(name).result()
        except LedgerError:
            return {}
        return {} if wallet is None else {one.x5t: one.pem for one in wallet.certificates}

    def _disclosed(self, records: list[ContractRecord]) -> list[ContractRecord]:
        return private.disclosed(records, private.find(self._connection, private.digests_of(records)))

    def _ask(self, question: Callable[[Questions], T]) -> Future[T]:
        return self._reader.ask(lambda: self._ask_now(question))

    def _ask_now(self, question: Callable[[Questions], T]) -> T:
        """The answer, all of it from one view of the file."""
        self._file.check()
        try:
            self._connection.execute("BEGIN")
            try:
                return question(self._questions)
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error


def _begin(path: Path, first: dict[str, Any], signer: Signer, time_ms: int) -> None:
    """Write the first transaction, number 0, into a new file."""
    with contextlib.closing(connect(path, busy_s_max=0)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # kept in the file itself
        create_tables(connection)
        can_write(connection)
        connection.execute("BEGIN IMMEDIATE")
        state = StoredState(connection)
        domain = genesis(
            state,
            ca=first["ca"],
            governors=first["governors"],
            policy=first["policy"],
            now=first["now"],
            nonce=first["nonce"],
        )
        if signer.name not in first["governors"]:
            raise ValueError(f"{signer.name}, who signs the first transaction, is none of its governors")
        entry = beginning(first, domain, signer.name)
        append(connection, state, [entry], signer, dom=domain, n=0, prev="", time_ms=time_ms)
        connection.execute("COMMIT")


def open_embedded(url: str, signer: Signer | None, settings: Settings | None = None) -> EmbeddedLedger:
    """The ledger at ``sqlite:///path`` (four slashes for an absolute path)."""
    path = url.removeprefix(SCHEME)
    if path == url or not path:
        raise ConfigError(f"the ledger's url is {url!r}: it must be sqlite:///path/to/ledger.db")
    if settings is None:
        return EmbeddedLedger(path, signer)
    return EmbeddedLedger(
        path,
        signer,
        synchronous=settings.ledger_synchronous,
        busy_s_max=settings.ledger_busy_s_max,
        batch_max=settings.ledger_batch_max,
        batch_bytes_max=settings.ledger_batch_bytes_max,
        queue_max=settings.ledger_queue_max,
    )

"""The embedded ledger's write path: one batch of operations becomes one transaction, or leaves no trace.

Within SQLite's write lock: see what others have written since, let the rules judge each operation, chain and
sign, write, commit. An operation that changes nothing (done before, or turned away without a record) does
not make a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from tokenmesh.errors import LedgerUnavailable
from tokenmesh.ledger import private
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.batching import together
from tokenmesh.ledger.chain import Entry, append, can_write, certificate_to_write, entry_of
from tokenmesh.ledger.state import StoredState
from tokenmesh.ledger.store import Connect, LedgerFile, Synchronous, connect, failed_commit, unavailable
from tokenmesh.ledger.turnstile import Turnstile
from tokenmesh_chaincode.documents import Signer
from tokenmesh_chaincode.prepared import Prepared, apply_prepared, keys_read
from tokenmesh_chaincode.rules import Context, Outcome

_VERIFY = "'tokenmesh verify' says more"


class Writer:
    """Writes batches to one file; to be used by one thread at a time."""

    def __init__(
        self,
        file: LedgerFile,
        domain: str,
        signer: Signer,
        *,
        turnstile: Turnstile,
        clock: Callable[[], float],
        synchronous: Synchronous,
        busy_s_max: float,
        opener: Connect = sqlite3.connect,
    ) -> None:
        self._file = file
        self._domain = domain
        self._signer = signer
        self._turnstile = turnstile
        self._clock = clock
        self._synchronous = synchronous
        self._busy_s_max = busy_s_max
        self._opener = opener
        self._connection: sqlite3.Connection | None = None
        self._state: StoredState

    def write(self, operations: Sequence[Prepared]) -> list[Result]:
        """Have ``operations`` done; durable when it returns.

        Raises ``LedgerUnavailable`` if certainly nothing happened, ``LedgerOutcomeUnknown`` if not certain.
        """
        try:
            connection = self._open()
            self._turnstile.begin(connection)
            results, as_of = self._judge(connection, operations)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise unavailable(error, self._file.path) from error
        except BaseException:
            self._drop()
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._drop()
            raise failed_commit(error, self._file.path) from error
        self._state.keep(as_of)
        return results

    def close(self) -> None:
        """Give the file back."""
        self._drop()

    def _open(self) -> sqlite3.Connection:
        self._file.check()
        if self._connection is None:
            path = self._file.path
            connection = connect(
                path, busy_s_max=self._busy_s_max, synchronous=self._synchronous, opener=self._opener
            )
            self._connection = connection
            # From here on the turnstile does the waiting.
            connection.execute("PRAGMA busy_timeout=0")
            can_write(connection)
            self._state = StoredState(connection)
        return self._connection

    def _drop(self) -> None:
        # Closing rolls back what was begun.
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _judge(
        self, connection: sqlite3.Connection, operations: Sequence[Prepared]
    ) -> tuple[list[Result], str]:
        """Let the rules judge the operations and write what came of it, all but the commit.

        Gives the results and the id of the transaction that will then be the newest.
        """
        state = self._state
        head = state.begin(key for one in operations for key in keys_read(one))
        if head is None:
            raise LedgerUnavailable(f"the ledger {self._file.path} has lost its transactions: {_VERIFY}")
        # A clock that was set back makes no transaction older than the one before it.
        time_ms = max(head.time_ms, int(self._clock() * 1000))
        self._check_signer(time_ms // 1000)
        judged = [self._apply(one, Context(time_ms // 1000)) for one in operations]
        entries = [entry for _, entry in judged if entry is not None]
        tx_id = ""
        if entries:
            tx_id = append(
                connection,
                state,
                entries,
                self._signer,
                dom=self._domain,
                n=head.n + 1,
                prev=head.tx_id,
                time_ms=time_ms,
            )
            disclosures = together(
                one.disclosures
                for one, (_, entry) in zip(operations, judged, strict=True)
                if entry is not None
            )
            if disclosures:
                private.keep(connection, head.n + 1, disclosures)
        results = [
            Result(outcome, tx_id, time_ms / 1000)
            if entry is not None
            else self._earlier(connection, one, Result(outcome, "", time_ms / 1000))
            for one, (outcome, entry) in zip(operations, judged, strict=True)
        ]
        return results, tx_id or head.tx_id

    def _check_signer(self, now: int) -> None:
        """A transaction that no registered wallet signs would not hold when the ledger is verified."""
        wallet = self._state.get(f"wallet/{self._signer.name}")
        if certificate_to_write(wallet, self._signer.x5t, now) is None:
            raise LedgerUnavailable(
                f"the wallet {self._signer.name} cannot write to the ledger {self._file.path}: "
                + ("it is not registered there" if wallet is None else "its certificate is not good there")
                + "; a governor can change that ('tokenmesh wallet create', 'tokenmesh wallet rotate')"
            )

    def _apply(self, one: Prepared, context: Context) -> tuple[Outcome, Entry | None]:
        """The outcome of one operation, and what is to be recorded of it, if anything."""
        changes = self._state.changes
        outcome = apply_prepared(self._state, one, context)
        if one.signed is None or self._state.changes == changes:
            return outcome, None
        return outcome, entry_of(one.signed, one.carried, outcome)

    def _earlier(self, connection: sqlite3.Connection, one: Prepared, result: Result) -> Result:
        """The result of an operation that changed nothing: done before, or turned away without a record."""
        if one.signed is None:
            return result
        key = f"op/{one.signed.body.iss}/{one.signed.body.jti}"
        record = self._state.get(key)
        if record is None or record["outcome"] != result.outcome.to_json():
            return result
        tx_id, time_ms = connection.execute(
            "SELECT t.id, t.time_ms FROM state s JOIN transactions t ON t.n = s.n WHERE s.key = ?", (key,)
        ).fetchone()
        return Result(result.outcome, tx_id, time_ms / 1000)

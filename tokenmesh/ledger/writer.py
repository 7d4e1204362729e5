"""The embedded ledger's write path: one batch of operations becomes one transaction, or leaves no trace.

Within SQLite's write lock: see what others have written since, let the rules judge each operation, chain and
sign, write, commit. An operation that changes nothing (done before, or turned away without a record) does
not make a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tokenmesh.errors import LedgerUnavailable
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.chain import Entry, append, text_of
from tokenmesh.ledger.effects import contract_ids
from tokenmesh.ledger.signatures import Signatures
from tokenmesh.ledger.state import StoredState
from tokenmesh.ledger.store import Synchronous, check_file, connect, failed_commit, unavailable
from tokenmesh.ledger.turnstile import Turnstile
from tokenmesh_chaincode.documents import DocumentError, Operation, Signed, Signer, parse_operation
from tokenmesh_chaincode.rules import Context, Outcome, apply

Read: TypeAlias = Signed[Operation] | str
"""An operation as far as it could be read: its text, if it could not."""


class Head(NamedTuple):
    """The newest transaction."""

    n: int
    tx_id: str
    time_ms: int


class Writer:
    """Writes batches to one file; to be used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        domain: str,
        signer: Signer,
        *,
        turnstile: Turnstile,
        clock: Callable[[], float],
        synchronous: Synchronous,
        busy_s_max: float,
    ) -> None:
        self._path = path
        self._domain = domain
        self._signer = signer
        self._turnstile = turnstile
        self._clock = clock
        self._synchronous = synchronous
        self._busy_s_max = busy_s_max
        self._signatures = Signatures()
        self._connection: sqlite3.Connection | None = None
        self._state: StoredState
        self._inode = 0

    def write(self, operations: Sequence[str]) -> list[Result]:
        """Have ``operations`` done; durable when it returns.

        Raises ``LedgerUnavailable`` if certainly nothing happened, ``LedgerOutcomeUnknown`` if not certain.
        """
        try:
            connection = self._open()
            read = [_read(text) for text in operations]
            self._signatures.look_ahead(
                (signed for signed in read if not isinstance(signed, str)), self._state.peek
            )
            self._turnstile.begin(connection)
            results = self._judge(connection, read)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise unavailable(error, self._path) from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._signatures.forget()
        self._commit(connection)
        return results

    def close(self) -> None:
        """Give the file and the threads back."""
        self._drop()
        self._signatures.close()

    def _open(self) -> sqlite3.Connection:
        """The connection; a new one if the path has come to name another file."""
        inode = self._path.stat().st_ino
        if self._connection is not None and inode == self._inode:
            return self._connection
        self._drop()
        connection = connect(self._path, busy_s_max=self._busy_s_max, synchronous=self._synchronous)
        self._connection, self._inode = connection, inode
        check_file(connection, self._path)
        # From here on the turnstile does the waiting.
        connection.execute("PRAGMA busy_timeout=0")
        self._state = StoredState(connection)
        return connection

    def _drop(self) -> None:
        # Closing rolls back what was begun.
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._drop()
            raise failed_commit(error, self._path) from error
        self._state.keep()

    def _judge(self, connection: sqlite3.Connection, read: Sequence[Read]) -> list[Result]:
        """Let the rules judge the operations and write what came of it, all but the commit."""
        state = self._state
        state.begin()
        self._check_domain()
        head = Head(
            *connection.execute("SELECT n, id, time_ms FROM transactions ORDER BY n DESC LIMIT 1").fetchone()
        )
        # A clock that was set back makes no transaction older than the one before it.
        time_ms = max(head.time_ms, int(self._clock() * 1000))
        self._check_signer(time_ms // 1000)
        judged = [self._apply(signed, Context(time_ms // 1000)) for signed in read]
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
        return [
            Result(outcome, tx_id, time_ms / 1000)
            if entry is not None
            else self._earlier(connection, signed, Result(outcome, "", time_ms / 1000))
            for signed, (outcome, entry) in zip(read, judged, strict=True)
        ]

    def _check_domain(self) -> None:
        domain = self._state.get("domain")
        if domain is None or domain["id"] != self._domain:
            raise LedgerUnavailable(
                f"the ledger {self._path} is not the one that was opened: it has been replaced by another; "
                "restart this process to use that one"
            )

    def _check_signer(self, now: int) -> None:
        """A transaction that no registered wallet signs would not hold when the ledger is verified."""
        wallet = self._state.get(f"wallet/{self._signer.name}")
        x5t = self._signer.x5t
        if wallet is None or not any(
            certificate["x5t"] == x5t and now <= certificate["until"] for certificate in wallet["certs"]
        ):
            raise LedgerUnavailable(
                f"the wallet {self._signer.name} cannot write to the ledger {self._path}: "
                + ("it is not registered there" if wallet is None else "its certificate is not good there")
                + "; a governor can change that ('tokenmesh wallet create', 'tokenmesh wallet rotate')"
            )

    def _apply(self, signed: Read, context: Context) -> tuple[Outcome, Entry | None]:
        """The outcome of one operation, and what is to be recorded of it, if anything."""
        changes = self._state.changes
        self._signatures.contracts.clear()
        outcome = apply(self._state, signed, context, verify_many=self._signatures)
        if isinstance(signed, str) or self._state.changes == changes:
            return outcome, None
        body = signed.body
        contracts = contract_ids(body.act, self._signatures.contracts, outcome)
        document = signed.text.encode("ascii")
        return outcome, Entry(body.iss, body.jti, body.act, text_of(outcome.to_json()), document, contracts)

    def _earlier(self, connection: sqlite3.Connection, signed: Read, result: Result) -> Result:
        """The result of an operation that changed nothing: done before, or turned away without a record."""
        if isinstance(signed, str):
            return result
        key = f"op/{signed.body.iss}/{signed.body.jti}"
        record = self._state.get(key)
        if record is None or record["outcome"] != result.outcome.to_json():
            return result
        tx_id, time_ms = connection.execute(
            "SELECT t.id, t.time_ms FROM state s JOIN transactions t ON t.n = s.n WHERE s.key = ?", (key,)
        ).fetchone()
        return Result(result.outcome, tx_id, time_ms / 1000)


def _read(text: str) -> Read:
    try:
        return parse_operation(text)
    except DocumentError:
        return text  # the rules will say what is wrong with it

"""Verification: replays the whole ledger and names the transaction for whatever does not hold.

Everything is derived anew from the documents alone: ids and the chain, every signature, every outcome, the
state, the rows that make history searchable. So whatever was edited by hand shows, in whichever table.
It reads only, in constant memory, and may run while services write.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from tokenmesh.errors import ConfigError, LedgerUnavailable
from tokenmesh.ledger import private
from tokenmesh.ledger.chain import can_write
from tokenmesh.ledger.findings import Enough, Finding, Findings, Report
from tokenmesh.ledger.replay import OperationRow, Replay, TransactionRow
from tokenmesh.ledger.store import (
    APPLICATION_ID,
    AT_BITS,
    SCHEMA,
    SCHEMA_VERSION,
    connect,
    create_tables,
    lacks_room,
    unavailable,
)

__all__ = ["Finding", "Report", "verify_ledger"]

BUSY_S_MAX = 30.0
VALUE_BYTES_MAX = 64 * 2**20
"""No document is longer; a damaged file may claim that one is."""

_LEAST = -(2**63)
_Row = tuple[Any, ...]


def verify_ledger(path: Path | str, progress: Callable[[int, int], None] | None = None) -> Report:
    """Replay the ledger at ``path``; the report is ``ok`` if nothing was found.

    ``progress`` is called with the transactions replayed and their number. Never fails on a damaged file:
    damage is a finding. Raises ``ConfigError`` if there is no file, ``LedgerUnavailable`` if the disk keeps
    it from being read (full, or read-only), or there is no room for the replay's own state in the directory
    for temporary files.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no ledger at {path}: 'tokenmesh init' makes one")
    verification = _Verification(path, progress)
    with suppress(Enough):
        verification.run()
    return Report(
        verification.transactions,
        verification.findings.found,
        verification.private,
        verification.undisclosed,
    )


class _Verification:
    """One run over one file."""

    def __init__(self, path: Path, progress: Callable[[int, int], None] | None) -> None:
        self.path = path
        self.progress = progress
        self.findings = Findings()
        self.transactions = 0
        self.private = 0
        self.undisclosed = 0

    def run(self) -> None:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenmesh-verify-"))
            own = stack.enter_context(closing(_own(Path(directory))))
            replay = Replay(own, self.findings, lambda digests: private.find(connection, digests))
            stack.callback(replay.close)
            try:
                connection = stack.enter_context(closing(_reading(self.path)))
                self._check_file(connection)
                self._replay(connection, replay)
                # The rest from one view of the file, which services may be writing to.
                connection.execute("BEGIN")
                self._replay(connection, replay)
                if not replay.diverged:
                    self._compare(connection, own)
            except Enough:
                raise
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                    raise LedgerUnavailable(f"no room for the replay in {directory}: {error}") from error
                if lacks_room(error, self.path):
                    raise unavailable(error, self.path) from error
                self._damaged(error)
            except Exception as error:
                # Whatever reading a damaged file leads to is a finding, never a crash.
                self._damaged(error)

    def _damaged(self, error: Exception) -> None:
        after = f" after transaction {self.transactions - 1}" if self.transactions else ""
        self.findings.add(None, "", "damaged", f"the file cannot be read{after}: {error!r}")

    def _check_file(self, connection: sqlite3.Connection) -> None:
        """What SQLite itself can say, and whether the tables are the ledger's and nothing else is there."""
        for (text,) in connection.execute("PRAGMA integrity_check"):
            if text != "ok":
                self.findings.add(None, "", "damaged", f"SQLite's own check of the file: {text}")
        found = (
            *connection.execute("PRAGMA application_id").fetchone(),
            *connection.execute("PRAGMA user_version").fetchone(),
        )
        if found != (APPLICATION_ID, SCHEMA_VERSION):
            self.findings.add(None, "", "schema", f"its marks {found} are not those of a ledger")
        tables = dict(
            connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            ).fetchall()
        )
        for name in sorted({*tables, *SCHEMA}, key=str):
            if tables.get(name) != SCHEMA.get(name):
                self.findings.add(None, "", "schema", f"{name} is not as tokenmesh makes it")

    def _replay(self, connection: sqlite3.Connection, replay: Replay) -> None:
        """Replay what is there after the last one replayed."""
        (newest,) = connection.execute("SELECT coalesce(max(n), -1) FROM transactions").fetchone()
        while True:
            row = connection.execute(
                "SELECT n, id, time_ms, signer, x5t, signature FROM transactions "
                "WHERE n >= ? ORDER BY n LIMIT 1",
                (_LEAST if replay.last is None else replay.last.n + 1,),
            ).fetchone()
            if row is None:
                break
            n = row[0]
            operations = connection.execute(
                "SELECT at, issuer, id, act, outcome, document FROM operations "
                "WHERE at >= ? AND at < ? ORDER BY at",
                (n << AT_BITS, (n + 1) << AT_BITS),
            )
            replay.take(TransactionRow(*row), [OperationRow(*one) for one in operations])
            self.transactions += 1
            self.private, self.undisclosed = replay.private, replay.undisclosed
            if self.progress is not None:
                self.progress(self.transactions, max(self.transactions, newest + 1))
        if replay.last is None:
            self.findings.add(0, "", "missing", "there are no transactions at all")
            raise Enough

    def _compare(self, connection: sqlite3.Connection, own: sqlite3.Connection) -> None:
        """Every table that follows from the transactions, with what the replay has in its place."""
        ids = "SELECT id FROM transactions WHERE n = ?"

        def report(code: str, n: int, text: str) -> None:
            (tx_id,) = connection.execute(ids, (n,)).fetchone() or ("",)
            self.findings.add(n, tx_id, code, f"transaction {n}: {text}")

        state = "SELECT key, value, payer, due, n FROM state ORDER BY key"
        for actual, expected in _differences(connection.execute(state), own.execute(state), 1):
            report("state", *_about_state(actual, expected))
        contracts = "SELECT jti, at FROM contracts ORDER BY jti, at"
        for actual, expected in _differences(connection.execute(contracts), own.execute(contracts), 2):
            jti, at = expected or actual or ()
            report("index", _number(at) >> AT_BITS, _about_row(f"contracts for {jti!r}", expected))
        parties = "SELECT wallet, n FROM parties ORDER BY wallet, n"
        for actual, expected in _differences(connection.execute(parties), own.execute(parties), 2):
            wallet, n = expected or actual or ()
            report("index", _number(n), _about_row(f"parties for {wallet!r}", expected))
        self._compare_disclosures(connection, own, report)
        beyond = "SELECT at FROM operations WHERE at < 0 OR at >> ? NOT IN (SELECT n FROM transactions)"
        for (at,) in connection.execute(beyond, (AT_BITS,)):
            report("operation", _number(at) >> AT_BITS, "an operation stands in no transaction")

    def _compare_disclosures(
        self,
        connection: sqlite3.Connection,
        own: sqlite3.Connection,
        report: Callable[[str, int, str], None],
    ) -> None:
        """Disclosures may be missing, but what is there belongs to a contract that came with it."""
        carried = "SELECT 1 FROM private WHERE sd = ? AND n = ?"
        for sd, n, disclosure in connection.execute(
            "SELECT sd, n, disclosure FROM disclosures ORDER BY n, sd"
        ):
            if not isinstance(disclosure, str) or not private.holds(sd, disclosure):
                report("disclosure", _number(n), f"the disclosure kept as {str(sd)[:64]!r} is another one")
            elif own.execute(carried, (sd, n)).fetchone() is None:
                report("disclosure", _number(n), f"no contract in it has the disclosure {sd!r}")


def _reading(path: Path) -> sqlite3.Connection:
    connection = connect(path, busy_s_max=BUSY_S_MAX, read_only=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    # Text that is not UTF-8 is no reason to stop: it differs from what it should be, and is reported.
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


def _own(directory: Path) -> sqlite3.Connection:
    """An empty ledger file for the replay, which nobody else sees and no crash need spare."""
    connection = sqlite3.connect(directory / "replay.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    create_tables(connection)
    can_write(connection)
    connection.execute("BEGIN")
    return connection


def _differences(
    actual: Iterable[_Row], expected: Iterable[_Row], width: int
) -> Iterator[tuple[_Row, None] | tuple[None, _Row] | tuple[_Row, _Row]]:
    """The rows in which two tables differ, both sorted by their first ``width`` columns: what is there, and
    what should be there."""
    should = chain(expected, [None])
    one = next(should)
    for row in actual:
        key = row[:width]
        while one is not None and _before(one[:width], key):
            yield None, one
            one = next(should)
        if one is None or one[:width] != key:
            yield row, None
            continue
        if row != one or any(type(a) is not type(b) for a, b in zip(row, one, strict=True)):
            yield row, one
        one = next(should)
    while one is not None:
        yield None, one
        one = next(should)


def _before(key: _Row, other: _Row) -> bool:
    """SQLite's order: numbers, then text, then blobs."""
    return [(_rank(value), value) for value in key] < [(_rank(value), value) for value in other]


def _rank(value: object) -> int:
    return (
        0 if value is None else 1 if isinstance(value, (int, float)) else 2 if isinstance(value, str) else 3
    )


def _number(value: object) -> int:
    return value if type(value) is int else -1


def _about_state(actual: _Row | None, expected: _Row | None) -> tuple[int, str]:
    """Which transaction a wrong row of the state is to be reported with, and what is wrong."""
    if expected is None:
        assert actual is not None
        return _number(actual[4]), f"the state has {actual[0]!r}, which no transaction wrote"
    key, value, *marks, n = expected
    if actual is None:
        return n, f"the state lacks {key!r}, which this transaction wrote"
    if actual[1] != value:
        return n, f"the state has {str(actual[1])[:200]} at {key!r}; this transaction wrote {value[:200]}"
    return n, f"the marks {(*actual[2:],)} of the state at {key!r} should be {(*marks, n)}"


def _about_row(name: str, expected: _Row | None) -> str:
    return f"the index {name} " + ("leads here, wrongly" if expected is None else "should lead here")

"""What the SQLite journal keeps, for how long, and what goes first when space runs short.

Never dropped: a contract that is open or unsettled, and one whose expiry (with leeway) has not passed, for it
could be sent again. What may go, goes by age; past nine tenths of ``bytes_max`` the oldest response bodies go
first, then the oldest contracts, whatever their age.

Everything happens in short transactions of at most ``ROWS_MAX`` rows, so that requests hardly notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tokenmesh.journal import allowances
from tokenmesh.journal.base import JournalStats
from tokenmesh.journal.file import Execute, JournalFile

ROWS_MAX = 200
"""Contracts or bodies dropped in one transaction."""
BODY_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of bodies dropped in one transaction: every page of a long body has to be visited."""
ROUNDS_MAX = 50
"""Transactions in one round of pruning."""
FILLED_MAX = 0.9
"""The part of ``bytes_max`` past which more is dropped than age alone would drop."""
COMPACT_EVERY_S = 60.0
WAL_PAGES_MAX = 8_192
"""Pages in the write-ahead log past which writers wait a moment, so that it can begin anew."""

_BYTES = (
    "SELECT (page_count - freelist_count) * page_size "
    "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_OLDEST_OWED = (
    "SELECT n, payer, jti, response, at, exp FROM owed JOIN claims USING (payer, jti) "
    "WHERE n < (SELECT n FROM settled_below) AND n < (SELECT max(n) FROM owed) ORDER BY n LIMIT ?"
)
_OLDEST_UNOWED = (
    "SELECT n, payer, jti, response, at, exp FROM unowed JOIN claims USING (payer, jti) "
    "WHERE n < (SELECT max(n) FROM unowed) ORDER BY n LIMIT ?"
)


class Limits(NamedTuple):
    """How much is kept, and how long."""

    retention_s: float
    leeway_s: float
    bytes_max: int
    unsettled_max: int


class Space:
    """Whether there is room for another claim.

    Counting costs more than claiming, so it is done once for many claims: for an eighth of the room that is
    left, since other processes take from it too. Close to a limit that means every time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._claims_left = 0
        self._bytes_left = 0

    def take(self, execute: Execute, open_claims: int, size: int) -> bool:
        """Count in one more claim of about ``size`` bytes; False when the journal is full."""
        self._claims_left -= 1
        self._bytes_left -= size
        if self._claims_left >= 0 and self._bytes_left >= 0:
            return True
        (unsettled,) = execute("SELECT contracts FROM unsettled").fetchone()
        (used,) = execute(_BYTES).fetchone()
        claims = self._limits.unsettled_max - unsettled - open_claims
        bytes_ = self._limits.bytes_max - used
        self._claims_left = max(claims // 8 - 1, 0)
        self._bytes_left = max(bytes_ // 8 - size, 0)
        return bool(claims > 0 and bytes_ > 0)

    def likely(self, size: int) -> bool:
        """Count in a claim without looking; False, and nothing is counted, where :meth:`take` would look."""
        if self._claims_left < 1 or self._bytes_left < size:
            return False
        self._claims_left -= 1
        self._bytes_left -= size
        return True

    def stored(self, size: int) -> None:
        """Count in what a response took."""
        self._bytes_left -= size


class Retention:
    """Drops what need not be kept."""

    def __init__(self, file: JournalFile, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._compact_at = float("-inf")

    def prune(self, now: float) -> None:
        """Drop a bounded amount, then move the write-ahead log into the file."""
        aged, expired = now - self._limits.retention_s, now - self._limits.leeway_s
        steps: list[Callable[[Execute], bool]] = [
            lambda execute: _drop_owed(execute, aged, expired),
            lambda execute: _drop_unowed(execute, aged, expired),
            lambda execute: allowances.drop(execute, expired),
            lambda execute: self._short(execute) and _drop_bodies(execute),
            lambda execute: self._short(execute) and _drop_owed(execute, now, expired),
            lambda execute: self._short(execute) and _drop_unowed(execute, now, expired),
        ]
        rounds = 0
        for step in steps:
            more = True
            while more and rounds < ROUNDS_MAX:
                with self._file as execute:
                    more = step(execute)
                rounds += 1
        if now >= self._compact_at:
            self._compact_at = now + COMPACT_EVERY_S
            with self._file as execute:
                _drop_batches(execute)
                allowances.compact(execute)
        self._file.checkpoint(WAL_PAGES_MAX)

    def stats(self) -> JournalStats:
        """See :meth:`Journal.stats`."""
        return self._file.read(_stats)

    def _short(self, execute: Execute) -> bool:
        (used,) = execute(_BYTES).fetchone()
        return bool(used > self._limits.bytes_max * FILLED_MAX)


def _stats(execute: Execute) -> JournalStats:
    counts = execute(
        "SELECT (SELECT count(*) FROM claims), (SELECT count(*) FROM claims WHERE ended IS NULL), "
        "(SELECT contracts FROM unsettled), (SELECT ifnull(sum(charged), 0) FROM fresh) "
        "+ (SELECT ifnull(sum(charged), 0) FROM unfinished JOIN undecided ON n BETWEEN first AND last)"
    ).fetchone()
    (used,) = execute(_BYTES).fetchone()
    (lost,) = execute("SELECT count(*) FROM verdicts WHERE code IS NOT NULL").fetchone()
    return JournalStats._make((*counts, used, lost))


def _drop_owed(execute: Execute, ended_by: float, expired_by: float) -> bool:
    """Drop the oldest settled contracts that ended by one time and expired by another; False: that is all.

    The newest row stays in any case: the next one's ``n`` follows from it.
    """
    dropped = _droppable(execute(_OLDEST_OWED, (ROWS_MAX,)), ended_by, expired_by)
    for row in dropped:
        execute("DELETE FROM owed WHERE n = ?", row[:1])
        execute("DELETE FROM verdicts WHERE n = ?", row[:1])
        _drop_claim(execute, row)
    return len(dropped) == ROWS_MAX


def _drop_unowed(execute: Execute, ended_by: float, expired_by: float) -> bool:
    """The same for contracts that owe nothing."""
    dropped = _droppable(execute(_OLDEST_UNOWED, (ROWS_MAX,)), ended_by, expired_by)
    for row in dropped:
        execute("DELETE FROM unowed WHERE n = ?", row[:1])
        _drop_claim(execute, row)
    return len(dropped) == ROWS_MAX


def _droppable(rows: Iterable[Any], ended_by: float, expired_by: float) -> list[Any]:
    return [row for row in rows if row[4] <= ended_by and row[5] <= expired_by]


def _drop_claim(execute: Execute, row: Any) -> None:
    _, payer, jti, response, _, _ = row
    execute("DELETE FROM claims WHERE payer = ? AND jti = ?", (payer, jti))
    execute("DELETE FROM responses WHERE id = ?", (response,))


def _drop_bodies(execute: Execute) -> bool:
    """Drop the oldest longer bodies; their status and digest are kept with the contract.

    The newest stays in any case: were it dropped, its number would be given to another response.
    """
    rows = execute(
        "SELECT id, length(body) FROM responses WHERE id < (SELECT max(id) FROM responses) "
        "ORDER BY id LIMIT ?",
        (ROWS_MAX,),
    ).fetchall()
    total = 0
    for stored, size in rows:
        execute("DELETE FROM responses WHERE id = ?", (stored,))
        total += size
        if total > BODY_BYTES_MAX:
            break
    return bool(rows)


def _drop_batches(execute: Execute) -> None:
    """Forget finished batches whose contracts have all been dropped."""
    execute("DELETE FROM batches WHERE finished IS NOT NULL AND last < (SELECT ifnull(min(n), 0) FROM owed)")

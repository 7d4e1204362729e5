"""The SQLite journal's outbox: what is fulfilled and not yet settled, in batches.

A settle batch is a range of ``owed.n`` (without what ``verdicts`` decided one by one), so that taking and
finishing a thousand contracts writes one row. A batch that gives back holds marks its rows in ``releases``.

A batch with an owner is under way, and there is one at a time: the ledger gets few large settlements rather
than many small ones, and no two that write the same allowance. A batch without an owner waits to be taken
again. Whatever is done to a batch is done only while it is the caller's: one who was given up in between,
and whose batch another has adopted, changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

from tokenmesh.journal.base import Batch, Item, Release, Skip
from tokenmesh.journal.file import Execute, JournalFile
from tokenmesh.journal.owners import Owner

Key: TypeAlias = tuple[str, str]


class Outbox:
    """Batches of one journal, for its owner."""

    def __init__(self, file: JournalFile, owner: Owner) -> None:
        self._file = file
        self._owner = owner
        # In turn, so that none of them can keep the others waiting.
        self._sources = deque((self._fresh, self._released, self._releases))

    def take(self, limit: int, now: float, bytes_max: int) -> Batch | None:
        """See :meth:`Journal.take_batch`."""
        with self._file as execute:
            under_way = self._under_way(execute, now)
        if under_way is not None:
            batch_id, first, last, owner, operation = under_way
            return self._load(batch_id, first, last, operation) if owner == self._owner.id else None
        for _ in range(len(self._sources)):
            source = self._sources[0]
            self._sources.rotate(-1)
            batch = source(limit, bytes_max)
            if batch is not None:
                return batch
        return None

    def keep_operation(self, batch_id: int, operation: str) -> bool:
        """See :meth:`Journal.keep_operation`."""
        with self._file as execute:
            kept = execute(
                "UPDATE batches SET operation = ? "
                "WHERE id = ? AND owner = ? AND finished IS NULL AND operation IS NULL",
                (operation, batch_id, self._owner.id),
            )
            return bool(kept.rowcount == 1)

    def finish(
        self,
        batch_id: int,
        refused: Mapping[Key, str],
        settled: Mapping[Key, str],
        tx_id: str | None,
        now: float,
    ) -> bool:
        """See :meth:`Journal.finish_batch`."""
        with self._file as execute:
            finished = execute(
                "UPDATE batches SET finished = ?, tx_id = ?, operation = NULL "
                "WHERE id = ? AND owner = ? AND finished IS NULL",
                (now, tx_id, batch_id, self._owner.id),
            )
            if finished.rowcount != 1:
                return False
            _decide(execute, refused, settled)
            execute("DELETE FROM skips WHERE batch = ?", (batch_id,))
            execute("DELETE FROM releases WHERE batch = ?", (batch_id,))
            # A batch that only gave back holds has nothing to remember.
            execute("DELETE FROM batches WHERE id = ? AND first IS NULL", (batch_id,))
            return True

    def release(self, batch_id: int, refused: Mapping[Key, str], settled: Mapping[Key, str]) -> bool:
        """See :meth:`Journal.release_batch`."""
        with self._file as execute:
            mine = execute("SELECT 1 FROM under_way WHERE id = ? AND owner = ?", (batch_id, self._owner.id))
            if mine.fetchone() is None:
                return False
            _decide(execute, refused, settled)
            _put_back(execute, batch_id)
            return True

    def _under_way(self, execute: Execute, now: float) -> tuple[Any, ...] | None:
        """The batch that has an owner: this one's own, adopted if its owner is gone, or another's."""
        row = execute(
            "SELECT id, first, last, owner, operation FROM under_way ORDER BY id LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        batch_id, first, last, owner, operation = row
        if owner != self._owner.id and not self._owner.given_up(execute, owner, now):
            return (batch_id, first, last, owner, operation)
        if operation is None:
            # Never sent: it can be taken anew, perhaps with more in it.
            _put_back(execute, batch_id)
            return None
        execute("UPDATE batches SET owner = ? WHERE id = ?", (self._owner.id, batch_id))
        return (batch_id, first, last, self._owner.id, operation)

    def _fresh(self, limit: int, bytes_max: int) -> Batch | None:
        """What was fulfilled since the last batch. Read before the file is locked: it may be megabytes."""
        rows = _fitting(
            self._file.query(
                "SELECT n, payer, jti, contract, charged, at FROM fresh ORDER BY n LIMIT ?", (limit,)
            ),
            bytes_max,
        )
        if not rows:
            return None
        first, last = rows[0][0], rows[-1][0]
        with self._file as execute:
            moved = execute(
                "UPDATE marks SET value = ? WHERE name = 'next' AND value = ? "
                "AND NOT EXISTS (SELECT 1 FROM under_way)",
                (last + 1, first),
            )
            if moved.rowcount != 1:
                return None
            batch_id = execute(
                "INSERT INTO batches (first, last, owner) VALUES (?, ?, ?)", (first, last, self._owner.id)
            ).lastrowid
            skipped = _attach_skips(execute, batch_id, limit)
        return Batch(batch_id, None, _items(rows), [], skipped, rows[0][5])

    def _released(self, limit: int, bytes_max: int) -> Batch | None:
        """The batch that was put back first; what is too much for ``limit`` stays back."""
        waiting = self._file.query("SELECT id, first, last FROM unfinished ORDER BY id LIMIT 1")
        if not waiting:
            return None
        batch_id, first, last = waiting[0]
        rows = self._rows(first, last)
        taken = _fitting(rows[:limit], bytes_max)
        with self._file as execute:
            if not taken:  # each was decided by itself
                execute("DELETE FROM batches WHERE id = ? AND owner IS NULL", (batch_id,))
                return None
            cut = last if len(taken) == len(rows) else taken[-1][0]
            mine = execute(
                "UPDATE batches SET owner = ?, last = ? WHERE id = ? AND owner IS NULL AND last = ? "
                "AND NOT EXISTS (SELECT 1 FROM under_way)",
                (self._owner.id, cut, batch_id, last),
            )
            if mine.rowcount != 1:
                return None
            if cut < last:
                execute("INSERT INTO batches (first, last) VALUES (?, ?)", (cut + 1, last))
            skipped = _attach_skips(execute, batch_id, limit)
        return Batch(batch_id, None, _items(taken), [], skipped, taken[0][5])

    def _releases(self, limit: int, _bytes_max: int) -> Batch | None:
        """Holds to give back. They are short: ``limit`` bounds their bytes too."""
        if not self._file.query("SELECT 1 FROM releases WHERE batch IS NULL LIMIT 1"):
            return None
        with self._file as execute:
            batch_id = execute(
                "INSERT INTO batches (owner) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM under_way) "
                "RETURNING id",
                (self._owner.id,),
            ).fetchone()
            if batch_id is None:
                return None
            execute(
                "UPDATE releases SET batch = ? WHERE (payer, jti) IN "
                "(SELECT payer, jti FROM releases WHERE batch IS NULL LIMIT ?)",
                (*batch_id, limit),
            )
        return self._load(batch_id[0], None, None, None)

    def _load(self, batch_id: int, first: int | None, last: int | None, operation: str | None) -> Batch:
        if first is None or last is None:
            voids = self._file.query("SELECT payer, jti FROM releases WHERE batch = ?", (batch_id,))
            return Batch(batch_id, operation, [], [Release._make(row) for row in voids], [])
        rows = self._rows(first, last)
        skips = self._file.query("SELECT allowance, lane, seq FROM skips WHERE batch = ?", (batch_id,))
        skipped = [Skip._make(row) for row in skips]
        return Batch(batch_id, operation, _items(rows), [], skipped, rows[0][5] if rows else 0.0)

    def _rows(self, first: int, last: int) -> list[Any]:
        return self._file.query(
            "SELECT n, payer, jti, contract, charged, at FROM undecided WHERE n BETWEEN ? AND ? ORDER BY n",
            (first, last),
        )


def _items(rows: list[Any]) -> list[Item]:
    return [Item._make(row[1:5]) for row in rows]


def _fitting(rows: list[Any], bytes_max: int) -> list[Any]:
    """The first rows whose contracts are together at most ``bytes_max`` long; one in any case."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row[3])
        if total > bytes_max and count > 0:
            return rows[:count]
    return rows


def _attach_skips(execute: Execute, batch_id: int, limit: int) -> list[Skip]:
    """Numbers that will never be settled travel with a settlement: alone they are not worth one."""
    rows = execute("SELECT allowance, lane, seq FROM skips WHERE batch IS NULL LIMIT ?", (limit,)).fetchall()
    for row in rows:
        execute("UPDATE skips SET batch = ? WHERE allowance = ? AND lane = ? AND seq = ?", (batch_id, *row))
    return [Skip._make(row) for row in rows]


def _decide(execute: Execute, refused: Mapping[Key, str], settled: Mapping[Key, str]) -> None:
    """Note what became of single contracts of a batch."""
    for key, code, tx_id in (
        *((key, code, None) for key, code in refused.items()),
        *((key, None, tx_id) for key, tx_id in settled.items()),
    ):
        execute(
            "INSERT INTO verdicts (n, code, tx_id) "
            "SELECT ended, ?, ? FROM claims WHERE payer = ? AND jti = ? AND ended > 0 ON CONFLICT DO NOTHING",
            (code, tx_id, *key),
        )


def _put_back(execute: Execute, batch_id: int) -> None:
    """Its contracts wait again, behind those that were put back before; its number is never used again."""
    execute("UPDATE skips SET batch = NULL WHERE batch = ?", (batch_id,))
    execute("UPDATE releases SET batch = NULL WHERE batch = ?", (batch_id,))
    execute(
        "INSERT INTO batches (first, last) SELECT first, last FROM unfinished WHERE id = ?",
        (batch_id,),
    )
    execute("DELETE FROM batches WHERE id = ?", (batch_id,))

"""What the SQLite journal counts for each allowance: the tokens its claims stand for, and the numbers used.

Every function runs in the caller's transaction (``execute``).
"""

from __future__ import annotations

from tokenmesh.journal.file import Execute
from tokenmesh.journal.schema import CHUNK, FLOOR, SUM

CHUNKS_MAX = 4_096
"""Rows of ``numbers`` kept for one lane: about a quarter of a million ``seq``; older ones count as used."""
ALL_USED = (1 << CHUNK) - 1
FORGOTTEN_AT_ONCE_MAX = 4


def use_number(execute: Execute, allowance: str, lane: str, seq: int) -> bool:
    """Mark a number of a lane as used; False if it is, or is so old that nobody knows."""
    chunk, bit = divmod(seq, CHUNK)
    row = (allowance, lane, chunk)
    marked = execute(
        "UPDATE numbers SET bits = bits | ? WHERE allowance = ? AND lane = ? AND chunk = ? AND bits & ? = 0",
        (1 << bit, *row, 1 << bit),
    )
    if marked.rowcount == 1:
        return True
    # Either its chunk is there and has the bit, or it is the first of its chunk.
    begun = execute(
        "INSERT INTO numbers (allowance, lane, chunk, bits) SELECT ?, ?, ?, ? WHERE NOT EXISTS "
        "(SELECT 1 FROM numbers WHERE allowance = ? AND lane = ? AND chunk = ? AND bits > ?) "
        "ON CONFLICT DO NOTHING",
        (*row, 1 << bit, allowance, lane, FLOOR, chunk),
    )
    if begun.rowcount != 1:
        return False
    _forget_all_used(execute, allowance, lane)
    return True


def _forget_all_used(execute: Execute, allowance: str, lane: str) -> None:
    """Raise the floor of a lane over chunks of which every number is used: it then says the same of them."""
    rows = execute(
        "SELECT chunk, bits FROM numbers WHERE allowance = ? AND lane = ? AND chunk >= ? "
        "ORDER BY chunk LIMIT ?",
        (allowance, lane, FLOOR, 1 + FORGOTTEN_AT_ONCE_MAX),
    ).fetchall()
    kept_from = floor = rows.pop(0)[1] if rows[0][0] == FLOOR else 0
    for chunk, bits in rows:
        if chunk != floor or bits != ALL_USED:
            break
        floor += 1
    if floor > kept_from:
        _raise_floor(execute, allowance, lane, floor)


def _raise_floor(execute: Execute, allowance: str, lane: str, floor: int) -> None:
    execute(
        "DELETE FROM numbers WHERE allowance = ? AND lane = ? AND chunk > ? AND chunk < ?",
        (allowance, lane, FLOOR, floor),
    )
    execute(
        "REPLACE INTO numbers (allowance, lane, chunk, bits) VALUES (?, ?, ?, ?)",
        (allowance, lane, FLOOR, floor),
    )


def use_tokens(execute: Execute, allowance: str, tokens: int, funds: int, until: float) -> int:
    """Count in a claim of ``tokens``. What ``funds`` leave after it; negative, and nothing is counted, if
    they don't cover it."""
    row = execute(
        "UPDATE numbers SET bits = bits + ?, until = max(until, ?) "
        "WHERE allowance = ? AND lane = '' AND chunk = ? AND bits + ? <= ? RETURNING bits",
        (tokens, until, allowance, SUM, tokens, funds),
    ).fetchone()
    if row is not None:
        return funds - int(row[0])
    left = funds - used(execute, allowance) - tokens
    if left >= 0:  # its first claim
        execute("INSERT INTO numbers VALUES (?, '', ?, ?, ?)", (allowance, SUM, tokens, until))
    return left


def used(execute: Execute, allowance: str) -> int:
    """The tokens that the claims of an allowance stand for."""
    row = execute("SELECT used FROM allowances WHERE id = ?", (allowance,)).fetchone()
    return 0 if row is None else int(row[0])


def give_back(execute: Execute, allowance: str, tokens: int) -> None:
    """Take ``tokens`` off what the claims of an allowance stand for."""
    execute(
        "UPDATE numbers SET bits = bits - ? WHERE allowance = ? AND lane = '' AND chunk = ?",
        (tokens, allowance, SUM),
    )


def drop(execute: Execute, until: float) -> bool:
    """Forget the sums and numbers of allowances under which nothing can be settled any longer."""
    execute("DELETE FROM skips WHERE until <= ? AND batch IS NULL", (until,))
    rows = execute("SELECT id FROM allowances WHERE until <= ? LIMIT 10", (until,)).fetchall()
    for row in rows:
        execute("DELETE FROM numbers WHERE allowance = ?", row)
    return len(rows) == 10


def compact(execute: Execute) -> None:
    """Keep the newest half of a lane that has too many rows, and remember from where on they are kept."""
    lanes = execute(
        "SELECT allowance, lane FROM numbers WHERE chunk > ? GROUP BY allowance, lane HAVING count(*) > ?",
        (FLOOR, CHUNKS_MAX),
    ).fetchall()
    for allowance, lane in lanes:
        (floor,) = execute(
            "SELECT chunk FROM numbers WHERE allowance = ? AND lane = ? ORDER BY chunk DESC LIMIT 1 OFFSET ?",
            (allowance, lane, CHUNKS_MAX // 2),
        ).fetchone()
        _raise_floor(execute, allowance, lane, floor)

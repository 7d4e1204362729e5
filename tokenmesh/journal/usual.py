"""The usual case in one statement: a new contract by an allowance, and its fulfilment for all its tokens.

A statement of its own is a transaction of its own, and what has to happen beside it happens in triggers, so
the whole of it is one call of SQLite where the long way (:mod:`tokenmesh.journal.claims` and
:mod:`tokenmesh.journal.endings`) makes five. Triggers refuse whatever is not usual: the contract is known,
its number is used or the first of its chunk, its allowance is new or does not cover it, the claim is no
longer open or somebody else's. Then nothing has changed, and the long way says what it is.
"""

from __future__ import annotations

from tokenmesh.journal.base import HOLD, AllowanceUsedUp, NewClaim, SequenceUsed, StoredResponse, binding
from tokenmesh.journal.endings import INLINE_BYTES_MAX, header_lines
from tokenmesh.journal.file import JournalFile
from tokenmesh.journal.schema import CHUNK

_TAKE = (
    "INSERT INTO claims (payer, jti, binding, tok, via, lane, seq, exp, settle_by, owner, funds, ended) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, tell((SELECT used FROM allowances WHERE id = ?5)))"
)
"""What the allowance's claims stand for before this one is told on the way: nothing, as ``ended`` is to have.
RETURNING would say the same after it, and opens a table of its own for its rows: 10 µs of a paid call."""
_WHY_NOT = (
    "SELECT CASE WHEN ifnull("
    "(SELECT bits & ?1 FROM numbers WHERE allowance = ?2 AND lane = ?3 AND chunk = ?4), "
    "(SELECT bits > ?4 FROM numbers WHERE allowance = ?2 AND lane = ?3 AND chunk = -1)) "
    "THEN NULL ELSE ifnull((SELECT used FROM allowances WHERE id = ?2), 0) END "
    "WHERE NOT EXISTS (SELECT 1 FROM claims WHERE payer = ?5 AND jti = ?6)"
)
"""What the allowance's claims stand for; NULL if the number is used, as its chunk says or, where that is not
there, the lane's floor (-1 is ``FLOOR``). No row: the contract is known."""
_FULFIL = (
    "INSERT INTO fulfilling "
    "(payer, jti, charged, at, contract, receipt, status, digest, headers, body, owner) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def claim(file: JournalFile, entry: NewClaim, owner: int) -> int | None:
    """Claim a contract; gives what its allowance has left, or None if this is not the usual case."""
    payer, jti, _, htm, htu, dig, _, tok, via, lane, seq, exp, settle_by, funds = entry
    if via == HOLD or lane is None or seq is None:
        return None
    # Python's sqlite3 takes a bytearray as it is, where it looks for an adapter of bytes each time.
    bound = bytearray(binding(htm, htu, dig))
    told = file.at_once(_TAKE, (payer, jti, bound, tok, via, lane, seq, exp, settle_by, owner, funds))
    return None if told is None else funds - int(told[0]) - tok


def why_not(file: JournalFile, entry: NewClaim) -> SequenceUsed | AllowanceUsedUp | None:
    """Why a contract will be taken neither by :func:`claim` nor the long way; None: it may be, or is known.

    Only looks, where the long way writes and takes it back: a payer may send as many of these as it likes.
    """
    payer, jti, _, _, _, _, _, tok, via, lane, seq, _, _, funds = entry
    if via == HOLD or lane is None or seq is None or seq < 0:
        return None
    chunk, bit = divmod(seq, CHUNK)
    rows = file.query(_WHY_NOT, (1 << bit, via, lane, chunk, payer, jti))
    if not rows:
        return None
    (used,) = rows[0]
    if used is None:
        return SequenceUsed()
    return AllowanceUsedUp(funds - used) if used + tok > funds else None


def fulfil(
    file: JournalFile, entry: NewClaim, owner: int, response: StoredResponse, receipt: str | None, now: float
) -> bool:
    """Fulfil a claim for all its tokens; False if this is not the usual case, or not to be had."""
    status, headers, body, digest = response
    if body is None or len(body) > INLINE_BYTES_MAX:
        return False
    values = (entry.payer, entry.jti, entry.tok, now, entry.contract, receipt, status, digest)
    return file.at_once(_FULFIL, (*values, header_lines(headers), bytearray(body), owner)) is not None

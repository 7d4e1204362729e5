"""One claim in the SQLite journal: who gets the contract, and what everybody else gets.

Every function runs in the caller's transaction (``execute``), which holds the file's write lock: of a hundred
copies that arrive together, in any number of processes, one inserts the row and the others find it.
"""

from __future__ import annotations

from tokenmesh.journal import allowances
from tokenmesh.journal.base import (
    HOLD,
    AllowanceUsedUp,
    Claimed,
    ClaimResult,
    Mismatch,
    NewClaim,
    OnCrash,
    Running,
    SequenceUsed,
    binding,
)
from tokenmesh.journal.crashes import abandon
from tokenmesh.journal.endings import ABANDONED, Found, Open, ended, find, give_up_funds
from tokenmesh.journal.file import Execute
from tokenmesh.journal.owners import Owner

RETRY_AFTER_S = 1.0
"""What a retry is told to wait while the contract is being worked on: the least that HTTP can say."""


class Undo(Exception):
    """Rolls the transaction back and gives a result."""

    def __init__(self, result: ClaimResult) -> None:
        self.result = result


def take(execute: Execute, entry: NewClaim, now: float, owner: Owner, on_crash: OnCrash) -> ClaimResult:
    """Claim a contract, or give the answer for one that is known.

    Inserts first and looks at the rest after it, which makes the usual case the cheapest; :class:`Undo` takes
    it back.
    """
    if not _insert(execute, entry, owner):
        known = _known(execute, entry, now, owner, on_crash)
        if known is not None:
            return known
        _insert(execute, entry, owner)
    if entry.via == HOLD:
        if entry.tok > entry.funds:
            raise Undo(AllowanceUsedUp(entry.funds))
        return Claimed(None, owner.id)
    if entry.lane is None or entry.seq is None or entry.seq < 0:
        raise ValueError("a contract by allowance needs its lane and its seq")
    if not allowances.use_number(execute, entry.via, entry.lane, entry.seq):
        raise Undo(SequenceUsed())
    left = allowances.use_tokens(execute, entry.via, entry.tok, entry.funds, max(entry.settle_by, entry.exp))
    if left < 0:
        raise Undo(AllowanceUsedUp(left + entry.tok))
    return Claimed(left, owner.id)


def _insert(execute: Execute, entry: NewClaim, owner: Owner) -> bool:
    inserted = execute(
        "INSERT INTO claims (payer, jti, binding, tok, via, lane, seq, exp, settle_by, owner) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            entry.payer,
            entry.jti,
            binding(entry.htm, entry.htu, entry.dig),
            entry.tok,
            entry.via,
            entry.lane,
            entry.seq,
            entry.exp,
            entry.settle_by,
            owner.id,
        ),
    )
    return bool(inserted.rowcount == 1)


def _known(
    execute: Execute, entry: NewClaim, now: float, owner: Owner, on_crash: OnCrash
) -> ClaimResult | None:
    """The answer for a contract that is in the journal already; None: it has to be claimed anew."""
    found = find(execute, entry.payer, entry.jti)
    assert found is not None, "a claim that stands in the way can be found"
    claim = found.claim
    if not claim.binds(entry.htm, entry.htu, entry.dig):
        return Mismatch()
    if claim.state != "open":
        return ended(claim)
    if not owner.given_up(execute, found.owner, now):
        return Running(RETRY_AFTER_S)
    execute("DELETE FROM orphans WHERE payer = ? AND jti = ?", (entry.payer, entry.jti))
    if on_crash == "rerun" and now < claim.settle_by:
        return _take_over(execute, entry, found, owner)
    abandon(execute, (entry.payer, entry.jti), found.owner, ABANDONED, now)
    found = find(execute, entry.payer, entry.jti)
    assert found is not None, "an abandoned claim stays in the journal"
    return ended(found.claim)


def _take_over(execute: Execute, entry: NewClaim, found: Found, owner: Owner) -> Claimed | None:
    """Run an abandoned claim again: it becomes this owner's, and its old owner can no longer end it."""
    key, was = (entry.payer, entry.jti), found.claim
    if (was.via, was.lane, was.seq) == (entry.via, entry.lane, entry.seq) and was.tok == entry.tok:
        execute(
            "UPDATE claims SET owner = ?, exp = ?, settle_by = ? WHERE payer = ? AND jti = ?",
            (owner.id, entry.exp, entry.settle_by, *key),
        )
        if entry.via == HOLD:
            return Claimed(None, owner.id)
        return Claimed(entry.funds - allowances.used(execute, entry.via), owner.id)
    # The same job, paid from somewhere else by now. A hold is named like its contract: it goes on.
    if not was.via == entry.via == HOLD:
        give_up_funds(execute, key, Open(was.tok, was.via, was.lane, was.seq, was.settle_by))
    execute("DELETE FROM claims WHERE payer = ? AND jti = ?", key)
    return None

"""What becomes of claims that nobody will end: their owner was killed or given up, or forgot them.

With ``on_crash="refuse"`` they end as void. With ``"rerun"`` they wait, as orphans, for a retry to take them
over, and end as void once they could no longer be settled.
"""

from __future__ import annotations

from tokenmesh.journal.base import OnCrash
from tokenmesh.journal.endings import ABANDONED, OUT_OF_TIME, end_unowed
from tokenmesh.journal.file import Execute, JournalFile
from tokenmesh.journal.owners import Owner

ROWS_MAX = 200
"""Claims ended in one transaction."""


def bury_owners(file: JournalFile, owner: Owner, on_crash: OnCrash, now: float) -> None:
    """End (or orphan) what other owners that are gone left open, and forget them."""
    for gone in file.read(lambda execute: owner.all_given_up(execute, now)):
        # All claims are searched: no index is worth what it would cost each call, for something so rare.
        left = file.query(
            "SELECT payer, jti, settle_by FROM claims WHERE ended IS NULL AND owner = ?", (gone,)
        )
        while True:
            some, left = left[:ROWS_MAX], left[ROWS_MAX:]
            with file as execute:
                if not owner.given_up(execute, gone, now):
                    break  # it was only paused, and is back
                for payer, jti, settle_by in some:
                    if on_crash == "refuse":
                        abandon(execute, (payer, jti), gone, ABANDONED, now)
                    else:
                        execute(
                            "INSERT INTO orphans (payer, jti, settle_by) VALUES (?, ?, ?) "
                            "ON CONFLICT DO NOTHING",
                            (payer, jti, settle_by),
                        )
                if not left:
                    owner.bury(execute, gone)
                    break


def end_orphans(file: JournalFile, now: float) -> None:
    """End the orphans that no retry came for while they could still be settled."""
    statement = (
        "SELECT payer, jti, owner FROM orphans JOIN claims USING (payer, jti) "
        "WHERE orphans.settle_by <= ? LIMIT ?"
    )
    if not file.query(statement, (now, 1)):
        return
    with file as execute:
        for payer, jti, gone in execute(statement, (now, ROWS_MAX)).fetchall():
            abandon(execute, (payer, jti), gone, ABANDONED, now)
            execute("DELETE FROM orphans WHERE payer = ? AND jti = ?", (payer, jti))


def end_forgotten(file: JournalFile, owner: Owner, claims: list[tuple[str, str]], now: float) -> None:
    """End claims of this owner's own that can no longer be settled and that nobody has ended."""
    for start in range(0, len(claims), ROWS_MAX):
        with file as execute:
            for claim in claims[start : start + ROWS_MAX]:
                abandon(execute, claim, owner.id, OUT_OF_TIME, now)


def abandon(execute: Execute, claim: tuple[str, str], owner: int, reason: str, now: float) -> None:
    """End a claim as void, with no response and no receipt: the provider signs one when it is asked for."""
    end_unowed(execute, claim, owner, out="void", reason=reason, response=None, receipt=None, now=now)

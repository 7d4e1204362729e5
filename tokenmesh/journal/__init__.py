"""Journals: a payee's durable record of claims, responses and what is still to settle.

``open_journal`` opens one by its url.
"""

from __future__ import annotations

from tokenmesh.journal.base import (
    HOLD,
    AllowanceUsedUp,
    Batch,
    Claim,
    Claimed,
    ClaimResult,
    Ended,
    Item,
    Journal,
    JournalFull,
    JournalStats,
    Mismatch,
    NewClaim,
    Release,
    Running,
    SequenceUsed,
    Skip,
    StoredResponse,
    binding,
)
from tokenmesh.journal.opening import open_journal

__all__ = [
    "HOLD",
    "AllowanceUsedUp",
    "Batch",
    "Claim",
    "ClaimResult",
    "Claimed",
    "Ended",
    "Item",
    "Journal",
    "JournalFull",
    "JournalStats",
    "Mismatch",
    "NewClaim",
    "Release",
    "Running",
    "SequenceUsed",
    "Skip",
    "StoredResponse",
    "binding",
    "open_journal",
]

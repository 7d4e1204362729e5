"""Ledgers: where the rules run and their history is kept. ``open_ledger`` opens one by its url."""

from tokenmesh.ledger.base import (
    Allowance,
    Balance,
    Certificate,
    ContractRecord,
    Credit,
    Hold,
    Ledger,
    Proposal,
    Recorded,
    Result,
    Supply,
    Transaction,
    WalletRecord,
)
from tokenmesh.ledger.opening import open_ledger

__all__ = [
    "Allowance",
    "Balance",
    "Certificate",
    "ContractRecord",
    "Credit",
    "Hold",
    "Ledger",
    "Proposal",
    "Recorded",
    "Result",
    "Supply",
    "Transaction",
    "WalletRecord",
    "open_ledger",
]

"""The payer's funds: what is set aside on the ledger, and tickets for it."""

from tokenmesh.treasury.allowances import Allowance, Ticket
from tokenmesh.treasury.treasury import Treasury

__all__ = ["Allowance", "Ticket", "Treasury"]

"""Settlement: what is fulfilled is carried from the journal to the ledger, in batches."""

from tokenmesh.settlement.settlement import OPERATION_TTL_S, Round, Settlement

__all__ = ["OPERATION_TTL_S", "Round", "Settlement"]

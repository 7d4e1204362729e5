"""What the summary says of a demo that was exported: where the traces went, and what to search for there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.text import Text

from tokenmesh.cli.demo.auditor import Settled

ORDER = "POST /orders"


class Traced(NamedTuple):
    """Where the demo sent its spans, and one order of it to begin with."""

    endpoint: str
    reached: bool
    """Whether the collector took spans in the end."""
    order: Settled | None
    together: int
    """Contracts that were settled in the order's transaction."""

    @classmethod
    def of(cls, endpoint: str, reached: bool, settled: Sequence[Settled]) -> Traced:
        """Of all that was settled: an order, or else the first contract that there is."""
        order = next((one for one in settled if one.op == ORDER), next(iter(settled), None))
        transactions = Counter(one.tx_id for one in settled)
        return cls(endpoint, reached, order, 0 if order is None else transactions[order.tx_id])

    def to_json(self) -> dict[str, Any]:
        order = self.order
        return {
            "endpoint": self.endpoint,
            "reached": self.reached,
            "contract": None if order is None else order.jti,
            "tx": None if order is None else order.tx_id,
        }

    def lines(self) -> list[Text]:
        """For people, in the words of Jaeger's search."""
        if not self.reached:
            return [
                Text(f"No traces: nothing takes spans at {self.endpoint}", "yellow"),
                Text("  start a collector there first: docs/how-to/see-tokens-flow.md has one"),
            ]
        lines = [Text.assemble(("Traces", "bold"), f" went to {self.endpoint}; search there")]
        if self.order is not None:
            service, count = self.order.payee, self.together
            calls = "one call" if count == 1 else f"{count:,} calls"
            lines += [
                Text(f"  {self.order.op} of {self.order.payer}: service {service}, tags"),
                Text(f"    tokenmesh.contract.id={self.order.jti}"),
                Text(f"  the transaction that settled it, of {calls}: service {service}, tags"),
                Text(f"    tokenmesh.tx.id={self.order.tx_id}"),
            ]
        return lines

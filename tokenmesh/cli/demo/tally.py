"""Counts of what went over the wire, for the live view and the summary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenmesh.cli.demo.wire import claims_of


class Passage(NamedTuple):
    """One request and what came of it, as the wire noted it. ``out`` and ``charged`` are the receipt's."""

    service: str
    request: str
    payer: str | None
    jti: str | None
    status: int
    ms: float
    lost: bool
    receipt: str | None
    out: str | None
    charged: int

    @classmethod
    def read(cls, note: dict[str, Any]) -> Passage:
        receipt = claims_of(note["receipt"])
        return cls(
            service=note["service"],
            request=note["request"],
            payer=note["payer"],
            jti=note["jti"],
            status=note["status"],
            ms=note["ms"],
            lost=note["lost"],
            receipt=note["receipt"],
            out=receipt.get("out"),
            charged=receipt.get("tok", 0) if receipt.get("out") == "fulfilled" else 0,
        )


class Tally:
    """Running counts; :meth:`add` is given every passage once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """Contracts sent to each service; a contract that is tried again counts once."""
        self.tries: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.earned: Counter[str] = Counter()
        """Tokens in fulfilled receipts, by payee; a receipt that is sent again counts once."""
        self.spent: Counter[str] = Counter()
        self.ms: defaultdict[str, list[float]] = defaultdict(list)
        self._known: set[tuple[str, str]] = set()
        self._fulfilled: set[tuple[str, str]] = set()

    @property
    def retries(self) -> int:
        """Tries beyond the first of a contract."""
        return self.tries.total() - self.calls.total()

    def add(self, passage: Passage) -> None:
        if passage.lost:
            self.lost[passage.service] += 1
        self.ms[passage.service].append(passage.ms)
        if passage.payer is None or passage.jti is None:
            return  # a question for offers, or a call without a contract
        contract = passage.payer, passage.jti
        self.tries[passage.service] += 1
        if contract not in self._known:
            self._known.add(contract)
            self.calls[passage.service] += 1
        if passage.out == "fulfilled" and contract not in self._fulfilled:
            self._fulfilled.add(contract)
            self.earned[passage.service] += passage.charged
            self.spent[passage.payer] += passage.charged


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of all values lie (nearest rank); 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]

"""What a verification found: the report, and the collector that its parts write to."""

from __future__ import annotations

from typing import NamedTuple

FINDINGS_MAX = 100
"""A report ends here: one edit can be seen in many places, and a hundred are enough to act."""


class Finding(NamedTuple):
    """Something that does not hold, and the transaction where it shows (None, "": in none).

    Codes: ``damaged`` (the file cannot be read there), ``schema`` (a table, index or trigger that is not the
    ledger's), ``missing`` (a transaction or operation was removed), ``changed`` (content and id differ),
    ``signature`` (no registered wallet signed this), ``time`` (older than the one before), ``operation``
    (what is noted about an operation is not what its document says), ``outcome`` (not what the rules give),
    ``conservation`` (tokens came from nowhere, or went there), ``state`` and ``index`` (a row is not what
    follows from the transactions), ``settled_twice`` (one contract, paid twice).
    """

    tx_n: int | None
    tx_id: str
    code: str
    text: str


class Report(NamedTuple):
    """What :func:`~tokenmesh.ledger.verify.verify_ledger` found in so many transactions."""

    transactions: int
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


class Enough(Exception):
    """Ends a verification that has found as much as a report holds. Never leaves it."""


class Findings:
    """Collects findings in the order in which they are made."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, tx_n: int | None, tx_id: str, code: str, text: str) -> None:
        """Note a finding. Raises :class:`Enough` when the report is full."""
        # Whatever a damaged file holds, a finding is text that can be printed anywhere.
        self.found.append(Finding(tx_n, str(tx_id), code, text.encode("ascii", "backslashreplace").decode()))
        if len(self.found) >= FINDINGS_MAX:
            raise Enough

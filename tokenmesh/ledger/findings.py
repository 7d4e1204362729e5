"""What a verification found: the report, and the collector that its parts write to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FINDINGS_MAX = 100
"""A report ends here: one edit can be seen in many places, and a hundred are enough to act."""


CODES: Mapping[str, str] = {
    "damaged": "the file cannot be read there",
    "schema": "a table, an index, a trigger or a mark of the file is not the ledger's",
    "missing": "a transaction or an operation was removed",
    "changed": "a transaction's id does not follow from its content and the one before it",
    "signature": "no wallet that was registered then signed the transaction",
    "time": "a transaction is older than the one before it",
    "operation": "what is noted about an operation is not what its document says",
    "outcome": "the rules give another outcome than the one noted",
    "conservation": "tokens came from nowhere, or went there",
    "state": "a row of the state is not what the transactions make it",
    "disclosure": "a disclosure that is kept is not that of a private contract",
    "index": "a row that makes history searchable is not what the transactions make it",
    "settled_twice": "a contract was settled twice: the payee was paid two times for one id",
}
"""What the code of a finding means."""

BLOCK_CODES: Mapping[str, str] = {
    "chain": "a block does not follow from the one before it",
    "data": "a block's transactions are not those that its header names, or are not cut where they end",
    "orderer": "a block was not signed by those who order the channel",
    "configuration": "a channel's new configuration was not agreed on by those who have to",
    "flag": "a peer has noted that a transaction is valid or invalid, and it is the other",
    "writes": "a transaction writes something else than the rules do",
}
"""And those that only the blocks of a channel on Fabric can give rise to."""


class Finding(NamedTuple):
    """Something that does not hold, and the transaction where it shows (None, "": in none). ``code`` is one
    of :data:`CODES` or :data:`BLOCK_CODES`."""

    tx_n: int | None
    tx_id: str
    code: str
    text: str


class Report(NamedTuple):
    """What :func:`~tokenmesh.ledger.verify.verify_ledger` found in so many transactions.

    Of the ``private`` contracts in them ``undisclosed`` are those whose disclosures were not at hand: all of
    them was verified, but that policy allowed what they were for is as the ledger has recorded it.
    """

    transactions: int
    findings: list[Finding]
    private: int = 0
    undisclosed: int = 0

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
        assert code in CODES or code in BLOCK_CODES, code
        self.found.append(Finding(tx_n, _printable(tx_id), code, _printable(text)))
        if len(self.found) >= FINDINGS_MAX:
            raise Enough


def _printable(text: str) -> str:
    """Whatever a damaged file holds, a finding is text that any terminal can be shown."""
    return text.encode("unicode_escape").decode("ascii")

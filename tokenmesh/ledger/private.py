"""Disclosures of private contracts in the embedded ledger: beside the chain, never in it.

They are what the ledger's own host may know and no transaction says. So they can be deleted, and the ledger
can still be verified: the digest of each is in a contract that is signed, and what policy said about it is in
the recorded outcome.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from tokenmesh.ledger.base import ContractRecord
from tokenmesh_chaincode.documents import (
    Contract,
    Disclosures,
    DocumentError,
    Signed,
    disclose,
    parse_contract,
    thumbprint,
)


def keep(connection: sqlite3.Connection, n: int, disclosures: Disclosures) -> None:
    """Write disclosures that came with transaction ``n``; what is there stays."""
    connection.executemany(
        "INSERT OR IGNORE INTO disclosures (sd, n, disclosure) VALUES (?, ?, ?)",
        [(sd, n, disclosure) for sd, disclosure in sorted(disclosures.items())],
    )


def find(connection: sqlite3.Connection, digests: Iterable[str]) -> dict[str, str]:
    """The disclosures with these digests, as far as they are there."""
    wanted = json.dumps(list(digests))
    rows = connection.execute(
        "SELECT sd, disclosure FROM disclosures WHERE sd IN (SELECT value FROM json_each(?))", (wanted,)
    )
    return {sd: disclosure for sd, disclosure in rows if isinstance(disclosure, str)}


def holds(sd: str, disclosure: str) -> bool:
    """Whether the disclosure has this digest."""
    return thumbprint(disclosure.encode("utf-8", "replace")) == sd


def digests_in(carried: Iterable[Signed[Contract]]) -> list[str]:
    """The digests of the disclosures that these contracts have, with one for each private contract."""
    return [signed.body.sd for signed in carried if signed.body.sd is not None]


def disclosed(records: Iterable[ContractRecord], disclosures: Mapping[str, str]) -> list[ContractRecord]:
    """The records, and of the private contracts among them what their disclosures say."""
    return [_disclosed(record, disclosures) for record in records]


def _disclosed(record: ContractRecord, disclosures: Mapping[str, str]) -> ContractRecord:
    contract = parse_contract(record.contract).body
    disclosure = disclosures.get(contract.sd or "")
    if disclosure is None:
        return record
    try:
        return record._replace(op=disclose(contract, disclosure).op, disclosure=disclosure)
    except DocumentError:
        return record  # a row that somebody has edited says nothing


def digests_of(records: Iterable[ContractRecord]) -> list[str]:
    """The digests of the disclosures that the private contracts among the records have."""
    return digests_in(parse_contract(record.contract) for record in records)

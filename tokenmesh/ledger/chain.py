"""The chain: how a transaction's id follows from its content, what its writer signs, and how it is written.

A transaction's header is canonical JSON: the domain, the number, the id of the transaction before, the time,
who wrote it with which certificate, and a digest over its operations and their outcomes. The id is the
SHA-256 of the header in hex; the signature (ES256, 64 bytes) is over the header. So nothing about a
transaction can be changed without its writer's key, and nothing can be left out or moved without breaking
the ids that follow.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh.ledger.effects import marks, parties
from tokenmesh.ledger.state import StoredState
from tokenmesh.ledger.store import AT_BITS
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Operation, Signed, Signer, canonical
from tokenmesh_chaincode.rules import Outcome
from tokenmesh_chaincode.state import Value

_HASH = hashlib.sha256
_key = itemgetter(0)

DOCUMENT_BOUND_BYTES_MIN = 65_536
"""Longer documents are handed to SQLite as they are, not within JSON."""

# A transaction is written by a single statement, an insert into this view: with each statement Python lets
# its other threads go first, and among many callers that costs more than the statement itself.
_WRITTEN = (
    """
    CREATE TEMP VIEW written AS SELECT 0 AS n, '' AS id, 0 AS time_ms, '' AS signer, '' AS x5t,
        x'' AS signature, '' AS operations, '' AS contracts, '' AS parties, '' AS put, '' AS deleted
    """,
    """
    CREATE TEMP TRIGGER write_transaction INSTEAD OF INSERT ON written BEGIN
        INSERT INTO transactions (n, id, time_ms, signer, x5t, signature)
            SELECT NEW.n, NEW.id, NEW.time_ms, NEW.signer, NEW.x5t, NEW.signature WHERE NEW.id IS NOT NULL;
        INSERT INTO operations (at, issuer, id, act, outcome, document)
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
                json_extract(value, '$[3]'), json_extract(value, '$[4]'),
                CAST(json_extract(value, '$[5]') AS BLOB)
            FROM json_each(NEW.operations);
        INSERT INTO contracts (jti, at)
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.contracts);
        INSERT INTO parties (wallet, n) SELECT value, NEW.n FROM json_each(NEW.parties);
        INSERT INTO state (key, value, payer, due, n)
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
                json_extract(value, '$[3]'), NEW.n
            FROM json_each(NEW.put) WHERE true
            ON CONFLICT (key) DO UPDATE
            SET value = excluded.value, payer = excluded.payer, due = excluded.due, n = excluded.n;
        DELETE FROM state WHERE key IN (SELECT value FROM json_each(NEW.deleted));
    END
    """,
)
_WRITE = (
    "INSERT INTO written (n, id, time_ms, signer, x5t, signature, operations, contracts, parties, put, "
    "deleted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Header(NamedTuple):
    """What a transaction's id is the hash of. ``body`` is :func:`body_digest` of its operations."""

    dom: str
    n: int
    prev: str
    time_ms: int
    signer: str
    x5t: str
    body: str

    def to_bytes(self) -> bytes:
        """The bytes that are hashed and signed. They begin with "{", as no document's signing input does."""
        return canonical(self._asdict())

    def tx_id(self) -> str:
        """The id of the transaction."""
        return _HASH(self.to_bytes()).hexdigest()

    def is_signed(self, signature: bytes, key: EllipticCurvePublicKey) -> bool:
        """Whether ``key`` made this signature over the header."""
        if len(signature) != 64:
            return False
        header = documents.Header("ES256", "", self.signer, self.x5t)
        return documents.verify(Signed("", header, None, self.to_bytes(), signature), key)


class Entry(NamedTuple):
    """An operation that a transaction records; ``outcome`` is canonical JSON, ``contracts`` are ids."""

    issuer: str
    id: str
    act: str
    outcome: str
    document: bytes
    contracts: Collection[str]


def entry_of(signed: Signed[Operation], contracts: Iterable[Signed[Contract]], outcome: Outcome) -> Entry:
    """What a transaction records of an operation that carries these contracts."""
    body = signed.body
    return Entry(
        body.iss,
        body.jti,
        body.act,
        text_of(outcome.to_json()),
        signed.text.encode("ascii"),
        {contract.body.jti for contract in contracts},
    )


def body_digest(operations: Iterable[tuple[bytes, str]]) -> str:
    """The digest over documents and their outcomes, in order."""
    body = _HASH()
    for document, outcome in operations:
        body.update(_HASH(document).digest())
        body.update(_HASH(outcome.encode()).digest())
    return body.hexdigest()


def text_of(value: Any) -> str:
    """The one JSON text of a value: what the ledger's columns hold."""
    return canonical(value).decode()


def beginning(first: dict[str, Any], domain: str, signer: str) -> Entry:
    """The only operation of transaction 0: the genesis document ``first``, by one of the governors."""
    outcome = text_of(Outcome(True, "ok", {"domain": domain}).to_json())
    return Entry(signer, domain, "genesis", outcome, canonical(first), ())


def certificate_to_write(wallet: Value | None, x5t: str, now: int) -> Value | None:
    """The certificate of a wallet by which it may write a transaction at ``now``, if it has it."""
    for certificate in [] if wallet is None else wallet["certs"]:
        if certificate["x5t"] == x5t and now <= certificate["until"] and "revoked_at" not in certificate:
            return dict(certificate)
    return None


def can_write(connection: sqlite3.Connection) -> None:
    """Make a connection fit for :func:`append` and :func:`write_effects`; nothing in the file changes."""
    for statement in _WRITTEN:
        connection.execute(statement)


def append(
    connection: sqlite3.Connection,
    state: StoredState,
    entries: Sequence[Entry],
    signer: Signer,
    *,
    dom: str,
    n: int,
    prev: str,
    time_ms: int,
) -> str:
    """Chain, sign and write a transaction of ``entries``, with what ``state`` has collected; its id.

    All but the commit, which is the caller's.
    """
    # The certificate first: a wallet signs with the key whose x5t was read last (it may be rotated).
    x5t = signer.x5t
    body = body_digest((entry.document, entry.outcome) for entry in entries)
    header = Header(dom, n, prev, time_ms, signer.name, x5t, body)
    tx_id, signature = header.tx_id(), signer.sign(header.to_bytes())
    rows = [(at, *entry[:5]) for at, entry in enumerate(entries, n << AT_BITS)]
    if any(len(entry.document) > DOCUMENT_BOUND_BYTES_MIN for entry in entries):
        connection.executemany(
            "INSERT INTO operations (at, issuer, id, act, outcome, document) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        rows = []
    operations = json.dumps([(*row[:5], row[5].decode("ascii")) for row in rows])
    columns = (n, tx_id, time_ms, signer.name, x5t, signature, operations)
    connection.execute(_WRITE, (*columns, *_effects(state, entries, n)))
    return tx_id


def write_effects(
    connection: sqlite3.Connection, state: StoredState, entries: Sequence[Entry], n: int
) -> None:
    """Write only what follows from transaction ``n``: the state, and what makes history searchable."""
    connection.execute(_WRITE, (n, None, 0, "", "", b"", "[]", *_effects(state, entries, n)))


def _effects(state: StoredState, entries: Sequence[Entry], n: int) -> tuple[str, str, str, str]:
    """The last four columns of the view ``written``."""
    contracts = [
        (jti, at) for at, entry in enumerate(entries, n << AT_BITS) for jti in sorted(entry.contracts)
    ]
    # Sorted, so that rows that lie side by side are written side by side.
    writes = sorted(state.writes.items(), key=_key)
    # The values stand in it as they are, not as text: what SQLite takes out of canonical JSON is canonical.
    put = [(key, value, *marks(key, value)) for key, value in writes if value is not None]
    deleted = [key for key, value in writes if value is None]
    return (
        json.dumps(contracts),
        json.dumps(sorted(parties(state.writes, state))),
        text_of(put),
        json.dumps(deleted),
    )

"""Replays a ledger's transactions one after another, as if they were made now, and compares.

The replay keeps its own state in a temporary file, so memory does not grow with the ledger: it is bounded by
the largest transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tokenmesh.ledger import private
from tokenmesh.ledger.ahead import Preparer
from tokenmesh.ledger.chain import (
    Entry,
    Header,
    beginning,
    body_digest,
    certificate_to_write,
    entry_of,
    write_effects,
)
from tokenmesh.ledger.findings import Enough, Findings
from tokenmesh.ledger.settled import SettledOnce, settled_of
from tokenmesh.ledger.state import StoredState
from tokenmesh.ledger.store import AT_BITS
from tokenmesh.ledger.worth import movement
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import Contract
from tokenmesh_chaincode.prepared import Prepared, apply_prepared, keys_read
from tokenmesh_chaincode.rules import Context, Outcome, genesis


class TransactionRow(NamedTuple):
    """A row of the table ``transactions``."""

    n: int
    id: str
    time_ms: int
    signer: str
    x5t: str
    signature: bytes


class OperationRow(NamedTuple):
    """A row of the table ``operations``."""

    at: int
    issuer: str
    id: str
    act: str
    outcome: str
    document: bytes


_TRANSACTION_TYPES = (int, str, int, str, str, bytes)
_OPERATION_TYPES = (int, str, str, str, str, bytes)


_PRIVATE = "CREATE TABLE private (sd TEXT, n INTEGER, PRIMARY KEY (sd, n)) WITHOUT ROWID"
"""Which transactions carry a private contract of this digest."""


class Replay:
    """The replay so far. ``own`` is a connection to an empty ledger file of its own, with all tables;
    ``disclosures`` gives those of private contracts that are at hand."""

    def __init__(
        self,
        own: sqlite3.Connection,
        findings: Findings,
        disclosures: Callable[[Sequence[str]], Mapping[str, str]],
    ) -> None:
        self.domain = ""
        self.last: TransactionRow | None = None
        self.diverged = False
        """Something was found that changes what follows: what the state should be is not known any more."""
        self.private = 0
        """Private contracts so far."""
        self.undisclosed = 0
        """Those of them whose disclosures are not at hand: what policy said about them is as recorded."""
        self._disclosures = disclosures
        self._own = own
        self._settled = SettledOnce(own)
        own.execute(_PRIVATE)
        self._findings = findings
        self._last_ids: set[str] = {""}
        self._preparer = Preparer(self._certificates)
        self._state = StoredState(own)

    def close(self) -> None:
        """Let the threads go."""
        self._preparer.close()

    def take(self, row: TransactionRow, operations: Sequence[OperationRow]) -> None:
        """Replay the next transaction."""
        if tuple(map(type, row)) != _TRANSACTION_TYPES or any(
            tuple(map(type, one)) != _OPERATION_TYPES for one in operations
        ):
            self._diverge(row, "damaged", "a column does not hold what it should")
            self._last_ids = set()
        else:
            try:
                self._take(row, operations)
            except (ValueError, TypeError, OverflowError) as error:
                self._diverge(row, "damaged", f"it cannot be replayed: {error!r}")
                self._state.begin()
        self.last = row

    def _take(self, row: TransactionRow, operations: Sequence[OperationRow]) -> None:
        if row.n == 0:
            self._begin(row, operations)
        self._check_chain(row, operations)
        if row.n > 0:
            self._run(row, operations)

    def _find(self, row: TransactionRow, code: str, text: str) -> None:
        self._findings.add(row.n, row.id, code, f"transaction {row.n}: {text}")

    def _diverge(self, row: TransactionRow, code: str, text: str) -> None:
        self._find(row, code, text)
        self.diverged = True

    def _begin(self, row: TransactionRow, operations: Sequence[OperationRow]) -> None:
        """Replay the first transaction: the domain, its policy and its governors."""
        try:
            (one,) = operations
            first = json.loads(one.document)
            arguments = {name: first[name] for name in ("ca", "governors", "policy", "now", "nonce")}
            self.domain = genesis(self._state, **arguments)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._diverge(row, "changed", f"the ledger's beginning does not hold ({error!r}), so nothing can")
            raise Enough from error
        entry = beginning(first, self.domain, row.signer)
        if Entry(*one[1:], ()) != entry:
            self._diverge(row, "changed", "the ledger's beginning is not noted as its document says")
        self._write(row, [entry])

    def _check_chain(self, row: TransactionRow, operations: Sequence[OperationRow]) -> None:
        """Number, id, time and signature of a transaction."""
        expected = 0 if self.last is None else self.last.n + 1
        if row.n != expected:
            self._findings.add(
                expected,
                "",
                "missing",
                f"transaction {expected} is missing"
                + (f", and all up to {row.n - 1}" if row.n > expected + 1 else "")
                + f": the one after it is {row.n}, {row.id}",
            )
            self.diverged = True
            # What the next one should name as the one before it went with the missing one.
            self._last_ids = {row.id}
            return
        if [one.at for one in operations] != list(
            range(row.n << AT_BITS, (row.n << AT_BITS) + len(operations))
        ):
            self._diverge(row, "missing", "an operation was removed, or moved within it")
        body = body_digest((one.document, one.outcome) for one in operations)
        headers = [
            Header(self.domain, row.n, prev, row.time_ms, row.signer, row.x5t, body)
            for prev in self._last_ids
        ]
        header = next((one for one in headers if one.tx_id() == row.id), None)
        self._last_ids = {row.id, *(one.tx_id() for one in headers)}
        if header is None:
            self._diverge(row, "changed", "its id does not follow from its content and the one before it")
        else:
            self._last_ids = {row.id}
            self._check_signature(row, header)
        if self.last is not None and row.time_ms < self.last.time_ms:
            self._find(row, "time", "it is older than the transaction before it")

    def _check_signature(self, row: TransactionRow, header: Header) -> None:
        wallet = self._state.get(f"wallet/{row.signer}")
        certificate = certificate_to_write(wallet, row.x5t, row.time_ms // 1000)
        if certificate is not None:
            if not header.is_signed(row.signature, public_key(certificate["pem"])):
                self._find(row, "signature", f"the signature of {row.signer} does not hold")
        elif not self.diverged:
            self._find(row, "signature", f"{row.signer} had no certificate {row.x5t} when it was written")

    def _run(self, row: TransactionRow, operations: Sequence[OperationRow]) -> None:
        """Have the rules judge the operations again, and compare the outcomes."""
        entries: list[Entry] = []
        settled: list[Contract] = []
        texts = [one.document.decode("ascii", "replace") for one in operations]
        ahead = self._preparer.prepare(texts)
        self._disclose(row, ahead)
        self._state.begin(key for prepared in ahead for key in keys_read(prepared))
        for one, prepared in zip(operations, ahead, strict=True):
            signed = prepared.signed
            if signed is None:
                self._suspect(row, "operation", f"{_name(one)} is not the document of an operation")
                continue
            changes = self._state.changes
            said = _recorded(one) if private.digests_in(prepared.carried) else None
            outcome = apply_prepared(self._state, prepared, Context(row.time_ms // 1000), said)
            entry = entry_of(signed, prepared.carried, outcome)
            if self._state.changes == changes:
                self._suspect(row, "outcome", f"{_name(one)} would not have been recorded: {outcome.code}")
            elif entry.outcome != one.outcome:
                self._suspect(row, "outcome", f"{_name(one)} ends by the rules with {entry.outcome[:200]}")
            if (one.issuer, one.id, one.act) != entry[:3]:
                name = f"{entry.act} {entry.id} of {entry.issuer}"
                self._find(row, "operation", f"{_name(one)} is what is noted, but its document says {name}")
            entries.append(entry)
            if outcome.ok and entry.act == "settle":
                settled += settled_of([contract.body for contract in prepared.carried], outcome)
        accounted, supply = movement(self._state)
        if accounted != supply:
            self._find(row, "conservation", f"accounted for are {accounted:+} tokens, minted are {supply:+}")
        for text in self._settled.take(row.n, settled):
            self._find(row, "settled_twice", text)
        self._write(row, entries)

    def _disclose(self, row: TransactionRow, ahead: Sequence[Prepared]) -> None:
        """Give the private contracts of a transaction what disclosures there are, and count the others."""
        digests = [sd for prepared in ahead for sd in private.digests_in(prepared.carried)]
        if not digests:
            return
        found = self._disclosures(digests)
        own = {sd: disclosure for sd, disclosure in found.items() if private.holds(sd, disclosure)}
        for prepared in ahead:
            prepared.disclosures |= {sd: own[sd] for sd in private.digests_in(prepared.carried) if sd in own}
        self.private += len(digests)
        self.undisclosed += sum(sd not in own for sd in digests)
        self._own.executemany(
            "INSERT OR IGNORE INTO private (sd, n) VALUES (?, ?)", [(sd, row.n) for sd in digests]
        )

    def _suspect(self, row: TransactionRow, code: str, text: str) -> None:
        """A finding that may only follow from an earlier one, and is then left out."""
        if not self.diverged:
            self._diverge(row, code, text)

    def _write(self, row: TransactionRow, entries: Sequence[Entry]) -> None:
        write_effects(self._own, self._state, entries, row.n)
        self._state.keep("")

    def _certificates(self, name: str) -> dict[str, str]:
        wallet = self._state.get(f"wallet/{name}") or {"certs": ()}
        return {certificate["x5t"]: certificate["pem"] for certificate in wallet["certs"]}


def _recorded(one: OperationRow) -> Outcome | None:
    """The outcome that is noted; None if that is none."""
    try:
        outcome = Outcome.from_json(json.loads(one.outcome))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return outcome if isinstance(outcome.detail, dict) else None


def _name(one: OperationRow) -> str:
    return f"{one.act} {one.id} of {one.issuer}"

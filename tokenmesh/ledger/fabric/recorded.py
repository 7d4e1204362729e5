"""What a block of the channel holds of the ledger: the operations recorded in it, and what they wrote.

Fabric's transactions carry batches of operations (their texts are the arguments of ``apply``); the answer
gives for each ``[ok, code, detail, tx_id, time]``. An operation is recorded in the transaction that its
result names: one that was done before, or turned away without a record, is in the batch but not in the
history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cryptography.x509.oid import NameOID

from tokenmesh.fabric.blocks import (
    Block,
    Envelope,
    Transaction,
    read_creator,
    read_envelope,
    read_transaction,
)
from tokenmesh.fabric.errors import BlockError
from tokenmesh.ledger.chain import Entry, beginning, entry_of
from tokenmesh_chaincode.certificates import parse_certificate, thumbprint_of
from tokenmesh_chaincode.documents import Contract, DocumentError, Signed, parse_contract, parse_operation
from tokenmesh_chaincode.rules import Outcome
from tokenmesh_chaincode.state import Value

VALID = 0
GENESIS = b"genesis"
APPLY = b"apply"
OPERATION_FIELDS = 5
"""Of each operation's result in the answer of ``apply``."""


class LedgerTransaction(NamedTuple):
    """A transaction that changed the ledger. ``signer`` and ``x5t`` are the carrier's, whose certificate is
    in the envelope; ``writes`` are the keys of the state, deleted where None."""

    tx_id: str
    time_ms: int
    signer: str
    x5t: str
    signature: bytes
    is_genesis: bool
    entries: list[Entry]
    writes: dict[str, Value | None]


def ledger_transactions(block: Block, chaincode: str) -> Iterator[LedgerTransaction]:
    """The ledger's transactions in a block, as far as the peer that gave it found them valid."""
    for code, octets in zip(block.codes, block.data, strict=False):
        if code != VALID:
            continue
        envelope = read_envelope(octets)
        if envelope.is_transaction:
            transaction = read_transaction(envelope)
            found = ledger_transaction(envelope, transaction, chaincode)
            if found is not None:
                yield found


def ledger_transaction(
    envelope: Envelope, transaction: Transaction, chaincode: str
) -> LedgerTransaction | None:
    """What a transaction changed on the ledger; None if it is not one of the ledger's, or changed nothing."""
    if transaction.chaincode != chaincode or transaction.arguments[:1] not in ((GENESIS,), (APPLY,)):
        return None
    writes = state_writes(transaction, chaincode)
    if not writes:
        return None
    signer, x5t = carrier(envelope.creator)
    is_genesis = transaction.arguments[0] == GENESIS
    entries = (
        [_first(transaction, signer)]
        if is_genesis
        else recorded(envelope.tx_id, transaction.arguments[1:], transaction.payload)
    )
    return LedgerTransaction(
        envelope.tx_id,
        envelope.timestamp_ns // 10**6,
        signer,
        x5t,
        envelope.signature,
        is_genesis,
        entries,
        writes,
    )


def recorded(tx_id: str, texts: Iterable[bytes], answer: bytes) -> list[Entry]:
    """The operations of a batch that are recorded in this very transaction, each once."""
    found: dict[tuple[str, str], Entry] = {}
    for text, result in zip(texts, json.loads(answer), strict=True):
        ok, code, detail, recorded_in, _ = result[:OPERATION_FIELDS]
        if recorded_in != tx_id:
            continue
        signed = parse_operation(text.decode())
        entry = entry_of(signed, contracts_of(signed.body.act, signed.body.arg), Outcome(ok, code, detail))
        found.setdefault((entry.issuer, entry.id), entry)
    return list(found.values())


def contracts_of(act: str, argument: Any) -> Iterator[Signed[Contract]]:
    """The contracts that an operation carries, as far as they can be read."""
    for text, *_ in argument["items"] if act == "settle" and isinstance(argument.get("items"), list) else ():
        try:
            yield parse_contract(text)
        except DocumentError:
            continue  # the rules have refused it, as what has no id


def state_writes(transaction: Transaction, chaincode: str) -> dict[str, Value | None]:
    """What a transaction writes into the ledger's state."""
    return {
        write.key.decode(): None if write.value is None else json.loads(write.value)
        for namespace in transaction.namespaces
        if namespace.name == chaincode
        for write in namespace.writes
    }


def carrier(creator: bytes) -> tuple[str, str]:
    """Who carried a transaction to Fabric: the common name in the certificate, and its thumbprint."""
    who = read_creator(creator)
    try:
        certificate = parse_certificate(who.certificate.decode("ascii"))
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise BlockError(f"the certificate of a creator of {who.msp_id} cannot be read: {error}") from error
    return str(name.value), thumbprint_of(certificate)


def _first(transaction: Transaction, signer: str) -> Entry:
    return beginning(json.loads(transaction.arguments[1]), json.loads(transaction.payload)["domain"], signer)

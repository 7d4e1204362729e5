"""Collects the auditor's evidence: from the ledger's history, the handlers' notes, the wire, the journals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_pem_x509_certificate

from tokenmesh.cli.demo.auditor import Account, Evidence, Run, Settled
from tokenmesh.cli.demo.notes import Reader
from tokenmesh.cli.demo.plan import NAMES, Paths
from tokenmesh.cli.demo.tally import Passage
from tokenmesh.journal.base import Journal
from tokenmesh.ledger.base import Ledger, Recorded
from tokenmesh.steps import run, wait
from tokenmesh_chaincode.documents import (
    DocumentError,
    Operation,
    parse_contract,
    parse_operation,
    parse_receipt,
    verify,
)

PAGE = 100


class History(NamedTuple):
    """What the signed operations on the ledger add up to, read one by one."""

    settled: list[Settled]
    granted: Counter[str]
    """What each wallet was given by other means than calls; negative for who gave it."""
    minted: int


def read_history(ledger: Ledger) -> History:
    """Go through the whole history of the ledger."""
    settled: list[Settled] = []
    granted: Counter[str] = Counter()
    minted = 0
    for tx_id, recorded in _operations(ledger):
        if not recorded.outcome.ok:
            continue
        operation: Operation = parse_operation(recorded.document or "").body
        if operation.act == "settle":
            settled += _settled(operation, recorded.outcome.detail.get("refused", {}), tx_id)
        elif operation.act == "mint":
            minted += operation.arg["tokens"]
            granted[operation.iss] += operation.arg["tokens"]
        elif operation.act in ("grant", "transfer"):
            granted[operation.iss] -= operation.arg["tokens"]
            granted[operation.arg["to"]] += operation.arg["tokens"]
    return History(settled, granted, minted)


def _operations(ledger: Ledger) -> Iterator[tuple[str, Recorded]]:
    """Every recorded operation, with its document, and the transaction that it is in."""
    after = 0
    while page := ledger.transactions(after=after, limit=PAGE).result():
        for transaction in page:
            after = transaction.number
            if any(recorded.document is None for recorded in transaction.operations):
                whole = ledger.transaction(transaction.tx_id).result()
                if whole is not None:
                    transaction = whole  # noqa: PLW2901 - the same one, with its long documents
            yield from ((transaction.tx_id, recorded) for recorded in transaction.operations)


def _settled(operation: Operation, refused: Mapping[str, str], tx_id: str) -> Iterator[Settled]:
    """The contracts of a settlement but those refused, which the outcome names by place or as payer/id."""
    for index, (text, charged) in enumerate(operation.arg["items"]):
        if f"#{index}" in refused:
            continue
        contract = parse_contract(text).body
        if f"{contract.iss}/{contract.jti}" not in refused:
            yield Settled(
                contract.iss, operation.iss, contract.jti, contract.op, contract.tok, charged, tx_id
            )


def gather(
    *,
    paths: Paths,
    ledger: Ledger,
    journals: Mapping[str, Journal],
    passages: Sequence[Passage],
    offers: Mapping[tuple[str, str], int],
    minted: int,
    verify_findings: Sequence[str],
) -> Evidence:
    """All evidence of one run, once it has come to rest. ``minted`` is the supply it began with."""
    history = read_history(ledger)
    runs = [
        Run(service, note["payer"], note["jti"])
        for service in NAMES
        for note in Reader(paths.runs(service)).new()
    ]
    accounts = {}
    for wallet in ledger.wallets().result():
        balance = ledger.balance(wallet.name).result()
        accounts[wallet.name] = Account(history.granted[wallet.name], *balance)
    supply = ledger.supply().result()
    stats = {service: run(wait(journal.stats())) for service, journal in journals.items()}
    return Evidence(
        settled=history.settled,
        runs=runs,
        passages=passages,
        forged=forged(ledger, passages),
        claims={settled.key: claimed(journals, settled) for settled in history.settled},
        unsettled={service: stat.unsettled + stat.lost + stat.open for service, stat in stats.items()},
        offers=offers,
        accounts=accounts,
        minted=minted,
        supply=supply.minted - supply.burned,
        accounted=supply.accounted,
        verify=verify_findings,
    )


def claimed(journals: Mapping[str, Journal], settled: Settled) -> int | None:
    """What the payee's journal says was charged for a contract; None if it fulfilled no such contract."""
    claim = run(wait(journals[settled.payee].find(settled.payer, settled.jti)))
    return claim.charged if claim is not None and claim.state == "fulfilled" else None


def forged(ledger: Ledger, passages: Sequence[Passage]) -> list[str]:
    """The receipts that are not signed by the service which gave them."""
    keys: dict[tuple[str, str], ec.EllipticCurvePublicKey] = {}
    for wallet in ledger.wallets().result():
        for certificate in wallet.certificates:
            public = load_pem_x509_certificate(certificate.pem.encode()).public_key()
            if isinstance(public, ec.EllipticCurvePublicKey):
                keys[wallet.name, certificate.x5t] = public
    forged = []
    for passage in {passage.receipt: passage for passage in passages if passage.receipt}.values():
        text = passage.receipt or ""
        try:
            signed = parse_receipt(text)
        except DocumentError:
            forged.append(text)
            continue
        key = keys.get((passage.service, signed.header.x5t))
        if key is None or not verify(signed, key) or signed.body.jti != passage.jti:
            forged.append(text)
    return forged


def published(offers: Mapping[str, Mapping[str, object]]) -> dict[tuple[str, str], int]:
    """The most that each service asks for each operation, as it says itself at its well-known address."""
    most: dict[tuple[str, str], int] = {}
    for service, document in offers.items():
        listed = document.get("offers")
        for offer in listed if isinstance(listed, list) else []:
            tokens = offer.get("tokens", offer.get("up_to"))
            if isinstance(tokens, int):
                most[service, offer["operation"]] = tokens
    return most


def happened(paths: Paths) -> Counter[tuple[str, str, str]]:
    """What the services told while they ran: who, what, why."""
    return Counter(
        (note["service"], note["what"], note["code"] or note["why"])
        for note in Reader(paths.happenings).new()
    )

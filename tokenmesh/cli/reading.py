"""What anyone can read off the ledger, without a key: ``balance``, ``history``, ``contract show``."""

from __future__ import annotations

from typing import Any

import click

from tokenmesh.cli.desk import Fault, answer
from tokenmesh.cli.options import MeshGroup, as_json, pass_session, wallet_name
from tokenmesh.cli.output import brief, moment, print_facts, print_json, print_table, short
from tokenmesh.cli.session import Session
from tokenmesh.cli.traces import Carried, carried, print_links, trace_facts, trace_fields, trace_of, trace_url
from tokenmesh.cli.wallets import known_wallet
from tokenmesh.ledger.base import HISTORY_LIMIT_MAX, ContractRecord, Recorded, Transaction
from tokenmesh_chaincode.documents import DocumentError, disclose, parse_contract, parse_operation

PRIVATE = "private: the payer, the payee and those who judge by the rules know it"


@click.command()
@click.argument("name", type=wallet_name, required=False)
@as_json
@pass_session
def balance(session: Session, name: str | None, as_json: bool) -> None:
    """What a wallet has; or what all have, and the supply."""
    with session.reading() as ledger:
        if name is not None:
            known_wallet(answer(ledger.wallet(name)), name)
            one = answer(ledger.balance(name))
            if as_json:
                print_json({"name": name, **one._asdict(), "total": sum(one)})
            else:
                print_facts([*_described(one._asdict()), ("total", sum(one))])
            return
        names = [record.name for record in answer(ledger.wallets())]
        rows = [(each, answer(ledger.balance(each))) for each in names]
        supply = answer(ledger.supply())
    if as_json:
        wallets = [{"name": each, **one._asdict(), "total": sum(one)} for each, one in rows]
        print_json({"wallets": wallets, "supply": {**supply._asdict(), "conserved": supply.conserved}})
        return
    print_table(
        ["name", "spendable", "credits", "held", "in allowances", "total"],
        [[each, *one, sum(one)] for each, one in rows],
        empty="There are no wallets.",
    )
    print_facts([("minted", supply.minted), ("burned", supply.burned), ("accounted for", supply.accounted)])


def _described(balance: dict[str, int]) -> list[tuple[str, object]]:
    return [(key.replace("allowed", "in allowances"), tokens) for key, tokens in balance.items()]


@click.command()
@click.option("--wallet", type=wallet_name, metavar="NAME", help="Only what touches this wallet.")
@click.option(
    "--limit",
    type=click.IntRange(1, HISTORY_LIMIT_MAX),
    default=20,
    show_default=True,
    help="At most so many transactions.",
)
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="Oldest first, from the transaction after this one on; without it, newest first.",
)
@trace_url
@as_json
@pass_session
def history(session: Session, wallet: str | None, limit: int, after: int | None, as_json: bool) -> None:
    """Transactions of the ledger and the operations in them."""
    template = session.settings.trace_url
    with session.reading() as ledger:
        found = answer(
            ledger.transactions(after=after or 0, limit=limit, wallet=wallet, newest_first=after is None)
        )
        settled = [carried(ledger, one) if template else {} for one in found]
    if as_json:
        print_json(
            [_transaction(one, contracts, template) for one, contracts in zip(found, settled, strict=True)]
        )
        return
    print_table(
        ["no", "time", "by", "operation", "outcome", "transaction"],
        [
            [one.number, moment(one.time), each.issuer, _summary(each), _outcome(each), short(one.tx_id)]
            for one in found
            for each in one.operations
        ],
        empty="There are no transactions.",
        folding=["operation"],
    )
    if template:
        print_links(list(zip(found, settled, strict=True)), template)


@click.group(cls=MeshGroup)
def contract() -> None:
    """Look at contracts that were settled."""


@contract.command("show")
@click.argument("contract_id", metavar="ID")
@trace_url
@as_json
@pass_session
def show(session: Session, contract_id: str, as_json: bool) -> None:
    """A contract by its id: what it says, what was charged, in which transactions, and its trace."""
    template = session.settings.trace_url
    with session.reading() as ledger:
        found = answer(ledger.contract(contract_id))
    if not found:
        raise Fault(
            f"no settlement carries a contract {contract_id!r}: never fulfilled, or not settled yet "
            "(then the payee's receipt at /.well-known/tokenmesh/receipts/ID says so)"
        )
    if as_json:
        print_json([_appearance(one, template) for one in found])
        return
    for one in found:
        facts: list[tuple[str, object]] = [
            ("contract", contract_id),
            ("payer", one.payer),
            ("payee", one.payee),
            ("operation", one.op or PRIVATE),
            ("charged", one.charged),
            ("outcome", "settled" if one.code == "ok" else f"refused: {one.code}"),
            ("settled at", moment(one.time)),
            ("transaction", one.tx_id),
        ]
        claims = _claims(one)
        if claims is not None:
            facts += [
                ("request", f"{claims['htm']} {claims['htu']}" if claims["htm"] else PRIVATE),
                ("at most", claims["tok"]),
                ("paid via", claims["via"]),
                ("made", moment(claims["iat"])),
                ("expires", moment(claims["exp"])),
                *trace_facts(trace_of(claims["tp"]), template),
            ]
        print_facts(facts)


def _appearance(record: ContractRecord, template: str) -> dict[str, Any]:
    claims = _claims(record)
    trace = None if claims is None else trace_of(claims["tp"])
    return {**record._asdict(), "claims": claims, **trace_fields(trace, template)}


def _claims(record: ContractRecord) -> dict[str, Any] | None:
    """What the signed contract says, and its disclosure; None for a text that is no contract, which a
    settlement may carry. What is not disclosed is None."""
    try:
        body = parse_contract(record.contract).body
        if record.disclosure is not None:
            body = disclose(body, record.disclosure)
    except DocumentError:
        return None
    return {name: None if value == "" else value for name, value in body._asdict().items()}


def _transaction(one: Transaction, settled: dict[int, list[Carried]], template: str) -> dict[str, Any]:
    """``settled``: what its settlements carry, by their places, if links are asked for."""
    return {
        "number": one.number,
        "tx_id": one.tx_id,
        "time": one.time,
        "signer": one.signer,
        "operations": [
            {
                "issuer": each.issuer,
                "id": each.id,
                "act": each.act,
                "arg": _argument(each),
                "bytes": each.bytes,
                "outcome": {"ok": each.outcome.ok, "code": each.outcome.code, "detail": each.outcome.detail},
                **_links(settled.get(place), template),
            }
            for place, each in enumerate(one.operations)
        ],
    }


def _links(contracts: list[Carried] | None, template: str) -> dict[str, Any]:
    return {} if contracts is None else {"contracts": [one.described(template) for one in contracts]}


def _argument(operation: Recorded) -> dict[str, Any] | None:
    """What was asked for; None where the document is long and therefore not part of a listing."""
    if operation.document is None:
        return None
    try:
        return parse_operation(operation.document).body.arg
    except DocumentError:
        return None


def _summary(operation: Recorded) -> str:
    argument = _argument(operation)
    if argument is None:
        return f"{operation.act} ({operation.bytes:,} bytes)"
    return f"{operation.act} {brief(argument)}"


def _outcome(operation: Recorded) -> str:
    settled = operation.outcome.detail.get("settled")
    if operation.outcome.ok and settled is not None:
        return f"{settled} settled, {operation.outcome.detail.get('tokens', 0)} tokens"
    return operation.outcome.code

"""From the ledger to the traces: which trace a settled contract belongs to, and a link to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from tokenmesh.cli.desk import answer
from tokenmesh.cli.options import give
from tokenmesh.cli.output import Link, print_table, say
from tokenmesh.config import TRACE_ID
from tokenmesh.ledger.base import Ledger, Recorded, Transaction
from tokenmesh.telemetry.switch import span_context
from tokenmesh_chaincode.documents import DocumentError, parse_contract, parse_operation

SHOWN_MAX = 20
"""Contracts of one settlement that a listing for people names: nobody follows five hundred links."""

trace_url = click.option(
    "--trace-url",
    metavar="TEMPLATE",
    expose_value=False,
    callback=give,
    help=f"Link to traces: their viewer's URL with {TRACE_ID} in it. [TOKENMESH_TRACE_URL; default: none]",
)


class Trace(NamedTuple):
    """The trace of a call. Of one that is not ``sampled`` nothing was kept: there is nothing to link to."""

    id: str
    sampled: bool

    def url(self, template: str) -> str | None:
        """Where it is to be seen; None where it is not."""
        return template.replace(TRACE_ID, self.id) if template and self.sampled else None


class Carried(NamedTuple):
    """A contract as a settlement carries it; ``code`` is ``"ok"`` or why the rules refused it."""

    payer: str
    id: str
    charged: int
    code: str
    trace: Trace | None

    def described(self, template: str) -> dict[str, Any]:
        """As it stands in JSON."""
        return {**self._asdict(), **trace_fields(self.trace, template)}


def trace_of(tp: str | None) -> Trace | None:
    """The trace that a contract's ``tp`` names."""
    context = span_context(tp)
    return None if context is None else Trace(f"{context.trace_id:032x}", context.trace_flags.sampled)


def trace_fields(trace: Trace | None, template: str) -> dict[str, str | None]:
    """A trace in JSON: ``trace`` is its id, ``trace_url`` the link."""
    return {
        "trace": None if trace is None else trace.id,
        "trace_url": None if trace is None else trace.url(template),
    }


def trace_facts(trace: Trace | None, template: str) -> list[tuple[str, object]]:
    """A trace as lines for people."""
    if trace is None:
        return [("trace", None)]
    url = trace.url(template)
    facts: list[tuple[str, object]] = [("trace", trace.id if trace.sampled else f"{trace.id} (not sampled)")]
    return facts if url is None else [*facts, ("to be seen at", Link(url))]


def carried(ledger: Ledger, transaction: Transaction) -> dict[int, list[Carried]]:
    """What each settlement in ``transaction`` carries, by its place among the operations."""
    places = [place for place, one in enumerate(transaction.operations) if one.act == "settle"]
    operations = transaction.operations
    if any(operations[place].document is None for place in places):
        whole = answer(ledger.transaction(transaction.tx_id))
        operations = operations if whole is None else whole.operations
    return {place: list(_carried(operations[place])) for place in places}


def _carried(settlement: Recorded) -> Iterator[Carried]:
    if settlement.document is None:
        return
    outcome = settlement.outcome
    refused = outcome.detail.get("refused", {})
    for text, charged in parse_operation(settlement.document).body.arg["items"]:
        try:
            one = parse_contract(text).body
        except DocumentError:
            continue  # refused as no contract at all: it has neither an id nor a trace
        code = refused.get(f"{one.iss}/{one.jti}", "ok") if outcome.ok else outcome.code
        yield Carried(one.iss, one.jti, charged, code, trace_of(one.tp))


def print_links(found: list[tuple[Transaction, dict[int, list[Carried]]]], template: str) -> None:
    """The traces of what these transactions settle, as a table with a link for each that has one."""
    rows: list[list[object]] = []
    more: list[str] = []
    for transaction, settlements in found:
        traced = [one for each in settlements.values() for one in each if one.trace is not None]
        rows += [
            [transaction.number, one.id, one.payer, _outcome(one), _shown(one, template)]
            for one in traced[:SHOWN_MAX]
        ]
        if len(traced) > SHOWN_MAX:
            rest = len(traced) - SHOWN_MAX
            more.append(f"Transaction {transaction.number} has {rest:,} more: --json gives them all.")
    say("")
    print_table(
        ["no", "contract", "payer", "outcome", "trace"],
        rows,
        empty="No contract that was settled here has a trace.",
        folding=["trace"],
    )
    for line in more:
        say(line)


def _shown(one: Carried, template: str) -> object:
    assert one.trace is not None
    url = one.trace.url(template)
    return f"{one.trace.id} (not sampled)" if url is None else Link(url)


def _outcome(one: Carried) -> str:
    return f"{one.charged} tokens" if one.code == "ok" else one.code

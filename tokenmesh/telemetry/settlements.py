"""The span of a settlement: ``tokenmesh settle``, with a link to every call that it settles.

An SDK keeps 128 links of a span and drops the rest. So a settlement of more contracts has them on child
spans of the same name, a hundred on each; whichever way one comes, from a contract or from the settlement, no
contract is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from tokenmesh.telemetry import names, switch
from tokenmesh_chaincode.documents import DocumentError, parse_contract, take_presented

CONTRACTS_A_SPAN = 100
"""Contracts on one span, each a link and an event: an SDK keeps 128 of either."""
RETRIES_MAX = 28
"""Events of one span that say that its operation was sent again."""


class Settled(NamedTuple):
    """A contract as it goes to the ledger: ``text`` is the signed one, None of a void one."""

    payer: str
    jti: str
    text: str | None
    charged: int


class SettleWatch:
    """One operation for the ledger, from the first time that it is sent until the ledger has judged it."""

    def __init__(self, payee: str, domain: str, act: str, contracts: Sequence[Settled], span: Span) -> None:
        self._span = span
        self._contracts = contracts
        self._since_ns = time.time_ns()
        self._number = 0
        self._attributes: dict[str, Any] = {
            names.PAYEE: payee,
            names.DOMAIN: domain[: names.DOMAIN_LENGTH],
            names.ACT: act,
        }

    @classmethod
    def begin(cls, payee: str, domain: str, act: str, contracts: Sequence[Settled]) -> SettleWatch | None:
        """A settlement that begins now; None if nobody wants to know."""
        tracer = switch.tracer()
        if tracer is None:
            return None
        # A trace of its own, whoever's thread this is.
        span = tracer.start_span(names.SETTLE, context=Context())
        if not span.is_recording():
            return None
        made = cls(payee, domain, act, contracts, span)
        span.set_attributes(made._attributes | {names.CONTRACTS: len(contracts)})
        return made

    def again(self, why: str) -> None:
        """The ledger gave no answer that can be relied on: the same document goes to it again."""
        self._number += 1
        if self._number <= RETRIES_MAX:
            attributes: dict[str, Any] = {names.RESEND_COUNT: self._number, names.ERROR_TYPE: why}
            self._span.add_event(names.RETRY, attributes)

    def end(self, tx_id: str, lost: Iterable[str] = ()) -> None:
        """The ledger has judged every contract, in ``tx_id``; those in ``lost`` it has refused."""
        refused = frozenset(lost)
        tokens = sum(one.charged for one in self._contracts if one.jti not in refused)
        found: dict[str, Any] = {names.TX_ID: tx_id, names.TOKENS: tokens}
        self._attributes[names.TX_ID] = tx_id
        self._span.set_attributes(found)
        if len(self._contracts) <= CONTRACTS_A_SPAN:
            self._show(self._span, self._contracts, refused)
        else:
            self._divide(refused)
        self._span.end()

    def give_up(self, why: str) -> None:
        """This operation will not be judged: its contracts go to the ledger in another one."""
        self._span.set_attribute(names.ERROR_TYPE, why)
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _divide(self, refused: frozenset[str]) -> None:
        tracer, context = switch.tracer(), set_span_in_context(self._span, Context())
        if tracer is None:
            return
        for start in range(0, len(self._contracts), CONTRACTS_A_SPAN):
            some = self._contracts[start : start + CONTRACTS_A_SPAN]
            attributes = {**self._attributes, names.CONTRACTS: len(some)}
            part = tracer.start_span(
                names.SETTLE, context=context, attributes=attributes, start_time=self._since_ns
            )
            part.set_attribute(names.TOKENS, sum(one.charged for one in some if one.jti not in refused))
            self._show(part, some, refused)
            part.end()

    @staticmethod
    def _show(span: Span, contracts: Sequence[Settled], refused: frozenset[str]) -> None:
        """Put contracts on a span: links to their calls, an event for each, all their ids together.

        Events, as not every backend finds one id in an attribute that has many.
        """
        operations: set[str] = set()
        for one in contracts:
            text = one.text
            tp, operation = (None, "") if text is None else _read(text)
            remote = switch.span_context(tp)
            if remote is not None:
                span.add_link(remote, {names.CONTRACT_ID: one.jti})
            if operation:
                operations.add(operation)
            outcome = "void" if text is None else "lost" if one.jti in refused else "settled"
            about: dict[str, Any] = {
                names.CONTRACT_ID: one.jti,
                names.TOKENS: one.charged,
                names.OUTCOME: outcome,
            }
            span.add_event(names.SETTLED, about)
        span.set_attributes(
            {
                names.CONTRACT_ID: [one.jti for one in contracts],
                names.PAYER: sorted({one.payer for one in contracts}),
                names.OPERATION: sorted(operations),
            }
        )


def _read(text: str) -> tuple[str | None, str]:
    """The ``tp`` of a contract, and its operation as far as everyone may read that."""
    try:
        body = parse_contract(take_presented(text)[0]).body
    except DocumentError:
        return None, ""
    return body.tp, body.op

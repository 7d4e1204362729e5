"""The span of a settlement: ``tokenmesh settle``, with a link to every call that it settles.

An SDK keeps 128 links of a span and drops the rest. So a settlement of more contracts has them on child
spans of the same name, a hundred on each; whichever way one comes, from a contract or from the settlement, no
contract is left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from tokenmesh.telemetry import names, switch
from tokenmesh.telemetry.instruments import Attributes, Meters, meters
from tokenmesh.telemetry.ledgers import now
from tokenmesh.telemetry.logs import of_span
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

    def __init__(
        self,
        payee: str,
        domain: str,
        act: str,
        contracts: Sequence[Settled],
        span: Span | None,
        meters: Meters | None,
    ) -> None:
        self._span = span
        self._meters = meters
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
        tracer, instruments = switch.tracer(), meters()
        span = None
        if tracer is not None:
            # A trace of its own, whoever's thread this is.
            span = tracer.start_span(names.SETTLE, context=Context())
            if not span.is_recording():
                span = None
        if span is None and instruments is None:
            return None
        made = cls(payee, domain, act, contracts, span, instruments)
        if span is not None:
            span.set_attributes(made._attributes | {names.CONTRACTS: len(contracts)})
        return made

    @property
    def ids(self) -> dict[str, str]:
        """The fields of its span, for log records."""
        return {} if self._span is None else of_span(self._span.get_span_context())

    def again(self, why: str) -> None:
        """The ledger gave no answer that can be relied on: the same document goes to it again."""
        self._number += 1
        if self._span is not None and self._number <= RETRIES_MAX:
            attributes: dict[str, Any] = {names.RESEND_COUNT: self._number, names.ERROR_TYPE: why}
            self._span.add_event(names.RETRY, attributes)

    def end(self, tx_id: str, lost: Mapping[str, str], age_s: float | None) -> None:
        """The ledger has judged every contract, in ``tx_id``; it has refused those in ``lost``, for its
        codes. ``age_s`` is how long the oldest had been fulfilled."""
        tokens = sum(one.charged for one in self._contracts if one.jti not in lost)
        if self._meters is not None:
            self._measure(self._meters, lost, tokens, age_s)
        span = self._span
        if span is None:
            return
        self._attributes[names.TX_ID] = tx_id
        found: dict[str, Any] = {names.TX_ID: tx_id, names.TOKENS: tokens}
        span.set_attributes(found)
        if len(self._contracts) <= CONTRACTS_A_SPAN:
            self._show(span, self._contracts, lost)
        else:
            self._divide(span, lost)
        span.end()

    def give_up(self, why: str) -> None:
        """This operation will not be judged: its contracts go to the ledger in another one."""
        if self._span is not None:
            self._span.set_attribute(names.ERROR_TYPE, why)
            self._span.set_status(Status(StatusCode.ERROR))
            self._span.end()

    def _measure(self, meters: Meters, lost: Mapping[str, str], tokens: int, age_s: float | None) -> None:
        domain: Attributes = {names.DOMAIN: self._attributes[names.DOMAIN]}
        context = None if self._span is None else set_span_in_context(self._span)
        meters.record("tokenmesh.settle.size", len(self._contracts), domain, context)
        outcomes = Counter(_outcome(one, lost) for one in self._contracts)
        for outcome, count in outcomes.items():
            about = domain | {names.OUTCOME: outcome}
            if outcome != "lost":
                meters.record("tokenmesh.settle.contracts", count, about, context)
        for code, count in Counter(lost.values()).items():
            about = domain | {names.OUTCOME: "lost", names.CODE: meters.reason(code)}
            meters.record("tokenmesh.settle.contracts", count, about, context)
        if tokens:
            meters.record("tokenmesh.settle.tokens", tokens, domain, context)
        if age_s is not None:
            meters.record("tokenmesh.settle.lag", max(0.0, age_s), domain, context)

    def _divide(self, span: Span, refused: Mapping[str, str]) -> None:
        tracer, context = switch.tracer(), set_span_in_context(span, Context())
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
    def _show(span: Span, contracts: Sequence[Settled], refused: Mapping[str, str]) -> None:
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
            about: dict[str, Any] = {names.CONTRACT_ID: one.jti, names.TOKENS: one.charged}
            about[names.OUTCOME] = _outcome(one, refused)
            span.add_event(names.SETTLED, about)
        span.set_attributes(
            {
                names.CONTRACT_ID: [one.jti for one in contracts],
                names.PAYER: sorted({one.payer for one in contracts}),
                names.OPERATION: sorted(operations),
            }
        )


def measure_round(domain: str, since: float, error: BaseException | None = None) -> None:
    """One round of settlement, begun at ``since`` (:func:`.ledgers.now`), is over."""
    instruments = meters()
    if instruments is not None:
        about: Attributes = {names.DOMAIN: domain[: names.DOMAIN_LENGTH]}
        if error is not None:
            about[names.ERROR_TYPE] = instruments.reason(type(error).__name__)
        instruments.record("tokenmesh.settle.duration", now() - since, about)


def _outcome(one: Settled, lost: Mapping[str, str]) -> str:
    return "void" if one.text is None else "lost" if one.jti in lost else "settled"


def _read(text: str) -> tuple[str | None, str]:
    """The ``tp`` of a contract, and its operation as far as everyone may read that."""
    try:
        body = parse_contract(take_presented(text)[0]).body
    except DocumentError:
        return None, ""
    return body.tp, body.op

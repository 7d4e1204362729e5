"""What Jaeger must show of a demo that was exported, contract by contract.

All is measured against what the demo leaves behind: what its ledger's history has settled, what the wire saw,
and which service was killed when. A killed process takes with it what it has not sent; so of contracts that
it had a part in before that moment, only what others know is asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.collector import Collector
from support.jaeger import Jaeger, Span, Trace
from tokenmesh.cli.demo.auditor import Settled
from tokenmesh.cli.demo.notes import Reader
from tokenmesh.cli.demo.plan import NAMES, SERVICES, SHOPPER, Paths
from tokenmesh.cli.demo.wire import claims_of

TRACES_MAX = 50_000
AT_ONCE = 4
CALL, FULFIL, SETTLE = "tokenmesh call", "tokenmesh fulfil", "tokenmesh settle"
ID, TX = "tokenmesh.contract.id", "tokenmesh.tx.id"
LEVEL = 5
"""Spans of one paid call, from the payer's to the handler's."""
CLOCK_S = 0.001
"""By so much a span may seem to begin before its parent: Jaeger counts in microseconds."""


class Demo:
    """A demo that is over: what it left in ``home``, and what Jaeger has of it by way of ``collector``."""

    def __init__(self, home: Path, summary: dict[str, Any], jaeger: Jaeger, collector: Collector) -> None:
        paths = Paths(home)
        self.jaeger = jaeger
        self.collector = collector
        self.settled = [Settled(**note) for note in Reader(paths.settled).new()]
        self._passages: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for note in Reader(paths.wire).new():
            if note["jti"] is not None:
                self._passages[note["payer"], note["jti"]].append(note)
        self.domain = next(
            claims_of(note["receipt"])["dom"][:16] for note in Reader(paths.wire).new() if note["receipt"]
        )
        (kill,) = (deed for deed in summary["trouble"] if deed["what"] == "killed and restarted")
        self.killed: str = kill["who"]
        pays = {service.name: service.pays for service in SERVICES}
        assert not pays[self.killed], f"other calls hang under those of {self.killed}: take another seed"
        self._killed_at = paths.door.stat().st_mtime + kill["at_s"]

    def whole(self) -> list[Settled]:
        """The settled contracts of which nothing was lost with the process that was killed."""
        return [one for one in self.settled if not self._torn(one)]

    def _torn(self, one: Settled) -> bool:
        first = min(note["t"] for note in self._passages[one.payer, one.jti])
        return self.killed in (one.payer, one.payee) and first <= self._killed_at

    def passages(self, one: Settled) -> list[dict[str, Any]]:
        """What the wire has noted of each request with this contract."""
        return self._passages[one.payer, one.jti]

    def _is_ours(self, span: Span) -> bool:
        """Of this demo's contracts, or of its settlements: there may have been another one."""
        attributes = span.attributes
        if attributes.get("tokenmesh.domain") == self.domain:
            return True
        return (attributes.get("tokenmesh.payer"), attributes.get(ID)) in self._passages

    @cached_property
    def traces(self) -> list[Trace]:
        """All of them."""
        found = {
            trace.id: trace
            for service in (SHOPPER, *NAMES)
            for trace in self.jaeger.traces(service, {}, limit=TRACES_MAX)
            if any(map(self._is_ours, trace.spans))
        }
        return list(found.values())

    @cached_property
    def spans(self) -> dict[str, Span]:
        """By their id."""
        return {span.id: span for trace in self.traces for span in trace.spans}

    @cached_property
    def calls(self) -> dict[tuple[str, str], list[Span]]:
        """The payers' spans, by payer and contract."""
        return self._by_contract(CALL)

    @cached_property
    def served(self) -> dict[tuple[str, str], list[Span]]:
        """The payees' spans, one for each request, by payer and contract."""
        return self._by_contract(FULFIL)

    @cached_property
    def fulfilled(self) -> dict[tuple[str, str], list[Span]]:
        """The payees' spans of what they were paid for, by payer and contract."""
        return {
            key: [span for span in spans if _outcome(span) == "fulfilled"]
            for key, spans in self.served.items()
        }

    def _by_contract(self, name: str) -> dict[tuple[str, str], list[Span]]:
        found: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
        for span in self.spans.values():
            if span.name == name and ID in span.attributes:
                found[span.attributes["tokenmesh.payer"], span.attributes[ID]].append(span)
        return found

    def children(self, span: Span) -> list[Span]:
        return self._children.get(span.id, [])

    @cached_property
    def _children(self) -> dict[str, list[Span]]:
        found: defaultdict[str, list[Span]] = defaultdict(list)
        for span in self.spans.values():
            if span.parent is not None:
                found[span.parent].append(span)
        return found

    def path(self, span: Span) -> list[Span]:
        """From the root of its trace to ``span``."""
        spans = [span]
        while spans[0].parent is not None:
            assert spans[0].parent in self.spans, f"the parent of {spans[0]} is missing"
            spans.insert(0, self.spans[spans[0].parent])
        return spans


def check(demo: Demo) -> None:
    """All that there is to see of a demo."""
    # A check of a few contracts would say nothing.
    assert len(demo.whole()) > 0.8 * len(demo.settled) > 50
    check_paid_calls(demo)
    check_retries(demo)
    check_orders(demo)
    check_settlements(demo)
    check_torn(demo)


def check_paid_calls(demo: Demo) -> None:
    """Each is a trace from the shopper on, with both sides' HTTP spans and the handler's, in the right order;
    and every call on the way there has its own tokens."""
    charged = {(one.payer, one.jti): one.charged for one in demo.settled}
    for one in demo.whole():
        (fulfil,) = demo.fulfilled[one.payer, one.jti]
        (handler,) = (child for child in demo.children(fulfil) if child.name.startswith("shop "))
        path = demo.path(handler)
        assert path[0].service == SHOPPER
        assert len(path) % LEVEL == 0, path
        levels = [path[start : start + LEVEL] for start in range(0, len(path), LEVEL)]
        for level, above in zip(levels, [None, *levels], strict=False):
            _check_level(level, charged)
            assert above is None or level[0].service == above[-1].service
        call = levels[-1][0]
        assert (call.service, fulfil.service) == (one.payer, one.payee)
        for span in (fulfil, *demo.calls[one.payer, one.jti]):
            # A call that ended without an answer does not know; the next one for the same carries it on.
            unknown = span.attributes.get("tokenmesh.outcome") == "unknown"
            about = (ID, "tokenmesh.operation", "tokenmesh.payee", "tokenmesh.tokens")
            found = [span.attributes.get(name) for name in about]
            assert found == [one.jti, one.op, one.payee, None if unknown else one.charged], (one, span)


def _check_level(level: list[Span], charged: dict[tuple[str, str], int]) -> None:
    """One paid call: the payer's span, the request, the request served, the contract, the handler."""
    call, request, served, fulfil, handler = level
    payer, payee = call.service, fulfil.service
    assert [span.name for span in (call, fulfil)] == [CALL, FULFIL]
    assert [span.kind for span in level] == ["client", "client", "server", "internal", "internal"]
    assert [span.service for span in level] == [payer, payer, payee, payee, payee]
    assert len({span.trace_id for span in level}) == 1
    method = fulfil.attributes["tokenmesh.operation"].split(" ")[0]
    assert request.name == method
    assert served.name.split(" ")[0] == method
    starts = [span.start for span in level]
    assert all(later >= earlier - CLOCK_S for earlier, later in pairwise(starts))
    assert handler.end <= fulfil.end + CLOCK_S
    # Of what was not fulfilled nothing was settled, though what it had called may have been.
    tokens = fulfil.attributes.get("tokenmesh.tokens", 0)
    assert tokens == charged.get((payer, fulfil.attributes[ID]), 0)


def check_retries(demo: Demo) -> None:
    """A call whose response was lost is one span with an HTTP span for each request, and says how often it
    was sent again; the work was done once, every other request got what was stored, or was refused."""
    again = [one for one in demo.whole() if len(demo.passages(one)) > 1]
    assert again, "no response of a paid call was lost"
    for one in again:
        calls = demo.calls[one.payer, one.jti]
        lost = sum(note["lost"] for note in demo.passages(one))
        sent = failed = 0
        for call in calls:
            requests = [child for child in demo.children(call) if child.kind == "client" and not _asks(child)]
            retries = [event for event in call.events if event.name == "tokenmesh.retry"]
            counts = [event.attributes["http.request.resend_count"] for event in retries]
            assert counts == list(range(1, len(requests))), call
            sent += len(requests)
            failed += sum(child.error for child in requests)
        assert sent >= len(demo.passages(one))
        assert failed >= lost
        outcomes = Counter(map(_outcome, demo.served[one.payer, one.jti]))
        assert outcomes["fulfilled"] == 1
        assert outcomes.keys() <= {"fulfilled", "replayed", "refused"}
        (fulfil,) = demo.fulfilled[one.payer, one.jti]
        assert len([child for child in demo.children(fulfil) if child.name.startswith("shop ")]) == 1
    # An order is tried again by the shopper as well: then it is several calls under one contract.
    assert any(len(demo.calls[one.payer, one.jti]) == 1 for one in again)


def _outcome(span: Span) -> str:
    """What a request came to; only what is not to be expected is said."""
    return str(span.attributes.get("tokenmesh.outcome", "fulfilled"))


def _asks(request: Span) -> bool:
    """Whether it asks for offers, which costs nothing."""
    return any("/.well-known/" in str(value) for value in request.attributes.values())


def check_orders(demo: Demo) -> None:
    """An order is one tree from the shopper by frontend and checkout to payment, with tokens at each edge."""
    paid = [one for one in demo.whole() if one.payee == "payment"]
    assert paid, "nothing was bought"
    charged = Counter({(one.payer, one.payee, one.jti): one.charged for one in demo.settled})
    complete = 0
    for one in paid:
        (fulfil,) = demo.fulfilled[one.payer, one.jti]
        edges = [span for span in demo.path(fulfil) if span.name == CALL]
        payees = [(span.service, span.attributes["tokenmesh.payee"]) for span in edges]
        assert payees == [(SHOPPER, "frontend"), ("frontend", "checkout"), ("checkout", "payment")]
        tokens = [charged[*pair, span.attributes[ID]] for pair, span in zip(payees, edges, strict=True)]
        complete += all(tokens)
    assert complete, "no order was paid for from one end to the other"


def check_settlements(demo: Demo) -> None:
    """Jaeger finds the settlement by each contract's id, and by each transaction all its contracts, with a
    link to the call of each."""
    whole = {(one.payee, one.jti) for one in demo.whole()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: _check_contract(demo, one), demo.whole()))
    transactions: defaultdict[tuple[str, str], list[Settled]] = defaultdict(list)
    for one in demo.settled:
        transactions[one.payee, one.tx_id].append(one)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [
            pool.submit(_check_transaction, demo, payee, tx_id, settled)
            for (payee, tx_id), settled in transactions.items()
            if all((one.payee, one.jti) in whole for one in settled)
        ]
        for each in asked:
            each.result()


def _check_contract(demo: Demo, one: Settled) -> None:
    found = demo.jaeger.traces(one.payee, {ID: one.jti}, limit=TRACES_MAX)
    settled = {
        span.attributes[TX]
        for trace in found
        for span in trace.all(SETTLE, one.payee)
        if any(jti == one.jti for jti, _ in _contracts(span))
    }
    answered = demo.collector.settled(one.jti)
    assert settled == {one.tx_id}, f"{one} was found settled in {settled}; its export was answered {answered}"
    (fulfil,) = demo.fulfilled[one.payer, one.jti]
    assert fulfil.trace_id in {trace.id for trace in found}


def _check_transaction(demo: Demo, payee: str, tx_id: str, settled: list[Settled]) -> None:
    found = demo.jaeger.traces(payee, {TX: tx_id}, limit=TRACES_MAX)
    spans = [span for trace in found for span in trace.all(SETTLE, payee) if span.attributes.get(TX) == tx_id]
    contracts = sorted(pair for span in spans for pair in _contracts(span))
    assert contracts == sorted((one.jti, one.charged) for one in settled), tx_id
    links = {(link.trace_id, link.span_id) for span in spans for link in span.links}
    for one in settled:
        (fulfil,) = demo.fulfilled[one.payer, one.jti]
        call = next(span for span in reversed(demo.path(fulfil)) if span.name == CALL)
        assert (call.trace_id, call.id) in links, f"{tx_id} does not lead to {one}"


def _contracts(settle: Span) -> Iterator[tuple[str, int]]:
    """The contracts that a settlement's span says it has settled, with their tokens."""
    for event in settle.events:
        if event.name == "tokenmesh.settled" and event.attributes["tokenmesh.outcome"] == "settled":
            yield event.attributes[ID], event.attributes["tokenmesh.tokens"]


def check_torn(demo: Demo) -> None:
    """What was lost with a killed process has left its traces with the others."""
    for one in demo.settled:
        known = [*demo.calls[one.payer, one.jti], *demo.fulfilled.get((one.payer, one.jti), [])]
        assert known or demo.jaeger.traces(one.payee, {ID: one.jti}), f"nothing is known of {one}"

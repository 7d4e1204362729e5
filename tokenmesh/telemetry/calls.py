"""The two spans of a call: the payer's ``tokenmesh call`` and the payee's ``tokenmesh fulfil``.

Their attributes are set once, at the end, when all are known: to hand them to an SDK twice is what costs.
"""

from __future__ import annotations

import time
from contextvars import Token
from typing import Any

from opentelemetry.context import Context, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from tokenmesh.telemetry import names, switch
from tokenmesh.telemetry.instruments import Meters, meters
from tokenmesh_chaincode.documents import Contract

_HOLD = "hold"
FULFILLED = "fulfilled"
"""What nearly all calls come to: a span without an outcome has this one, as one without an error has none."""
REFUSED = "refused"
REPLAYED = "replayed"
_ERROR = Status(StatusCode.ERROR)


class CallWatch:
    """The payer's span of one call, whatever number of requests it takes. It is current from its beginning to
    :meth:`leave`, so that the requests' own spans hang under it; a streamed response may end it later."""

    __slots__ = (
        "_context",
        "_contract",
        "_ended",
        "_meters",
        "_operation",
        "_out",
        "_payee",
        "_payer",
        "_recording",
        "_since",
        "_span",
        "_token",
        "_tokens",
        "_tx_id",
    )

    def __init__(self, payer: str, payee: str, span: Span | None, meters: Meters | None) -> None:
        self._span = span
        self._recording = span is not None and span.is_recording()
        self._context: Context | None = None
        self._token: Token[Context] | None = None
        self._payer = payer
        self._payee = payee
        self._meters = meters
        self._since = time.perf_counter()
        self._operation: str | None = None
        self._contract: Contract | None = None
        self._out = ""
        self._tokens = 0
        self._tx_id: str | None = None
        self._ended = False

    @classmethod
    def begin(cls, payer: str, payee: str) -> CallWatch | None:
        """A call that begins now; None if nobody wants to know."""
        if switch.is_quiet():
            return None
        tracer, instruments = switch.tracer(), meters()
        if tracer is None:
            if instruments is None and not switch.ids_in_logs():
                switch.be_quiet()
                return None
            return cls(payer, payee, None, instruments).enter()
        span = tracer.start_span(names.CALL, kind=SpanKind.CLIENT)
        return cls(payer, payee, span, instruments).enter()

    @property
    def contract(self) -> Contract | None:
        """The contract that goes with its requests, once there is one."""
        return self._contract

    def enter(self) -> CallWatch:
        """Make it the current span."""
        if self._span is not None and self._context is None:
            self._context = set_span_in_context(self._span)
        self._token = switch.attach(self, self._context)
        return self

    def leave(self) -> None:
        """Let the caller's span be the current one again."""
        token, self._token = self._token, None
        if token is not None:
            detach(token)

    def signed(self, contract: Contract) -> None:
        """A contract goes with the next request."""
        self._operation = contract.op
        self._contract = contract

    def again(self, number: int, why: str, status: int | None) -> None:
        """The next request goes out, the ``number``-th after the first: no error as long as one succeeds."""
        if self._meters is not None:
            attributes = self._meters.pair(self._payee, None)
            attributes[names.ERROR_TYPE] = self._meters.reason(why)
            self._meters.record("tokenmesh.call.retries", 1, attributes)
        if self._recording and self._span is not None:
            about: dict[str, Any] = {names.RESEND_COUNT: number, names.ERROR_TYPE: why}
            if status is not None:
                about[names.STATUS_CODE] = status
            self._span.add_event(names.RETRY, about)

    def concluded(self, out: str, tokens: int, tx_id: str | None) -> None:
        """The contract has ended, as its receipt says."""
        self._out, self._tokens, self._tx_id = out, tokens, tx_id
        if self._meters is not None and tokens:
            self._meters.add("tokenmesh.call.tokens", tokens, self._payee, self._operation)

    def end(self, error: str | None = None, otherwise: str = "free") -> None:
        """The call is over; ``error`` says why it failed, if it did. ``otherwise`` is its outcome if no
        receipt has said one."""
        if self._ended:
            return
        self._ended = True
        if self._meters is not None:
            attributes = self._meters.pair(self._payee, self._operation)
            attributes[names.OUTCOME] = self._out or otherwise
            if error is not None:
                attributes[names.ERROR_TYPE] = self._meters.reason(error)
            took = time.perf_counter() - self._since
            self._meters.record("tokenmesh.call.duration", took, attributes, self._context)
        span, self._span = self._span, None
        if span is not None:
            if self._recording:
                span.set_attributes(self._about(error, otherwise))
                if error is not None:
                    span.set_status(_ERROR)
            span.end()

    def _about(self, error: str | None, otherwise: str) -> dict[str, Any]:
        about: dict[str, Any] = {names.PAYER: self._payer, names.PAYEE: self._payee}
        if self._out != FULFILLED:
            about[names.OUTCOME] = self._out or otherwise
        contract = self._contract
        if contract is not None:
            about[names.CONTRACT_ID] = contract.jti
            about[names.OPERATION] = contract.op
            _note_terms(about, contract, self._tokens if self._out else None)
        if self._out:
            about[names.TOKENS] = self._tokens
        if self._tx_id is not None:
            about[names.TX_ID] = self._tx_id
        if error is not None:
            about[names.ERROR_TYPE] = error
        return about


class FulfilWatch:
    """What a request to a priced operation shows of itself: a span once it is clear what becomes of it,
    the current one while the handler runs.

    ``request`` has headers to look at, for where nothing else has taken its trace up.
    """

    __slots__ = (
        "_claimed",
        "_context",
        "_contract",
        "_meters",
        "_operation",
        "_request",
        "_since",
        "_since_ns",
        "_span",
        "_token",
        "_tracer",
    )

    def __init__(
        self, operation: str, request: switch.Received, tracer: Tracer | None, meters: Meters | None
    ) -> None:
        self._operation = operation
        self._request = request
        self._tracer = tracer
        self._meters = meters
        self._since = self._claimed = 0.0 if meters is None else time.perf_counter()
        self._contract: Contract | None = None
        self._since_ns = time.time_ns()
        self._span: Span | None = None
        self._context: Context | None = None
        self._token: Token[Context] | None = None

    @classmethod
    def begin(cls, operation: str, request: switch.Received) -> FulfilWatch | None:
        """A request that is here now; None if nobody wants to know."""
        if switch.is_quiet():
            return None
        tracer, instruments = switch.tracer(), meters()
        if tracer is None and instruments is None and not switch.ids_in_logs():
            switch.be_quiet()
            return None
        return cls(operation, request, tracer, instruments)

    @property
    def contract(self) -> Contract | None:
        """The contract that was claimed."""
        return self._contract

    def claimed(self, contract: Contract) -> None:
        """The contract is taken: the handler is about to run."""
        self._contract = contract
        tracer = self._tracer
        if tracer is not None:
            context = switch.parent(self._request, contract.tp)
            span = self._span = tracer.start_span(names.FULFIL, context, start_time=self._since_ns)
            self._context = set_span_in_context(span, context)
        if self._meters is not None:
            self._claimed = time.perf_counter()
            attributes = self._meters.pair(None, self._operation)
            attributes[names.VIA] = via(contract)
            took = self._claimed - self._since
            self._meters.record("tokenmesh.claim.duration", took, attributes, self._context)

    def enter(self) -> None:
        """Make its span the current one."""
        if self._token is None:
            self._token = switch.attach(self, self._context)

    def leave(self) -> None:
        """Let the request's span be the current one again."""
        token, self._token = self._token, None
        if token is not None:
            detach(token)

    def ended(self, out: str, tokens: int, error: str | None = None, *, failed: bool = False) -> None:
        """The contract has ended. ``error`` says why it was not fulfilled, ``failed`` that it was this side's
        doing, as a server's 5xx is."""
        if self._meters is not None:
            self._measure(self._meters, out, tokens, error)
        span, contract, self._span = self._span, self._contract, None
        if span is not None and contract is not None:
            about: dict[str, Any] = {
                names.CONTRACT_ID: contract.jti,
                names.PAYER: contract.iss,
                names.PAYEE: contract.aud,
                names.OPERATION: self._operation,
                names.TOKENS: tokens,
            }
            if out != FULFILLED:
                about[names.OUTCOME] = out
            if error is not None:
                about[names.ERROR_TYPE] = error
            if contract.tok != tokens or contract.via == _HOLD:
                _note_terms(about, contract, tokens)
            span.set_attributes(about)
            if failed:
                span.set_status(_ERROR)
            span.end()

    def answered(self, contract: Contract | None, code: str | None, *, failed: bool) -> None:
        """Something else goes out in place of the handler's response: for ``code``, or (None) because the
        contract gets the answer that it has had."""
        if self._meters is not None:
            attributes = self._meters.pair(None, self._operation)
            if code is not None:
                attributes[names.CODE] = self._meters.reason(code)
            name = "tokenmesh.contract.replays" if code is None else "tokenmesh.contract.refusals"
            self._meters.record(name, 1, attributes)
        span, self._span = self._span, None
        if span is None and self._tracer is not None:
            context = switch.parent(self._request, None if contract is None else contract.tp)
            span = self._tracer.start_span(names.FULFIL, context, start_time=self._since_ns)
        if span is not None:
            about = _of_contract(contract)
            if code is None:
                about[names.OUTCOME] = REPLAYED
            else:
                about |= {names.OUTCOME: REFUSED, names.CODE: code, names.ERROR_TYPE: code}
                if failed:
                    span.set_status(_ERROR)
            span.set_attributes(about)
            span.end()

    def _measure(self, meters: Meters, out: str, tokens: int, error: str | None) -> None:
        attributes = meters.pair(None, self._operation)
        attributes[names.OUTCOME] = out
        if error is not None:
            attributes[names.ERROR_TYPE] = meters.reason(error)
        took = time.perf_counter() - self._claimed
        meters.record("tokenmesh.handler.duration", took, attributes, self._context)
        if tokens and self._contract is not None:
            meters.add("tokenmesh.fulfil.tokens", tokens, self._contract.iss, self._operation)


def _of_contract(contract: Contract | None) -> dict[str, Any]:
    if contract is None:
        return {}
    return {
        names.CONTRACT_ID: contract.jti,
        names.PAYER: contract.iss,
        names.PAYEE: contract.aud,
        names.OPERATION: contract.op,
    }


def _note_terms(about: dict[str, Any], contract: Contract, tokens: int | None) -> None:
    """What is not as usual: a hold, and a contract for more than was charged."""
    if contract.via == _HOLD:
        about[names.VIA] = _HOLD
    if contract.tok != tokens:
        about[names.CONTRACT_TOKENS] = contract.tok


def via(contract: Contract) -> str:
    """How a contract is paid, in one word: an allowance's id says more than is wanted."""
    return _HOLD if contract.via == _HOLD else "allowance"

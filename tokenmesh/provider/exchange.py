"""One request to a priced operation, from its contract to its receipt: what a framework's adapter drives.

An adapter makes an :class:`Exchange` for each such request and brings it through ``check``, ``admit`` and
``begin`` (or ``begin`` alone, which does what is left to do) before the handler runs, and through ``end``
once the response is complete. Each may raise :class:`~tokenmesh.provider.problems.Answered`: then its
``answer`` goes out instead of what the handler gave, past every error handler of the user's. What the handler
raises is its own affair: ``fail`` notes that it did, and the framework makes of it what it always makes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar

from tokenmesh.errors import ServingError
from tokenmesh.journal import StoredResponse
from tokenmesh.provider.call import Call
from tokenmesh.provider.domains import AnyProvider
from tokenmesh.provider.problems import Answer, Answered, Refused
from tokenmesh.provider.saying import say_refused, say_void
from tokenmesh.provider.terms import Request, Terms
from tokenmesh.steps import Steps
from tokenmesh.telemetry import FulfilWatch
from tokenmesh_chaincode import documents

_CRASH_BODY = b"Internal Server Error"
CRASHED = StoredResponse(
    500,
    [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_CRASH_BODY)))],
    _CRASH_BODY,
    documents.digest(_CRASH_BODY),
)
"""What stands for the response of a handler whose exception the framework makes something of later, or that
never had one."""

current: ContextVar[Exchange | None] = ContextVar("tokenmesh_exchange", default=None)
"""The exchange of the request that runs in this context."""


class Exchange:
    """One request. ``handler`` tells whose it is; a handler answers no exchange but its own.

    ``streams`` is for adapters: the response ends later than its request does.
    """

    __slots__ = (
        "_checked",
        "_error",
        "_reason",
        "answer",
        "call",
        "ended",
        "free",
        "handler",
        "provider",
        "request",
        "streams",
        "terms",
        "watch",
    )
    deferred: ClassVar[bool] = False
    """Whether a generator may begin with its first item: the adapter sends nothing before that."""

    def __init__(self, provider: AnyProvider, terms: Terms, request: Request, handler: object) -> None:
        self.provider = provider
        self.terms = terms
        self.request = request
        self.handler = handler
        self.free = False
        self.answer: Answer | None = None
        self.call: Call | None = None
        self.ended = False
        self.streams = False
        self._checked: Call | None = None
        self._reason = ""
        self._error = ""
        self.watch = FulfilWatch.begin(request.operation, self)

    def headers(self, names: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG002 - adapters know them
        """Those of these headers that the request has, for what a trace is made of."""
        return {}

    @property
    def open(self) -> bool:
        """Whether a contract is claimed and has not ended."""
        return self.call is not None and not self.ended

    @property
    def failed(self) -> bool:
        """Whether the handler has raised."""
        return bool(self._reason)

    def check(self) -> Steps[None] | None:
        """Look at the contract; nothing of the body is read, nothing is written. Gives the steps that are
        left, if something has to be waited for."""
        call = self._checked = self.provider.check_at_once(self.request, self.terms)
        if call is None:
            self.free = True
            return None
        return None if call.checked else call.provider.check_further(call)

    def admit(self) -> Steps[None] | None:
        """Look at the body, once ``request.body`` can give it. Gives what is left, as ``check`` does."""
        call = self._checked
        if call is None:
            return None
        call.provider.compare(call)
        if call.fault is not None:
            return call.provider.recall(call, call.fault)
        call.provider.look_ahead(call)
        return None

    def begin(self) -> Steps[None] | None:
        """All that is still to be done before the handler runs; from here on something has to end this
        exchange. Gives what is left, as ``check`` does. Once only: a handler that is run twice in one request
        would be paid once."""
        if self.call is not None or self.ended:
            raise ServingError(
                f"{self.request.operation} runs a second time in one request, which pays for one"
            )
        call = self._checked
        if call is None:
            if self.free:
                return None
            call = self._checked = self.provider.check_at_once(self.request, self.terms)
            if call is None:
                self.free = True
                return None
            if not call.checked:
                return self._begin(call)
            call.provider.compare(call)
            call.provider.look_ahead(call)
        if call.provider.claim_at_once(call):
            self.call = call
            if self.watch is not None:
                self.watch.claimed(call.contract)
            return None
        return self._begin(call)

    def _begin(self, call: Call) -> Steps[None]:
        if not call.checked:
            yield from call.provider.check_further(call)
            yield from call.provider.admit(call)
        yield from call.provider.claim(call)
        self.call = call
        if self.watch is not None:
            self.watch.claimed(call.contract)

    def leave(self, answered: Answered) -> BaseException:
        """What to raise so that the handler is left and ``answer`` goes out."""
        self.answer = answered.answer
        self._answered(answered)
        return answered

    def _answered(self, answered: Answered) -> None:
        code = answered.problem.code if isinstance(answered, Refused) else None
        if code is not None:
            say_refused(self.request.operation, code, self._checked)
        watch, self.watch = self.watch, None
        if watch is not None:
            contract = None if self._checked is None else self._checked.contract
            watch.answered(contract, code, failed=answered.answer.status >= 500)

    def fail(self, error: BaseException) -> None:
        """The handler raised: whatever response comes of it, nothing is owed."""
        self._error = type(error).__name__
        self._reason = f"the handler raised {self._error}"

    def charge(self, tokens: int) -> None:
        """Say what is owed; see :func:`tokenmesh.charge`."""
        if self.free:
            return
        call = self.call
        if call is None or self.ended:
            raise ServingError("charge() belongs into the handler, while it runs")
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= call.price.needed:
            raise ServingError(f"charge({tokens!r}): it is a whole number from 0 to {call.price.needed} here")
        call.charged = tokens

    def end_at_once(self, response: StoredResponse) -> str | None:
        """Try :meth:`end` without waiting for anything; None: call that."""
        call = self.call
        if call is None or self.ended or self._reason or response.status >= 400 or self.terms.fulfilled_when:
            return None
        self.ended = True
        receipt = call.provider.fulfil_at_once(call, response)
        self.ended = receipt is not None
        if self.ended and self.watch is not None:
            self._show("fulfilled", call.charged)
        return receipt

    def end(self, response: StoredResponse, native: Callable[[], Any]) -> Steps[str | None]:
        """The response is complete: fulfil, or void if it is a failure. Gives the receipt to send with it.

        ``native`` gives the framework's own response, for ``fulfilled_when``. Raises ``Answered`` (503) when
        the end cannot be written down: what the handler gave must not go out then.
        """
        call = self.call
        if call is None or self.ended:
            return None
        if not self._reason and (response.status >= 400 or self.terms.fulfilled_when is not None):
            self._reason = self._failure(response, native)
        self.ended = True
        if self._reason:
            say_void(self.request.operation, self._reason, call)
            receipt = yield from call.provider.void(call, self._reason, response)
            self._show("void", 0, response)
            return receipt
        try:
            receipt = yield from call.provider.fulfil(call, response)
        except Answered as answered:
            self._answered(answered)
            raise
        self._show("fulfilled", call.charged)
        return receipt

    def abort(self, reason: str, response: StoredResponse = CRASHED) -> Steps[None]:
        """There will be no complete response: void, if that is still to be done."""
        call = self.call
        if call is not None and not self.ended:
            self.ended = True
            say_void(self.request.operation, self._reason or reason, call)
            yield from call.provider.void(call, self._reason or reason, response)
            self._show("void", 0, CRASHED if self._error else None)

    def _show(self, out: str, tokens: int, response: StoredResponse | None = None) -> None:
        """Tell who watches how the contract has ended."""
        watch, self.watch = self.watch, None
        if watch is not None:
            if out == "fulfilled":
                watch.ended(out, tokens)
                return
            status = 0 if response is None else response.status
            watch.ended(out, tokens, self._error or str(status or "aborted"), failed=status >= 500)

    def _failure(self, response: StoredResponse, native: Callable[[], Any]) -> str:
        if response.status >= 400:
            return f"the response has status {response.status}"
        accept = self.terms.fulfilled_when
        if accept is None:
            return ""
        try:
            fulfilled = accept(native())
        except Exception as error:
            self._error = type(error).__name__
            self._reason = f"fulfilled_when raised {type(error).__name__}"
            raise
        if fulfilled:
            return ""
        self._error = "fulfilled_when"
        return "fulfilled_when says no"

"""What a response means for the contract that went with its request.

A receipt says how the contract ended. Without one, a payee's problem (RFC 9457, with our ``code``) says why
it was not taken or not now; a server error from anywhere says nothing, and leaves the contract in doubt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tokenmesh.consumer.messages import (
    RECEIPT_HEADER,
    Ask,
    CallInfo,
    InResponse,
    TransportFailed,
)
from tokenmesh.consumer.offers import Offers, read_offers
from tokenmesh.consumer.outcomes import Again, Resign
from tokenmesh.consumer.receipts import RECEIPTS_PATH, Digests, Expected, ReceiptChecker, digests_of
from tokenmesh.errors import LedgerError, NotFundedYet, ReceiptInvalid, Refused, ResponseNotKept, Voided
from tokenmesh.steps import Sleep, Steps
from tokenmesh.treasury import Ticket, Treasury

if TYPE_CHECKING:
    from tokenmesh.consumer.call import Call

SKEW_S_MAX = 300.0
"""How wrong our clock may be, by the payee's, for contracts to follow the payee's."""
REPRICED_MAX = 2
"""How often one call follows a payee that asks for more, or something else, than it offered."""
ASK_AGAIN_S = 0.3
"""How soon a payee is asked again that may be behind the ledger."""
RECEIPT_TRIES = 4
RECEIPT_WAIT_S = 0.05
"""A streamed response's receipt is asked for so often, with waits that double from this one."""

_CLOCK = frozenset({"expired", "not_yet_valid"})
_CERTIFICATE = frozenset({"certificate_unknown", "certificate_ended", "certificate_revoked"})
_PRICE = frozenset(
    {"contract_required", "too_few_tokens", "other_operation", "hold_required", "private_required"}
)
_BEHIND = frozenset({"allowance_unknown", "hold_unknown"})
_STRANGER = frozenset({"wallet_unknown", "certificate_unknown"})
_OVER = frozenset({"expired", "hold_ended", "hold_unknown"})
_ASIDE = frozenset({"response_not_kept", "contract_void"})
"""Problems whose receipt is for another response than the one it comes with."""


class Pending(NamedTuple):
    """A streamed response: checked once its last byte is here. ``digests`` takes its bytes in."""

    call: Call
    status: int
    info: CallInfo
    digests: Digests
    ticket: Ticket | None


class Answers:
    """Judges responses for one consumer."""

    def __init__(self, treasury: Treasury, receipts: ReceiptChecker, clock: Callable[[], float]) -> None:
        self._treasury = treasury
        self._receipts = receipts
        self._clock = clock

    # Whole responses

    def judge(self, call: Call, response: InResponse) -> Steps[InResponse]:
        """The response to give out; raises ``Again``, ``Resign`` or :class:`CallError` if there is none."""
        text = response.headers.get(RECEIPT_HEADER)
        if text:
            return (yield from self._receipted(call, response, text))
        if response.status >= 400:
            if call.late and _problem(response).get("code") in _OVER:
                yield from self._never_ended(call, response)
            return self._refused(call, response)
        return (yield from self._unreceipted(call, response))

    def judge_free(self, call: Call, response: InResponse) -> InResponse:
        """The same for a request that had no contract."""
        if response.status == 402:
            problem = _problem(response)
            if problem.get("code") == "contract_required" and call.repriced < REPRICED_MAX:
                self._reprice(call, problem)
                raise Resign(_refusal(call, response, problem))
        response = response._replace(info=CallInfo(call.service, tries=call.tries.number))
        if response.status >= 400:
            raise Again(response=response, retry_after=self._retry_after(response))
        return response

    def _receipted(self, call: Call, response: InResponse, text: str) -> Steps[InResponse]:
        problem = _problem(response) if response.status >= 400 else {}
        aside = problem.get("code") in _ASIDE
        digests = None
        if response.body is not None and not aside:
            digests = _whole(call, response)
        expected = Expected(call.service, call.jti, call.contract.tok if call.contract else 0)
        try:
            receipt = yield from self._receipts.check(
                text, expected, status=None if aside else response.status, digests=digests
            )
        except ReceiptInvalid:
            ticket, call.ticket = call.ticket, None
            if ticket is not None:  # counted as spent, to be safe
                self._treasury.charged(ticket, ticket.tokens, None)
            raise
        response = InResponse(
            response.status, response.headers, response.body, response.native, call.info(receipt, text)
        )
        jti = call.jti
        call.concluded(receipt)
        if response.body is None:
            response = self._streamed(call, response, ticket=None)
        if receipt.out == "fulfilled":
            if aside:
                raise ResponseNotKept(
                    f"{call.service} fulfilled this contract earlier, and kept of its long response only the "
                    f"digest {receipt.dig}",
                    service=call.service,
                    contract_id=jti,
                    tx_id=receipt.tx,
                )
            return response
        if not call.begin_anew():
            return response
        if problem.get("code") == "contract_void":
            message = f"{call.service} ended the contract without an answer: {problem.get('detail')}"
            raise Again(Voided(message, service=call.service, contract_id=jti))
        raise Again(response=response, retry_after=self._retry_after(response))

    def _unreceipted(self, call: Call, response: InResponse) -> Steps[InResponse]:
        """Success without a receipt: of a stream, which has it at its end, or of a request that was free."""
        ticket, call.ticket = call.ticket, None
        response = response._replace(info=call.info())
        assert response.info is not None
        if response.body is None:
            response.info.charged = None
            return self._streamed(call, response, ticket)
        pending = Pending(call, response.status, response.info, _whole(call, response), ticket)
        if response.headers.get("Content-Length") is not None:
            # All of it was there when the headers were: a payee that took the contract would have said so.
            if ticket is not None:
                self._treasury.returned(ticket, reusable=False)
        elif call.follow_up:
            yield from self.conclude(pending)
        else:
            self.abandon(pending)
        return response

    def _never_ended(self, call: Call, response: InResponse) -> Steps[NoReturn]:
        """The payee does not know a contract whose hold is over, so nobody will take it any more. It may have
        ended so long ago that its payee has forgotten; the ledger has not."""
        try:
            paid = yield from self._treasury.paid_by_hold(call.jti)
        except LedgerError as error:
            raise Again(call.unknown(f"the ledger gave no answer: {error}")) from error
        if paid:
            raise ResponseNotKept(
                f"{call.service} fulfilled this contract earlier, and does not keep its response any more",
                service=call.service,
                contract_id=call.jti,
            )
        refused = _refusal(call, response, _problem(response))
        call.doubt = False
        ticket, call.ticket = call.ticket, None
        if ticket is not None:
            self._treasury.returned(ticket, reusable=False)
        if call.begin_anew():  # a hold is tied to its id
            raise Resign(refused)
        raise refused

    # Streamed responses

    def _streamed(self, call: Call, response: InResponse, ticket: Ticket | None) -> InResponse:
        assert response.info is not None
        digests = Digests(response.headers.get("Content-Encoding"))
        if call.request.method == "HEAD":
            digests.certain = False
        return response._replace(pending=Pending(call, response.status, response.info, digests, ticket))

    def conclude(self, pending: Pending) -> Steps[None]:
        """Check a streamed response that has been read to its end, and complete its ``info``.

        The receipt is asked for a few times; if it cannot be had, the response stands without one. Raises
        :class:`ReceiptInvalid`.
        """
        call, info = pending.call, pending.info
        expected = Expected(call.service, info.contract_id or "", call.contract.tok if call.contract else 0)
        if info.receipt is not None:
            self._receipts.compare(info.receipt, expected, pending.digests)
            return
        receipt = None
        try:
            text = yield from self._fetch(call)
            if text is not None:
                receipt = yield from self._receipts.check(
                    text, expected, status=pending.status, digests=pending.digests
                )
                info.receipt, info.receipt_text, info.charged = receipt, text, receipt.tok
                if call.watch is not None:
                    call.watch.concluded(receipt.out, receipt.tok, receipt.tx)
        finally:
            if receipt is None:
                self.abandon(pending)
            elif pending.ticket is not None:
                self._treasury.charged(pending.ticket, receipt.tok, receipt.left)

    def abandon(self, pending: Pending) -> None:
        """Go on without a streamed response's receipt: nobody knows how its contract ended."""
        if pending.info.receipt is None:
            pending.info.charged = None
        if pending.ticket is not None:
            contract = pending.call.contract
            self._treasury.lost(pending.ticket, contract.exp if contract else pending.ticket.exp)

    def _fetch(self, call: Call) -> Steps[str | None]:
        jti = call.contract.jti if call.contract else ""
        url = f"{call.options.url}{RECEIPTS_PATH}{jti}?payer={call.consumer.payer}"
        for number in range(RECEIPT_TRIES):
            if number:
                yield Sleep(RECEIPT_WAIT_S * 2 ** (number - 1))
            try:
                response: InResponse = yield Ask(url)
            except TransportFailed:
                continue
            if response.status == 200 and response.body is not None:
                return response.body.decode("ascii", "replace").strip()
            if response.status not in (404, 409, 502, 503, 504):
                return None
        return None

    # Refusals

    def _refused(self, call: Call, response: InResponse) -> InResponse:
        problem = _problem(response)
        code = problem.get("code")
        status, retry_after = response.status, self._retry_after(response)
        if not code:
            if status >= 500 or call.doubt:
                call.doubt = True
                raise Again(call.unknown(f"a {status} came without a receipt"), retry_after=retry_after)
            # Of a router, a proxy, a rate limiter: not about the contract.
            raise Again(response=response._replace(info=call.info()), retry_after=retry_after)
        error = _refusal(call, response, problem)
        if status in (409, 503):
            call.doubt = True
            raise Again(call.unknown(f"{code}: {problem.get('detail')}"), retry_after=retry_after)
        if status == 402:
            self._unpaid(call, problem, error, retry_after)
        if status == 401 and code in _CLOCK:
            call.doubt, call.shelf.skew_s = False, self._skew(response)
            raise Resign(error)
        if status == 401 and code in _STRANGER and retry_after is not None and not call.asked_again:
            # The ledger was not asked for us, as many unknown ones came; we may be registered by now.
            call.asked_again = True
            raise Again(NotFundedYet(str(error), service=call.service), retry_after=retry_after)
        if status == 401 and code in _CERTIFICATE:
            raise Resign(error)  # a rotation may be on its way; signing takes up the new key
        if call.doubt and code not in _CLOCK:
            # It says nothing about an earlier copy: that may be on its way still, and arrive when governance
            # has changed its mind. An expired one is refused whenever it arrives.
            raise call.unknown(str(error)) from error
        call.doubt = False
        raise error

    def _unpaid(
        self, call: Call, problem: dict[str, Any], error: Refused, retry_after: float | None
    ) -> NoReturn:
        code, ticket = problem.get("code"), call.ticket
        if code in _PRICE and call.repriced < REPRICED_MAX:
            self._reprice(call, problem)
            raise Resign(error)
        behind = code in _BEHIND
        if ticket is not None and code == "allowance_used_up":
            behind = not self._treasury.used_up(ticket)
        if behind and not call.asked_again:
            call.asked_again = True
            wait = max(ASK_AGAIN_S, retry_after or 0.0)
            raise Again(NotFundedYet(str(error), service=call.service), retry_after=wait)
        if ticket is not None and code in ("allowance_used_up", "sequence_used"):
            call.ticket = None
            self._treasury.returned(ticket, reusable=False)
            if code == "allowance_used_up":
                self._treasury.used_up(ticket)
            raise Resign(error)
        if ticket is not None and code in ("allowance_ended", "allowance_unknown"):
            call.ticket = None
            self._treasury.ended(ticket)
            raise Resign(error)
        if code in ("hold_ended", "hold_unknown") and not call.doubt:
            call.ticket = None
            if call.begin_anew():  # a hold is tied to its id
                raise Resign(error)
        raise error

    def _reprice(self, call: Call, problem: dict[str, Any]) -> None:
        """Take the offers of a 402 for true: for this call, and if the price is a fixed one, for all."""
        call.repriced += 1
        try:
            offers = read_offers(problem.get("offers"))
        except ValueError:
            return
        shelf, old = call.shelf, call.offer
        if offers:
            call.offer = Offers(offers).match(call.request.method, call.path) or offers[0]
        if old is not None and old.tokens is not None and shelf.offers is not None:
            shelf.offers = shelf.offers.with_these(offers)
        elif old is None:
            shelf.read_at = float("-inf")  # what this payee offers has changed: ask again next time

    # Headers

    def _retry_after(self, response: InResponse) -> float | None:
        """The seconds in ``Retry-After``, which has them or a date (RFC 9110, section 10.2.3)."""
        text = response.headers.get("Retry-After")
        if not text:
            return None
        if text.strip().isdecimal():
            return float(text.strip()[:9])
        moment = _moment(text)
        return None if moment is None else max(0.0, moment - self._clock())

    def _skew(self, response: InResponse) -> float:
        """By how much the payee's clock is ahead of ours."""
        moment = _moment(response.headers.get("Date") or "")
        if moment is None:
            return 0.0
        skew = moment - self._clock()
        return skew if abs(skew) <= SKEW_S_MAX else 0.0


def _moment(text: str) -> float | None:
    try:
        moment: datetime = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _whole(call: Call, response: InResponse) -> Digests:
    """The digests of a response that was read whole. What HTTP sends without its body cannot be compared."""
    digests = digests_of(response.body or b"", response.headers.get("Content-Encoding"))
    if call.request.method == "HEAD" or response.status == 304:
        digests.certain = False
    return digests


def _problem(response: InResponse) -> dict[str, Any]:
    """The problem that a response is, if it is one with a ``code`` of ours."""
    media_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if media_type != "application/problem+json" or not response.body:
        return {}
    try:
        problem = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return {}
    return problem


def _refusal(call: Call, response: InResponse, problem: dict[str, Any]) -> Refused:
    words = [str(problem[name]) for name in ("title", "detail", "action") if problem.get(name)]
    return Refused(
        f"{call.service} answered {response.status} {problem.get('code')}: {' '.join(words)}",
        status=response.status,
        problem=problem,
        service=call.service,
        contract_id=call.jti or None,
    )

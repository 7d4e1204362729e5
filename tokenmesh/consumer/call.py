"""One call: find the offer, sign a contract, send, judge the answer, and again if need be.

All that belongs to a call lives in one :class:`Call`, so any number of them share a consumer undisturbed.

Four rules make repeating safe, and everything here and in :mod:`tokenmesh.consumer.answers` follows from
them:

- As long as nobody knows how a contract ended (``doubt``), it is sent again as it is.
- A refusal that says the contract was not taken (402, and 401 for the clock) may be answered by a contract
  that differs in price, time or allowance, but has **the same id**: should a copy of the first still be on
  its way, the payee takes one of them and no more.
- Only after a receipt that says *void* is there a new id, and so a second run of the handler.
- A call that ends in doubt leaves its id to the next call for the same, if that is safe to repeat
  (:mod:`tokenmesh.consumer.unanswered`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tokenmesh.consumer.messages import (
    CallInfo,
    CallOptions,
    InResponse,
    OutRequest,
    ReadBody,
    Send,
    TransportFailed,
)
from tokenmesh.consumer.offers import Offer, Shelf
from tokenmesh.consumer.outcomes import Again, Resign, why
from tokenmesh.consumer.unanswered import Sought
from tokenmesh.errors import (
    CallError,
    LedgerError,
    NotFunded,
    NotFundedYet,
    NotSpent,
    OfferTooHigh,
    OtherDomain,
    OutcomeUnknown,
    Unreachable,
)
from tokenmesh.retry import IDEMPOTENT, Tries
from tokenmesh.steps import Sleep, Steps
from tokenmesh.telemetry import CallWatch, about, log, traceparent
from tokenmesh.treasury import Ticket
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Receipt

if TYPE_CHECKING:
    from tokenmesh.consumer.consumer import Consumer

HOLD = "hold"
RESIGNS_MAX = 8
"""How often one call answers a refusal with a contract that differs in what was wrong."""
GENERATIONS_MAX = 16
"""How often a call begins anew, with a new contract id, after the last one ended void."""


_log = log("tokenmesh.consumer")


class Call:
    """The state of one call."""

    def __init__(
        self,
        consumer: Consumer,
        service: str,
        request: OutRequest,
        options: CallOptions,
        tries: Tries,
        *,
        follow_up: bool,
    ) -> None:
        self.consumer = consumer
        self.service = service
        self.request = request
        self.options = options
        self.tries = tries
        self.follow_up = follow_up
        self.shelf: Shelf = consumer.book.shelf(service, options.url)
        path, _, query = request.target.partition("?")
        self.path = documents.target(path)
        self.target = documents.target(path, query) if query else self.path
        self.offer: Offer | None = None
        self.contract: Contract | None = None
        self.text = ""
        self.ticket: Ticket | None = None
        self.jti = ""
        self.generation = 0
        self.body = request.body
        self.doubt = False
        """The contract may have been taken, and no answer has said how it ended."""
        self.sending = False
        self.certain = False
        """The call ended with an error that says whether tokens were spent."""
        self.kept_until: float | None = None
        """Of a contract that an earlier call left, until it is sent again."""
        self.repriced = 0
        self.watch: CallWatch | None = None
        self.late = False
        """The contract's hold is over: all that can be learned is how it has ended."""
        self.asked_again = False
        """The payee was asked again because it may have been behind the ledger; once is enough."""

    # The loop

    def run(self) -> Steps[InResponse]:
        """Make the call; raises :class:`CallError`."""
        try:
            return (yield from self._run())
        except CallError as error:
            self.certain = error.spent != "unknown"
            raise

    def _run(self) -> Steps[InResponse]:
        resigns = 0
        while True:
            try:
                return (yield from self._try())
            except Resign as resign:
                resigns += 1
                if resigns > RESIGNS_MAX:
                    raise resign.error from None
                self.text = ""
                self._note_again(resigns + self.tries.number - 1, resign.error, None)
            except Again as again:
                wait = self.tries.again(
                    error=again.error,
                    response=None if again.response is None else again.response.native,
                    status=None if again.response is None else again.response.status,
                    retry_after=again.retry_after,
                    at_most=self._life_left(),
                )
                if wait is None:
                    return again.give()
                self._note_again(resigns + self.tries.number - 1, again.error, again.response)
                if wait > 0:
                    yield Sleep(wait)

    def _note_again(self, number: int, error: CallError | None, response: InResponse | None) -> None:
        known = about(contract_id=self.jti, payer=self.consumer.payer, payee=self.service)
        _log.info("%s is asked again: %s", self.service, why(error, response), extra=known)
        if self.watch is not None:
            self.watch.again(number, why(error, response), None if response is None else response.status)

    def end(self) -> None:
        """Give back what is out, however the call ended: also when it was cancelled."""
        ticket, self.ticket = self.ticket, None
        doubtful = self.sending or self.doubt
        if doubtful and not self.certain:
            self._leave()
        if ticket is None:
            return
        if doubtful:
            self.consumer.treasury.lost(ticket, self.contract.exp if self.contract else ticket.exp)
        else:
            self.consumer.treasury.returned(ticket, reusable=True)

    def _try(self) -> Steps[InResponse]:
        if self.offer is None:
            self.offer = yield from self.consumer.find_offer(self)
        if not self.text:
            tokens = None if self.offer is None else self._tokens(self.offer)
            if self.offer is None or tokens is None:
                response = yield from self._send_free()
                return self.consumer.answers.judge_free(self, response)
            try:
                yield from self._sign(self.offer, tokens)
            except NotSpent as error:
                raise Again(self._in_doubt(error)) from error
        response = yield from self._send()
        return (yield from self.consumer.answers.judge(self, response))

    # Sending

    def _send(self) -> Steps[InResponse]:
        self.sending = True
        try:
            response: InResponse = yield Send(self.text)
        except TransportFailed as failure:
            self.sending = False
            if failure.sent:
                self.doubt, self.kept_until = True, None
            error = self.unreachable(failure)
            if self.doubt:
                error = self.unknown(f"no response came ({failure})")
                error.__cause__ = failure.__cause__
            raise Again(error) from failure
        self.sending, self.kept_until = False, None
        return response

    def _send_free(self) -> Steps[InResponse]:
        """Send without a contract: repeated as plain HTTP allows, and no further."""
        try:
            response: InResponse = yield Send(None)
        except TransportFailed as failure:
            error = self._unreached(failure)
            if failure.sent and (self.request.method not in IDEMPOTENT or self.request.body is None):
                raise error from failure.__cause__
            raise Again(error) from failure
        return response

    # Signing

    def _sign(self, offer: Offer, tokens: int) -> Steps[None]:
        """Make the contract, with the ticket there is if it will do."""
        consumer = self.consumer
        if self.shelf.elsewhere:
            raise self._other_domain()
        yield from self._know_payee()
        if self.body is None:
            self.body = yield ReadBody()
        hold = HOLD in (self.options.via, offer.via)
        self._let_go_unless(hold, tokens)
        if not self.jti:
            self.jti = self._new_id()
        if self.ticket is None:
            if hold:
                self.ticket = yield from consumer.treasury.place_hold(self.service, tokens, self.jti)
            else:
                self.ticket = yield from consumer.treasury.allowance_for(
                    self.service, tokens, max(0.0, self.shelf.skew_s)
                )
        ticket = self.ticket
        policy = consumer.treasury.fresh_policy() or (yield from consumer.treasury.policy())
        now = int(consumer.clock() + self.shelf.skew_s)
        exp = min(now + int(consumer.treasury.contract_ttl_s(policy)), ticket.exp)
        self.late = ticket.allowance is None and ticket.exp <= consumer.clock()
        if self.late:
            # The hold of this very job is from a life before, and over. Nobody takes the contract now, but
            # who took it then knows how it ended: so it is sent once more, as it was good to the last.
            now = exp - 1
        elif exp <= now:
            message = (
                f"the clock of {self.service} is {self.shelf.skew_s:.0f} s ahead: nothing set aside lasts"
            )
            raise NotFunded(message, service=self.service)
        self.contract = Contract(
            consumer.domain,
            consumer.payer,
            self.service,
            offer.operation,
            self.request.method,
            self.target,
            documents.digest(self.body),
            tokens,
            self.jti,
            now,
            exp,
            ticket.via,
            ticket.lane,
            ticket.seq,
            traceparent(),
        )
        if self.watch is not None:
            self.watch.signed(self.contract)
        self.text = consumer.sign(self.contract, private=offer.private or self.options.private)

    def _know_payee(self) -> Steps[None]:
        """Have the payee's certificate at hand before anything is spent: its receipt is checked with it."""
        try:
            known = yield from self.consumer.receipts.prepare(self.service)
        except LedgerError as error:
            message = f"the ledger gave no answer when asked for {self.service}'s certificate: {error}"
            raise NotFundedYet(message, service=self.service) from error
        if not known:
            raise NotFunded(
                f"the ledger {self.consumer.ledger_url} has no wallet {self.service!r} whose certificate "
                "is good: make one, or say on which other ledger it is paid with TOKENMESH_DOMAINS or "
                "Mesh(domains=...)",
                service=self.service,
            )

    def _other_domain(self) -> OtherDomain:
        return OtherDomain(
            f"{self.service} is paid in the domain {self.shelf.elsewhere}, and this call would be paid in "
            f"{self.consumer.domain}, the ledger {self.consumer.ledger_url}: map {self.service} to its "
            "ledger with TOKENMESH_DOMAINS or Mesh(domains=...)",
            service=self.service,
        )

    def _let_go_unless(self, hold: bool, tokens: int) -> None:
        """Keep the ticket there is only if it is of the right kind and covers ``tokens``."""
        ticket = self.ticket
        if ticket is None or (ticket.tokens >= tokens and hold == (ticket.allowance is None)):
            return
        self.ticket = None
        self.consumer.treasury.returned(ticket, reusable=not self.doubt)
        if hold and ticket.allowance is None and not self.doubt:
            self.begin_anew()  # a hold is tied to its id, and cannot grow

    def _tokens(self, offer: Offer) -> int | None:
        """What to offer; None when only the payee can tell what this request costs."""
        most = self.options.max_tokens
        tokens = most if offer.tokens is None else offer.tokens
        if tokens is not None and most is not None and tokens > most:
            error = OfferTooHigh(
                f"{self.service} asks {tokens} tokens for {offer.operation}, and max_tokens is {most}",
                service=self.service,
            )
            raise Again(self._in_doubt(error))
        return tokens

    def _new_id(self) -> str:
        key, consumer = self.request.idempotency_key, self.consumer
        if key is None:
            return self._left_id() or consumer.ids()
        return documents.derived_id(consumer.domain, consumer.payer, self.service, key, self.generation)

    # A call in doubt, and the next one for the same

    def _left_id(self) -> str | None:
        """The id of a contract of which an earlier call for the same does not know how it ended."""
        unanswered = self.consumer.unanswered
        sought = self._sought() if unanswered and not self.generation else None
        left = None if sought is None else unanswered.take_up(sought)
        if left is None:
            return None
        self.doubt = True
        jti, self.kept_until = left
        return jti

    def _leave(self) -> None:
        """Leave the contract to the next call for the same."""
        sought = self._sought()
        if sought is not None and self.jti:
            until = None if self.sending else self.kept_until
            self.consumer.unanswered.leave(sought, self.jti, until)

    def _sought(self) -> Sought | None:
        """By what the next call knows this one again; None if it may be meant twice, or has a key."""
        request = self.request
        if request.idempotency_key is not None or request.method not in IDEMPOTENT or self.body is None:
            return None
        digest = documents.digest(self.body)
        return Sought(self.service, self.options.url, request.method, self.target, digest)

    # What the answers need

    def concluded(self, receipt: Receipt) -> None:
        """The contract has ended, as ``receipt`` says."""
        ticket, self.ticket = self.ticket, None
        self.doubt = False
        if self.watch is not None:
            self.watch.concluded(receipt.out, receipt.tok, receipt.tx)
        if ticket is not None:
            self.consumer.treasury.charged(ticket, receipt.tok, receipt.left)

    def begin_anew(self) -> bool:
        """Have the next try make a new contract with a new id; False when that was done often enough."""
        if self.generation >= GENERATIONS_MAX:
            return False
        self.generation += 1
        self.jti, self.text, self.contract = "", "", None
        return True

    def info(self, receipt: Receipt | None = None, text: str | None = None) -> CallInfo:
        """What the caller gets to know of this call so far."""
        return CallInfo(
            self.service,
            operation=None if self.offer is None else self.offer.operation,
            contract_id=self.jti or None,
            charged=0 if receipt is None else receipt.tok,
            receipt=receipt,
            receipt_text=text,
            tries=self.tries.number,
        )

    def unknown(self, why: str) -> OutcomeUnknown:
        """The error for a contract that may have been taken."""
        return OutcomeUnknown(
            f"whether {self.service} took contract {self.jti} is not known: {why.rstrip('.')}. Call again "
            "with the same idempotency key, or see 'tokenmesh contract show' once the contract has expired",
            service=self.service,
            contract_id=self.jti,
        )

    def unreachable(self, failure: TransportFailed) -> CallError:
        """The error for a request that certainly did not arrive.

        With an idempotency key that says nothing of the contract: an earlier call may have had it taken.
        """
        if self.request.idempotency_key is None:
            return self._unreached(failure)
        self.jti = self.jti or self._new_id()
        error = self.unknown(f"{failure}, and an earlier call with the same key may have been answered")
        error.__cause__ = failure.__cause__
        return error

    def _unreached(self, failure: TransportFailed) -> Unreachable:
        error = Unreachable(
            f"{self.service} at {self.options.url} gave no answer: {failure}", service=self.service
        )
        error.__cause__ = failure.__cause__
        return error

    def _in_doubt(self, error: NotSpent) -> CallError:
        """``error``, unless an earlier copy of the contract may have been taken."""
        if not self.doubt:
            error.contract_id = error.contract_id or self.jti or None
            return error
        unknown = self.unknown(str(error))
        unknown.__cause__ = error
        return unknown

    def _life_left(self) -> float:
        if self.contract is None:
            return math.inf
        return self.contract.exp - self.consumer.clock() - self.shelf.skew_s

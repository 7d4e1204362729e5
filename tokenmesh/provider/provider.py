"""The payee's side of a call: check a contract, claim it, fulfil or void it, and say so with a receipt.

Knows no framework and never waits by itself: everything that could wait is a step (see
:mod:`tokenmesh.steps`). With what the ledger said lately at hand, a paid call costs one signature checked,
one made, and two transactions of the journal; nothing else is waited for.

Every way out that is not the handler's own is an :class:`~tokenmesh.provider.problems.Answered`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NoReturn

from tokenmesh import journal as records
from tokenmesh.config import Settings
from tokenmesh.errors import JournalError, LedgerBusy, LedgerError
from tokenmesh.identity import Reloading
from tokenmesh.journal import ClaimResult, Journal, StoredResponse
from tokenmesh.ledger.base import Ledger
from tokenmesh.provider import checks
from tokenmesh.provider.call import Call, read
from tokenmesh.provider.call import offers as offers_for
from tokenmesh.provider.checks import Fault, Funds
from tokenmesh.provider.offers import Offer, offers_document
from tokenmesh.provider.problems import CATALOGUE, Answer, Problem, Refused
from tokenmesh.provider.receipts import EMPTY_DIGEST, Receipts, replayed
from tokenmesh.provider.standing import Standing
from tokenmesh.provider.suspects import Suspects
from tokenmesh.provider.terms import Request, Terms
from tokenmesh.steps import Steps, wait
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Signed

UNENDED_MAX = 10_000
"""Claims whose end the journal would not take, remembered until it does."""


class Provider:
    """Takes contracts for one payee. Any number of threads and event loops may use it at once."""

    def __init__(
        self,
        wallet: Reloading,
        ledger: Ledger,
        journal: Journal,
        *,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or Settings()
        self.wallet = wallet
        self.journal = journal
        self._standing = Standing(ledger, wallet.name, self.settings, clock)
        self._receipts = Receipts(wallet, ledger.domain)
        self._clock = clock
        self._suspects = Suspects(clock, self.settings.wallet_cache_max)
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._unended: OrderedDict[tuple[str, str], int | None] = OrderedDict()

    # Offers and receipts, as anyone may read them

    def offers(self, offers: Iterable[Offer]) -> dict[str, Any]:
        """What stands at ``/.well-known/tokenmesh/offers`` of an application that has these offers."""
        domains = [self._standing.domain]
        return offers_document(self.wallet.name, domains, offers, self.settings.contract_ttl_s)

    def receipt(self, payer: str | None, jti: str) -> Steps[Answer]:
        """What stands at ``/.well-known/tokenmesh/receipts/{jti}``: the receipt, with the transaction once
        the contract is settled, or a problem. A contract is known by payer and id; the payer of one that
        this process took lately need not be said."""
        payer = payer or self._recent.get(jti)
        if payer is None:
            return Problem("receipt_unknown", "Whose contract is it? Say ?payer=NAME.", jti).answer()
        try:
            known = yield from wait(self.journal.find(payer, jti))
        except JournalError as error:
            return _unkept(error, jti).answer
        if known is None:
            return Problem("receipt_unknown", f"{payer} has no contract {jti} here.", jti).answer()
        if known.state in ("open", "abandoned"):
            # Abandoned is not ended yet: its owner may wake, or a retry take it over.
            return Problem("in_progress", "There is a receipt once it has ended.", jti).answer()
        text = self._receipts.again(payer, jti, known, self._clock()).encode("ascii")
        headers = [("Content-Type", "application/jose"), ("Content-Length", str(len(text)))]
        return Answer(200, [*headers, ("Cache-Control", "no-store")], text)

    # The way of a contract: check, admit, claim, and then fulfil or void

    def check(self, request: Request, terms: Terms) -> Steps[Call | None]:
        """Check everything about a request's contract that needs neither its body nor the journal.

        None when the request is free. Raises :class:`Refused`; what a price function raises comes out.
        """
        call = self.check_at_once(request, terms)
        if call is not None and not call.checked:
            yield from self.check_further(call)
        return call

    def check_at_once(
        self, request: Request, terms: Terms, signed: Signed[Contract] | None = None
    ) -> Call | None:
        """The part of :meth:`check` that waits for nothing, which is all of it for what is known to be good:
        then ``checked`` is set. ``signed`` is the request's contract, if it was read already."""
        price = terms.price(request)
        if price.needed == 0:
            return None
        if signed is None:
            signed = read(request, terms, price)
        call = Call(signed, request, terms, price, self)
        plainly = checks.plainly_meant(signed.body, request, terms, price)
        if plainly:
            funds = self._standing.at_once(signed)
            if isinstance(funds, Fault):
                raise self._refused(funds, call)
            if funds is not None:
                call.funds = funds
                call.checked = True
                return call
        self._look(call, plainly)
        return call

    def admit(self, call: Call) -> Steps[None]:
        """Compare the body; a contract that would be refused gets the answer it has had, if any.

        Raises :class:`Answered`.
        """
        self.compare(call)
        if call.fault is not None:
            yield from self.recall(call, call.fault)

    def recall(self, call: Call, fault: Fault) -> Steps[None]:
        """The rest of :meth:`admit`, for a contract that has a fault."""
        contract = call.contract
        try:
            known = yield from wait(self.journal.find(contract.iss, contract.jti))
        except JournalError as error:
            raise _unkept(error, contract.jti) from error
        if known is None:
            raise self._refused(fault, call)
        if not known.binds(contract.htm, contract.htu, contract.dig):
            raise self._refused(_USED, call)
        if known.state in ("fulfilled", "void"):
            receipt = self._receipts.again(contract.iss, contract.jti, known, self._clock())
            raise replayed(known, receipt, contract.jti)
        # It was good when it was taken, and the journal says what a second request for it gets.
        call.funds = Funds(known.tok, known.settle_by)

    def compare(self, call: Call) -> None:
        """Compare the body with the digest that was signed; raises :class:`Refused`."""
        body = call.request.body()
        if call.contract.dig != (documents.digest(body) if body else EMPTY_DIGEST):
            raise self._refused(Fault("other_request", "The body is not the one that was signed."), call)

    def look_ahead(self, call: Call) -> None:
        """Of payers who have sent lately what the journal would not take, refuse more of it before it is
        tried. Raises :class:`Refused`; changes nothing, and may be left out."""
        contract, suspects = call.contract, self._suspects
        if not suspects.any or not suspects.has(contract.iss) or not self.journal.at_once:
            return
        try:
            result = self.journal.why_not(call.entry())
        except JournalError as error:
            raise _unkept(error, contract.jti) from error
        if result is None:
            return
        if isinstance(result, records.AllowanceUsedUp) and not self._standing.is_told_enough(contract):
            return  # it may have been refilled: claiming asks the ledger for that
        raise self._refused(_unpaid(result, contract), call)

    def claim(self, call: Call) -> Steps[None]:
        """Take the contract: of many requests with it, one gets through. Raises :class:`Answered`."""
        contract, now = call.contract, self._clock()
        if now >= contract.exp and call.fault is None:
            # It was good when it was checked; its body, or the ledger, took long to come. Who has signed it
            # counts on it that it cannot be taken any more.
            fault = Fault("expired", f"It expired {now - contract.exp:.0f} s ago, while it was looked at.")
            yield from self.recall(call, fault)
        try:
            result = yield from self._claim(call, now)
            if not isinstance(result, records.Claimed):
                result = yield from self._claim_again(result, call)
        except LedgerError as error:
            raise _unreachable(error, contract.jti) from error
        except JournalError as error:
            raise _unkept(error, contract.jti) from error
        if not isinstance(result, records.Claimed):
            self._not_claimed(result, call)
        self._note(call, result)

    def claim_at_once(self, call: Call) -> bool:
        """Try :meth:`claim` without waiting for anything; False: the rest of it is still to be done."""
        journal, now = self.journal, self._clock()
        if not journal.at_once or now >= call.contract.exp:
            return False
        try:
            result = journal.claim(call.entry(), now)
        except JournalError as error:
            raise _unkept(error, call.contract.jti) from error
        if type(result) is not records.Claimed:
            call.result = None if isinstance(result, Future) else result
            return False
        self._note(call, result)
        return True

    def _note(self, call: Call, claimed: records.Claimed) -> None:
        call.left, call.by = claimed
        self._recent[call.contract.jti] = call.contract.iss
        if len(self._recent) > self.settings.receipt_cache_max:
            _drop_first(self._recent)

    def fulfil(self, call: Call, response: StoredResponse) -> Steps[str]:
        """End a call whose work is done; gives the receipt. Raises :class:`Refused` (503) if it cannot."""
        contract, now = call.contract, self._clock()
        if now >= call.funds.settle_by:
            late = Problem(
                "too_late", f"It should have been done {now - call.funds.settle_by:.0f} s ago.", contract.jti
            )
            answer = late.answer()
            stored = StoredResponse(answer.status, answer.headers, answer.body, documents.digest(answer.body))
            raise Refused(late._replace(receipt=(yield from self.void(call, "too_late", stored))))
        receipt = self._receipts.make(contract, "fulfilled", call.charged, response, call.left, now)
        try:
            fulfilled = yield from wait(
                self.journal.fulfil(
                    contract.iss, contract.jti, call.charged, response, receipt, now, by=call.by
                )
            )
        except JournalError as error:
            self._remember_unended(call)
            raise _unkept(error, contract.jti) from error
        if not fulfilled:
            raise Refused(Problem("taken_over", "It took longer than this process's lease.", contract.jti))
        return receipt

    def fulfil_at_once(self, call: Call, response: StoredResponse) -> str | None:
        """Try :meth:`fulfil` without waiting for anything; None: it is still to be done."""
        contract, journal, now = call.contract, self.journal, self._clock()
        if not journal.at_once or now >= call.funds.settle_by:
            return None
        receipt = self._receipts.make(contract, "fulfilled", call.charged, response, call.left, now)
        try:
            done = journal.fulfil(
                contract.iss, contract.jti, call.charged, response, receipt, now, by=call.by
            )
        except JournalError as error:
            self._remember_unended(call)
            raise _unkept(error, contract.jti) from error
        return receipt if done else None

    def void(self, call: Call, reason: str, response: StoredResponse) -> Steps[str | None]:
        """End a call that owes nothing; gives the receipt, or None when the journal did not take it.

        Raises nothing of the journal's: the response is a failure's anyway, and a claim that could not be
        ended is ended when the contract is used next.
        """
        contract, now = call.contract, self._clock()
        receipt = self._receipts.make(contract, "void", 0, response, call.left, now)
        try:
            ended = yield from wait(
                self.journal.void(contract.iss, contract.jti, reason, response, receipt, now, by=call.by)
            )
        except JournalError:
            self._remember_unended(call)
            return None
        return receipt if ended else None

    # What is behind them

    def _look(self, call: Call, plainly: bool) -> None:
        """As much of :meth:`check` as needs no waiting; ``plainly``: the contract was found to be meant for
        the request. Refuses at once what it can: what costs its sender nothing is to cost little here.

        What a contract says of itself comes before its signature, which takes longest to look at: nobody
        gains by being refused. But one that was taken earlier gets its answer whatever is wrong with it by
        now, if its signature holds.
        """
        contract, signed, standing = call.contract, call.signed, self._standing
        fault = checks.addressed(contract, signed.header, standing.domain, standing.payee)
        if fault is None and not plainly:
            fault = checks.bound(contract, call.request)
        if fault is not None:
            raise self._refused(fault, call)
        if not plainly:
            fault = checks.offered(contract, call.terms, call.price, call.request)
        if fault is None:
            fault = standing.unusable(contract)
        if fault is not None and self._is_new(contract):
            raise self._refused(fault, call)
        payer = standing.signed_at_once(signed)
        if isinstance(payer, Fault):
            raise self._refused(payer, call)
        call.holds = payer is not None
        if payer is None or fault is not None:
            return
        funds = standing.funds_at_once(signed, payer)
        if isinstance(funds, Funds):
            call.funds = funds
            call.checked = True
        elif funds is not None and self._is_new(contract):
            raise self._refused(funds, call)

    def _is_new(self, contract: Contract) -> bool:
        """Whether it is certain, without waiting, that a contract has not been taken yet."""
        if not self.journal.at_once:
            return False
        try:
            return self.journal.find(contract.iss, contract.jti) is None
        except JournalError as error:
            raise _unkept(error, contract.jti) from error

    def check_further(self, call: Call) -> Steps[None]:
        """The rest of :meth:`check`: everything that is not plainly good, or not known lately."""
        contract, signed, standing = call.contract, call.signed, self._standing
        try:
            fault = None if call.holds else (yield from standing.signed(signed))
            if fault is not None:
                raise self._refused(fault, call)
            funds = checks.offered(contract, call.terms, call.price, call.request) or (
                yield from standing.funds(signed)
            )
        except LedgerError as error:
            raise _unreachable(error, contract.jti) from error
        call.checked = True
        if isinstance(funds, Fault):
            call.fault = funds
        else:
            call.funds = funds

    def _claim(self, call: Call, now: float) -> Steps[ClaimResult]:
        if call.result is not None:  # said a moment ago, when it was tried at once
            return call.result
        return (yield from wait(self.journal.claim(call.entry(), now)))

    def _claim_again(self, result: ClaimResult, call: Call) -> Steps[ClaimResult]:
        """Claim once more, where the journal's answer may be due to what this process knows or has missed."""
        contract = call.contract
        if isinstance(result, records.AllowanceUsedUp) and call.fault is None:
            # It may have been refilled since the ledger was asked.
            funds = yield from self._standing.more_funds(call.signed, call.funds.tokens)
            if isinstance(funds, Funds) and funds.tokens > call.funds.tokens:
                call.funds = funds
                result = yield from wait(self.journal.claim(call.entry(), self._clock()))
        key = (contract.iss, contract.jti)
        if isinstance(result, records.Running) and key in self._unended:
            by = self._unended[key]
            yield from wait(self.journal.void(*key, _UNENDED, None, None, self._clock(), by=by))
            # Not before that is written down: a full disk lets the journal be read all the time.
            self._unended.pop(key, None)
            result = yield from wait(self.journal.claim(call.entry(), self._clock()))
        return result

    def _not_claimed(self, result: ClaimResult, call: Call) -> NoReturn:
        contract = call.contract
        if isinstance(result, records.Ended):
            receipt = self._receipts.again(contract.iss, contract.jti, result, self._clock())
            raise replayed(result, receipt, contract.jti)
        if isinstance(result, records.Running):
            detail = "Another request with it came first."
            raise Refused(Problem("in_progress", detail, contract.jti, retry_after=result.retry_after))
        if isinstance(result, records.Mismatch):
            raise self._refused(_USED, call)
        if call.fault is not None:
            raise self._refused(call.fault, call)
        if isinstance(result, (records.AllowanceUsedUp, records.SequenceUsed)):
            self._suspects.note(contract.iss)
            raise self._refused(_unpaid(result, contract), call)
        raise self._refused(Fault("journal_full", "Too much of it waits to be settled."), call)

    def _refused(self, fault: Fault, call: Call) -> Refused:
        """A refusal, to be raised where it is found out: every frame that it comes through costs a little."""
        code, detail, retry_after = fault
        offers = None
        if CATALOGUE[code][0] == 402:
            offers = offers_for(call.request, call.terms, call.price)
        # A named tuple's own constructor is a Python function around this.
        return Refused(tuple.__new__(Problem, (code, detail, call.contract.jti, offers, retry_after, None)))

    def _remember_unended(self, call: Call) -> None:
        self._unended[call.contract.iss, call.contract.jti] = call.by
        if len(self._unended) > UNENDED_MAX:
            _drop_first(self._unended)


_UNENDED = "journal_unavailable"
_USED = Fault("other_request", "Its id stands in another contract of this payer's already.")


def _drop_first(entries: OrderedDict[Any, Any]) -> None:
    try:
        entries.popitem(last=False)
    except KeyError:
        return  # another thread was faster


def _unpaid(result: records.AllowanceUsedUp | records.SequenceUsed, contract: Contract) -> Fault:
    if isinstance(result, records.SequenceUsed):
        detail = f"Number {contract.seq} of lane {contract.lane} stands in another contract."
        return Fault("sequence_used", detail)
    detail = f"It has {result.left} tokens left for the contract's {contract.tok}."
    return Fault("allowance_used_up", detail)


def _unreachable(error: LedgerError, jti: str) -> Refused:
    code = "ledger_busy" if isinstance(error, LedgerBusy) else "ledger_unavailable"
    return Refused(Problem(code, f"{error}.", jti))


def _unkept(error: JournalError, jti: str) -> Refused:
    return Refused(Problem("journal_unavailable", f"{error}.", jti))

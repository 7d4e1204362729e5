"""The treasury: sets tokens aside on the ledger before they are needed, and hands out tickets for them.

On a warm path a call takes a ticket and nothing waits. Behind it, allowances are opened, refilled before
they run dry and followed by new ones before they expire; refunds and earnings are swept in. That work runs
on the callbacks of the ledger's futures, so it needs no thread and no event loop, and all callers who wait
for one payee's allowance wait for the same future.

An operation whose outcome is unknown is submitted again as the same document, which the rules do once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tokenmesh.config import Settings
from tokenmesh.errors import LedgerError, NotFunded, NotFundedYet, NotSpent
from tokenmesh.identity import Wallet
from tokenmesh.ledger.base import Ledger
from tokenmesh.steps import Steps, wait
from tokenmesh.telemetry import about, log
from tokenmesh.treasury.allowances import Account, Ticket
from tokenmesh.treasury.gauges import Gauges
from tokenmesh.treasury.holds import HoldDesk
from tokenmesh.treasury.operations import Operations, Unanswered, spawn
from tokenmesh.treasury.shortage import INSUFFICIENT, Shortage, lacking, no_answer, refusal
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX, SWEEP_ITEMS_MAX
from tokenmesh_chaincode.rules import Outcome

TURNS_MAX = 50
"""How often one caller waits for an allowance to grow before it gives up: others may be faster."""
FUNDS_SHARE = 4
"""An allowance takes at most one part in so many of what is spendable, if that covers the call: the wallet
has other payees too."""
QUIET_S = 1.0
"""After a refill in the background failed, none is tried for so long; a caller in need still asks."""
USABLE_PART = 0.6
"""A new allowance is always good for contracts, however short its life and wrong the clocks."""
SWEEPS_MAX = 20
FORGET_AT = 100
"""Sweeps that one search for funds makes."""
HOLD = "hold"

_log = log("tokenmesh.treasury")


class Treasury:
    """Sets tokens of one wallet aside and hands out tickets for them. Thread-safe."""

    def __init__(
        self,
        wallet: Wallet,
        ledger: Ledger,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ids: Callable[[], str] = documents.new_id,
    ) -> None:
        self._name = wallet.name
        self._ledger = ledger
        self._settings = settings or Settings()
        self._clock = clock
        self._ids = ids
        self._operations = Operations(wallet, ledger, clock, ids)
        self._holds = HoldDesk(self._operations)
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._policy: tuple[float, dict[str, Any]] | None = None
        self._upkeep_at = clock() + self._settings.sweep_interval_s
        self._gauges = Gauges(ledger.domain, self._accounts, self._lock)

    # What a call asks for

    def allowance_for(self, payee: str, tokens: int, ahead_s: float = 0.0) -> Steps[Ticket]:
        """A ticket for ``tokens`` from an allowance with ``payee``, good for a contract's whole life.

        ``ahead_s``: by how much the payee's clock is ahead of ours. Raises :class:`NotSpent`:
        ``InsufficientFunds``, ``NotFunded`` or ``NotFundedYet``.
        """
        policy = self.fresh_policy() or (yield from self.policy())
        life = min(self._life(policy) + ahead_s, self._allowance_ttl(policy) * USABLE_PART)
        for _ in range(TURNS_MAX):
            now = self._clock()
            if now >= self._upkeep_at:
                self._begin_upkeep(now)
            with self._lock:
                account = self._account(payee)
                ticket = account.take(tokens, now + life, now)
                flight, begin = account.flight, False
                if flight is None and (
                    ticket is None
                    or account.runs_low(tokens, now + 1.5 * life, self._settings.allowance_refill_at, now)
                ):
                    flight, begin = Future(), True
                    account.flight = flight
                if ticket is None:
                    account.waiting += tokens
            if begin and flight is not None:
                spawn(self._enlarge(account, tokens, policy, background=ticket is not None), flight)
            if ticket is not None:
                return ticket
            shortage = yield from self._wait_for(account, tokens, flight)
            # A shortage that someone met who needed more says nothing about this call.
            if shortage is not None and (begin or shortage.tokens <= tokens):
                raise shortage.error(payee)
        raise NotFundedYet(
            f"{TURNS_MAX} times an allowance with {payee} grew, and other calls used it up before this one "
            "had its share: raise allowance_calls, or make fewer calls at once",
            service=payee,
        )

    def place_hold(self, payee: str, tokens: int, jti: str) -> Steps[Ticket]:
        """Set ``tokens`` aside on the ledger for the one contract ``jti``.

        A hold that is there already (the same job, before a restart) is used again. Raises as
        :meth:`allowance_for` does.
        """
        policy = yield from self.policy()
        ttl = min(self._settings.hold_ttl_s, float(policy["hold_ttl_s_max"]))
        exp = int(self._clock() + ttl)
        arg = {"id": jti, "payee": payee, "tokens": tokens, "exp": exp}
        try:
            outcome = yield from wait(self._holds.place(arg))
            if outcome.code == INSUFFICIENT:
                spendable = yield from self._gather(tokens, tokens)
                if spendable >= tokens:
                    outcome = yield from wait(self._holds.place(arg))
            if outcome.ok:
                return self._gauges.held(Ticket(payee, tokens, HOLD, exp))
            hold = None
            if outcome.code in ("id_reused", "hold_ended"):
                hold = yield from wait(self._ledger.hold(self._name, jti))
        except LedgerError as error:
            raise no_answer(error).error(payee) from error
        if hold is not None and hold.payee == payee:
            return self._gauges.held(Ticket(payee, hold.tokens, HOLD, hold.exp))
        raise refusal(outcome, tokens).error(payee)

    def paid_by_hold(self, jti: str) -> Steps[bool]:
        """Whether the hold for the contract ``jti`` was captured. Raises :class:`LedgerError`."""
        hold = yield from wait(self._ledger.hold(self._name, jti))
        return hold is not None and hold.state == "captured"

    # What became of a ticket

    def charged(self, ticket: Ticket, tokens: int, left: int | None) -> None:
        """The payee took the contract and charged ``tokens``, 0 if it is void; ``left`` from its receipt."""
        if ticket.allowance is not None:
            with self._lock:
                ticket.allowance.charged(ticket, tokens, left, self._clock())
        else:
            self._gauges.ended(ticket)

    def returned(self, ticket: Ticket, *, reusable: bool) -> None:
        """The contract was certainly not taken (``reusable``: and no copy of it is still on its way)."""
        if ticket.allowance is not None:
            with self._lock:
                ticket.allowance.returned(ticket, reusable=reusable)
        else:
            self._gauges.ended(ticket)

    def lost(self, ticket: Ticket, until: float) -> None:
        """No answer: the contract may have been taken, and may still be until ``until``."""
        if ticket.allowance is not None:
            with self._lock:
                ticket.allowance.lost(ticket, until)
        else:
            self._gauges.ended(ticket)

    def used_up(self, ticket: Ticket) -> bool:
        """The payee says that the ticket's allowance does not cover it. False if the payee may merely not
        have seen a refill yet: worth asking again before another allowance is opened."""
        allowance = ticket.allowance
        if allowance is None:
            return True
        with self._lock:
            seen = not allowance.unseen
            allowance.used_up()
        return seen

    def ended(self, ticket: Ticket) -> None:
        """The payee says that the ticket's allowance cannot pay for anything (any more)."""
        allowance = ticket.allowance
        if allowance is not None:
            with self._lock:
                account = self._accounts.get(allowance.payee)
                if account is not None:
                    account.drop(allowance)

    def close(self) -> None:
        """Stop showing gauges. What is set aside stays open, for the next run of this service to take up."""
        self._gauges.close()

    # The policy, which consumers ask for too

    def fresh_policy(self) -> dict[str, Any] | None:
        """The ledger's policy, if it was read a short while ago."""
        cached = self._policy
        if cached is not None and self._clock() - cached[0] < self._settings.policy_cache_s:
            return cached[1]
        return None

    def policy(self) -> Steps[dict[str, Any]]:
        """The ledger's policy. If the ledger cannot be asked, the last one known will do: the rules hold
        everything against the true one anyway."""
        fresh = self.fresh_policy()
        if fresh is not None:
            return fresh
        cached, now = self._policy, self._clock()
        try:
            policy: dict[str, Any] = yield from wait(self._ledger.policy())
        except LedgerError as error:
            if cached is None:
                raise no_answer(error).error(None) from error
            return cached[1]
        self._policy = (now, policy)
        return policy

    def contract_ttl_s(self, policy: dict[str, Any]) -> float:
        """How long a contract is good for."""
        return min(self._settings.contract_ttl_s, float(policy["contract_ttl_s_max"]))

    # Upkeep

    def upkeep(self) -> Steps[None]:
        """Take back what has expired, sweep in what has come, and have the ledger forget what nobody can
        need any more, whosever it is; a bounded piece of it a call."""
        yield from self._expire()
        yield from self._sweep(None)
        arg = yield from wait(self._ledger.forgettable(int(self._clock()), FORGET_ITEMS_MAX))
        # To forget is an operation too, which is remembered for a while: few records are not worth one.
        if sum(map(len, arg.values())) >= FORGET_AT:
            yield from self._operations.perform("forget", arg)

    def look_after(self) -> None:
        """Begin the upkeep, in the background, if it is due. For a wallet that earns and never calls."""
        now = self._clock()
        if now >= self._upkeep_at:
            self._begin_upkeep(now)

    def _begin_upkeep(self, now: float) -> None:
        with self._lock:
            if now < self._upkeep_at:
                return
            self._upkeep_at = now + self._settings.sweep_interval_s
        done: Future[None] = Future()
        done.add_done_callback(self._log_failure)
        spawn(self.upkeep(), done)

    def _expire(self) -> Steps[bool]:
        arg = yield from wait(self._ledger.expirable(int(self._clock()), EXPIRE_ITEMS_MAX, self._name))
        if not any(arg.values()):
            return False
        outcome = yield from self._operations.perform("expire", arg)
        return outcome.ok

    def _sweep(self, enough: int | None) -> Steps[int]:
        """Sweep credits until ``enough`` tokens came in (None: one batch). The tokens that did."""
        swept = 0
        limit = min(self._settings.sweep_batch_max, SWEEP_ITEMS_MAX)
        for _ in range(1 if enough is None else SWEEPS_MAX):
            found = yield from wait(self._ledger.credits(self._name, limit))
            if not found:
                break
            arg = {"credits": [credit.id for credit in found]}
            outcome = yield from self._operations.perform("sweep", arg)
            if not outcome.ok:
                break
            swept += int(outcome.detail["tokens"])  # 0 if someone else of this wallet was faster
            if enough is not None and swept >= enough:
                break
        return swept

    def _gather(self, need: int, wanted: int) -> Steps[int]:
        """What is spendable, after sweeping in as much as ``wanted``, and taking back what has expired if
        ``need`` is not covered otherwise."""
        balance = yield from wait(self._ledger.balance(self._name))
        spendable: int = balance.spendable
        if spendable < wanted and balance.credits:
            spendable += yield from self._sweep(wanted - spendable)
        if spendable < need:
            yield from self._expire()
            yield from self._sweep(need - spendable)
            # Another sweep of this wallet, here or in another process, may have been faster: what it took
            # in can be spent now, so it is asked again rather than added up.
            spendable = (yield from wait(self._ledger.balance(self._name))).spendable
        return spendable

    # Opening and refilling

    def _wait_for(
        self, account: Account, tokens: int, flight: Future[Shortage | None] | None
    ) -> Steps[Shortage | None]:
        assert flight is not None
        try:
            return (yield from wait(flight))
        except LedgerError as error:  # the driver waits for nothing for ever
            return no_answer(error)
        finally:
            with self._lock:
                account.waiting -= tokens

    def _enlarge(
        self, account: Account, tokens: int, policy: dict[str, Any], *, background: bool
    ) -> Steps[Shortage | None]:
        """Set more aside for a payee, and land the account's flight. What goes wrong is given, not raised."""
        shortage: Shortage | None = None
        try:
            if account.unanswered is not None:
                yield from self._ask_again(account, account.unanswered)
            elif account.known or not (yield from self._look(account, tokens, policy)):
                shortage = yield from self._set_aside(account, tokens, policy)
        except LedgerError as error:
            shortage = no_answer(error)
        except Exception as error:  # a fault of ours must not leave the others waiting for ever
            known = about(payer=self._name, payee=account.payee)
            _log.exception("setting tokens aside for %s failed", account.payee, extra=known)
            shortage = Shortage(NotSpent, f"no tokens could be set aside: {error!r}", 0, error)
        finally:
            with self._lock:
                account.flight = None
                if shortage is not None and background:
                    account.quiet_until = self._clock() + QUIET_S
        return shortage

    def _look(self, account: Account, tokens: int, policy: dict[str, Any]) -> Steps[bool]:
        """Take up what is open on the ledger already: of an earlier run, or of another process."""
        records = yield from wait(self._ledger.allowances(self._name, account.payee))
        until = self._clock() + self._life(policy)
        with self._lock:
            return account.take_up(records, tokens, until, self._ids())

    def _set_aside(self, account: Account, tokens: int, policy: dict[str, Any]) -> Steps[Shortage | None]:
        now = self._clock()
        tokens_max = max(tokens, min(self._settings.allowance_tokens_max, int(policy["tokens_max"])))
        with self._lock:
            wanted = min(tokens_max, account.wanted(tokens * self._settings.allowance_calls, now))
        spendable = yield from self._gather(tokens, wanted)
        if spendable < tokens:
            return (yield from lacking(self._ledger, self._name, spendable, tokens, self._settings.ledger))
        amount = min(wanted, max(tokens, spendable // FUNDS_SHARE))
        ttl = self._allowance_ttl(policy)
        with self._lock:
            target = account.refillable(amount, now + max(1.5 * self._life(policy), ttl / 4), tokens_max)
        outcome = None
        if target is not None:
            outcome = yield from self._enlarge_by(
                account, "refill", {"id": target.id, "tokens": amount}, tokens
            )
            if not outcome.ok and outcome.code != INSUFFICIENT:
                with self._lock:
                    account.drop(target)  # closed, ended or expired: open another
                target = None
        if target is None:
            arg = {"id": self._ids(), "payee": account.payee, "tokens": amount, "exp": int(now + ttl)}
            outcome = yield from self._enlarge_by(account, "open", arg, tokens)
        assert outcome is not None
        return None if outcome.ok else refusal(outcome, tokens)

    def _enlarge_by(self, account: Account, act: str, arg: dict[str, Any], need: int) -> Steps[Outcome]:
        """Open or refill, with less if another process of this wallet was faster and left less."""

        def remember(operation: Unanswered) -> None:
            account.unanswered = operation

        outcome = yield from self._operations.perform(act, arg, remember)
        if outcome.code == INSUFFICIENT and outcome.detail["have"] >= need:
            arg = {**arg, "tokens": outcome.detail["have"]}
            outcome = yield from self._operations.perform(act, arg, remember)
        if outcome.ok:
            with self._lock:
                account.enlarged(act, arg, self._ids(), self._clock())
        return outcome

    def _ask_again(self, account: Account, operation: Unanswered) -> Steps[None]:
        """Find out about the operation that was not answered, before another one is made."""
        if self._clock() <= operation.exp:
            outcome = yield from self._operations.submit(operation.document)
            if outcome.ok:
                with self._lock:
                    account.enlarged(operation.act, operation.arg, self._ids(), self._clock())
        else:
            # It can no longer be applied; the ledger shows whether it was.
            account.known = False
        account.unanswered = None

    def _account(self, payee: str) -> Account:
        account = self._accounts.get(payee)
        if account is not None:
            return account
        if len(self._accounts) >= self._settings.allowances_max:
            idle = next((name for name, each in self._accounts.items() if each.idle), None)
            if idle is None:
                raise NotFunded(
                    f"tokens are set aside for {len(self._accounts)} payees, all with calls under way, and "
                    "allowances_max allows no more",
                    service=payee,
                )
            del self._accounts[idle]  # what it has stays open on the ledger, and is found there again
        account = self._accounts[payee] = Account(payee)
        return account

    def _allowance_ttl(self, policy: dict[str, Any]) -> float:
        return min(self._settings.allowance_ttl_s, float(policy["allowance_ttl_s_max"]))

    def _life(self, policy: dict[str, Any]) -> float:
        """For how long an allowance must still be open to pay for a contract made now."""
        return min(self.contract_ttl_s(policy), self._allowance_ttl(policy) / 2)

    def _log_failure(self, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            known = about(payer=self._name)
            _log.warning("sweeping tokens in failed, and is tried again later: %s", error, extra=known)

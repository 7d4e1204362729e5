"""What the ledger says about a payer: its keys, whether it is frozen, what policy allows it, its funds.

Read through mirrors, so the answers may be a little old. How old is tied to the policy: the rules settle
what was accepted in good faith within ``propagation_s`` of a change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh.config import Settings
from tokenmesh.journal import HOLD
from tokenmesh.ledger.base import Allowance, Ledger
from tokenmesh.provider import checks
from tokenmesh.provider.asking import UNASKED_RETRY_S, Misses, Strangers
from tokenmesh.provider.checks import Fault, Funds, Payer, Policy
from tokenmesh.provider.mirror import MISSING, Mirror, within
from tokenmesh.steps import Steps
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Header, Signed
from tokenmesh_chaincode.limits import RECORD_KEEP_S

ALLOWANCE_BELIEVED_PART = 0.2
"""The part of the policy's grace for which an allowance is believed: its payer may have closed it, which
starts the grace."""

NEWS_BELIEVED_PART = 0.8
"""The part of the policy's ``propagation_s`` for which policy and wallets are believed. The rest is for what
the ledger itself is late by: one of Fabric's peers may be a little behind another."""


class Known(NamedTuple):
    """What is good of all contracts of one payer, signed with one certificate, for one operation, paid by one
    open allowance: drawn from several answers of the ledger, for as long as all of them are fresh."""

    fresh_until: float
    key: EllipticCurvePublicKey
    earliest_iat: int
    latest_iat: float
    longest_s: int
    latest_exp: int
    tokens: int
    settle_within_s: float


class Standing:
    """The ledger's answers about payers, kept for one payee."""

    def __init__(self, ledger: Ledger, payee: str, settings: Settings, clock: Callable[[], float]) -> None:
        self.domain = ledger.domain
        self.payee = payee
        self._known: dict[tuple[Header, str, str], Known] = {}
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._skew_s = settings.clock_skew_s
        size_max, wait_s = settings.wallet_cache_max, settings.ledger_wait_s
        self._payers: Mirror[Payer | None] = Mirror(
            ledger.wallet,
            Payer.of,
            clock,
            believe_s=settings.wallet_cache_s,
            size_max=size_max,
            wait_s=wait_s,
        )
        self._allowances: Mirror[Allowance | None] = Mirror(
            ledger.allowance,
            _itself,
            clock,
            believe_s=settings.wallet_cache_s,
            size_max=size_max,
            wait_s=wait_s,
        )
        self._strangers = Strangers(ledger, self._payers, settings, clock)
        self._misses = Misses(settings.unknown_asked_max, size_max)
        self._policy: Mirror[Policy] = Mirror(
            lambda _: ledger.policy(),
            self._read_policy,
            clock,
            believe_s=settings.policy_cache_s,
            size_max=1,
            wait_s=wait_s,
        )

    def at_once(self, signed: Signed[Contract]) -> Funds | Fault | None:
        """The short way of :meth:`signed` and :meth:`funds`, for what is known to be good but for its
        signature.

        None is no verdict: then take the long way.
        """
        contract, header = signed.body, signed.header
        known = self._known.get((header, contract.via, contract.op))
        if known is None:
            return None
        now, iat, exp = self._clock(), contract.iat, contract.exp
        if (
            now < known.fresh_until
            and now < exp <= known.latest_exp
            and known.earliest_iat <= iat <= known.latest_iat
            and iat <= now + self._skew_s
            and exp - iat <= known.longest_s
            and header.kid == contract.iss
            and contract.aud == self.payee
            and contract.dom == self.domain
        ):
            if not documents.verify(signed, known.key):
                return _forged(contract)
            return tuple.__new__(Funds, (known.tokens, now + known.settle_within_s))
        return None

    def unusable(self, contract: Contract) -> Fault | None:
        """Why a contract cannot be used at this moment, as far as nobody has to be asked and nothing is told
        of its payer: it is not in time; or what pays for it is not known, and its payer has named too much
        lately that is not there."""
        now = self._clock()
        fault = checks.timely(contract, now, self._skew_s)
        if fault is not None:
            return fault
        payer, via = contract.iss, contract.via
        if via == HOLD:
            return _no_hold(contract) if self._misses.is_used_up(payer, now) else None
        known = self._allowances.at_hand(via)
        if (known is not MISSING and known is not None) or self._allowances.is_asked(via):
            return None
        if self._allowances.is_doubted(via) or self._misses.is_used_up(payer, now):
            return _no_allowance(contract)
        return None

    def signed_at_once(self, signed: Signed[Contract]) -> Payer | Fault | None:
        """The part of :meth:`signed` that waits for nothing: a fault, or the payer if there is none. None is
        no verdict: then take the long way."""
        contract, x5t = signed.body, signed.header.x5t
        payer = self._payers.at_hand(contract.iss)
        if payer is MISSING or payer is None or x5t not in payer.keys:
            return self._strangers.at_once(contract.iss, x5t)
        # However old: a thumbprint's key is always the same one. And who has no key gets nothing asked.
        if not documents.verify(signed, payer.keys[x5t].key):
            return _forged(contract)
        payer = self._payers.believable(contract.iss)
        if payer is MISSING or payer is None or x5t not in payer.keys:
            return None
        return checks.certified(contract, payer.keys[x5t]) or payer

    def signed(self, signed: Signed[Contract]) -> Steps[Fault | None]:
        """Whether the payer's wallet, as registered, signed the contract while its certificate was good."""
        contract, x5t = signed.body, signed.header.x5t
        payer = self._payers.at_hand(contract.iss)
        if payer is MISSING or payer is None or x5t not in payer.keys:
            # Registered or rotated since the ledger was asked?
            payer = yield from self._strangers.ask(contract.iss, x5t)
        else:
            payer = yield from self._payers.get(contract.iss)
        if isinstance(payer, Fault):
            return payer
        if payer is None:
            return Fault("wallet_unknown", f"There is no wallet {contract.iss} on this ledger.")
        if x5t not in payer.keys:
            return Fault("certificate_unknown", f"{contract.iss} has no certificate with thumbprint {x5t}.")
        key = payer.keys[x5t]
        if not documents.verify(signed, key.key):
            return _forged(contract)
        return checks.certified(contract, key)

    def funds_at_once(self, signed: Signed[Contract], payer: Payer) -> Funds | Fault | None:
        """The part of :meth:`funds` that waits for nothing, for a contract of ``payer`` that :meth:`unusable`
        has nothing against. None is no verdict: then take the long way."""
        contract = signed.body
        policy, payee = self._policy.believable(""), self._payers.believable(contract.aud)
        if policy is MISSING or payee is MISSING:
            return None
        fault = checks.lifetime(contract, policy) or checks.permitted(contract, policy, payer, payee)
        if fault is not None or contract.via == HOLD:
            return fault
        allowance = self._allowances.believable(contract.via)
        if allowance is MISSING or allowance is None:
            return None
        return self._of_allowance(signed, policy, allowance)

    def funds(self, signed: Signed[Contract]) -> Steps[Funds | Fault]:
        """Whether a contract that holds may be taken now (in time, not frozen, allowed by the policy), and
        what is set aside for it."""
        contract = signed.body
        policy = yield from self._policy.get("")
        payer = yield from self._payers.get(contract.iss)
        payee = yield from self._payers.get(contract.aud)
        fault = (
            checks.timely(contract, self._clock(), self._skew_s)
            or checks.lifetime(contract, policy)
            or checks.permitted(contract, policy, payer, payee)
        )
        if fault is not None:
            return fault
        if contract.via == HOLD:
            return (yield from self._hold(contract))
        allowance = yield from self._allowance(contract)
        if isinstance(allowance, Fault):
            return allowance
        return self._of_allowance(signed, policy, allowance)

    def more_funds(self, signed: Signed[Contract], tokens: int) -> Steps[Funds | Fault | None]:
        """What is set aside for a contract by now, if that may be more than the ``tokens`` that were there
        when the ledger was asked last."""
        contract = signed.body
        if contract.via == HOLD or not self._misses.may_ask(contract.iss, self._clock()):
            return None
        self._known.pop((signed.header, contract.via, contract.op), None)
        allowance = yield from self._allowances.again(contract.via)
        self._note_found(contract.iss, allowance is not None and allowance.tokens > tokens)
        return self._of_allowance(signed, (yield from self._policy.get("")), allowance)

    def is_told_enough(self, contract: Contract) -> bool:
        """Whether :meth:`more_funds` would not ask."""
        return self._misses.is_used_up(contract.iss, self._clock())

    def _of_allowance(
        self, signed: Signed[Contract], policy: Policy, allowance: Allowance | None
    ) -> Funds | Fault:
        now = self._clock()
        funds = checks.funds_of_allowance(signed.body, allowance, now, self._allowances.believe_s)
        if isinstance(funds, Funds) and allowance is not None and allowance.closed_at is None:
            self._note(signed, allowance, policy, funds.settle_by - now)
        return funds

    def _allowance(self, contract: Contract) -> Steps[Allowance | Fault | None]:
        """The allowance that a contract is paid by, whose signature holds."""
        allowances, payer, via = self._allowances, contract.iss, contract.via
        known = allowances.at_hand(via)
        if known is not MISSING and known is not None:
            return (yield from allowances.get(via))
        if not allowances.is_asked(via) and (
            allowances.is_doubted(via) or not self._misses.may_ask(payer, self._clock())
        ):
            return _no_allowance(contract)
        # One that was not there a moment ago may have been opened since.
        allowance = yield from (allowances.get(via) if known is MISSING else allowances.again(via))
        self._note_found(payer, allowance is not None and allowance.payer == payer)
        return allowance

    def _hold(self, contract: Contract) -> Steps[Funds | Fault]:
        """What the hold of a contract has set aside, whose signature holds."""
        payer, jti = contract.iss, contract.jti
        if not self._misses.may_ask(payer, self._clock()):
            return _no_hold(contract)
        hold = yield from within(self._ledger.hold(payer, jti), self._settings.ledger_wait_s)
        self._note_found(payer, hold is not None)
        return checks.funds_of_hold(contract, hold, self._clock())

    def _note_found(self, payer: str, found: bool) -> None:
        if found:
            self._misses.found(payer)
        else:
            self._misses.missed(payer, self._clock())

    def _note(
        self,
        signed: Signed[Contract],
        allowance: Allowance,
        policy: Policy,
        settle_within_s: float,
    ) -> None:
        """This contract is good, and those that differ only in what :meth:`at_once` looks at are so too."""
        contract, header = signed.body, signed.header
        payer = self._payers.at_hand(contract.iss)
        if payer is MISSING or payer is None or header.x5t not in payer.keys:
            return
        key = payer.keys[header.x5t]
        if key.revoked:
            return
        if len(self._known) >= self._settings.wallet_cache_max:
            self._known.clear()
        self._known[header, contract.via, contract.op] = Known(
            min(
                self._policy.fresh_until(""),
                self._payers.fresh_until(contract.iss),
                self._payers.fresh_until(contract.aud),
                self._allowances.fresh_until(contract.via),
            ),
            key.key,
            allowance.opened_at - RECORD_KEEP_S,
            math.inf if key.until is None else key.until,
            policy.contract_ttl_s_max,
            allowance.exp,
            allowance.tokens,
            settle_within_s,
        )

    def _read_policy(self, policy: dict[str, Any]) -> Policy:
        settings, propagation_s = self._settings, policy["propagation_s"]
        longest, shortest = settings.wallet_cache_s, propagation_s * NEWS_BELIEVED_PART
        self._payers.believe_s = min(longest, shortest)
        self._policy.believe_s = min(settings.policy_cache_s, shortest)
        self._allowances.believe_s = min(longest, policy["grace_s"] * ALLOWANCE_BELIEVED_PART)
        return Policy(policy)


def _forged(contract: Contract) -> Fault:
    return Fault("signature_invalid", f"It was not made with the key of {contract.iss}.")


def _no_allowance(contract: Contract) -> Fault:
    return Fault("allowance_unknown", f"{_MANY} {contract.via}.", UNASKED_RETRY_S)


def _no_hold(contract: Contract) -> Fault:
    return Fault("hold_unknown", f"{_MANY} the hold {contract.jti}.", UNASKED_RETRY_S)


_MANY = "Its payer has named so much lately that is not there that the ledger is not asked at once for"


def _itself(value: Any) -> Any:
    return value

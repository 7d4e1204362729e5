"""What the ledger says about a payer: its keys, whether it is frozen, what policy allows it, its funds.

Read through mirrors, so the answers may be a little old. How old is tied to the policy: the rules settle
what was accepted in good faith within ``propagation_s`` of a change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh.config import Settings
from tokenmesh.journal import HOLD
from tokenmesh.ledger.base import Allowance, Ledger
from tokenmesh.provider import checks
from tokenmesh.provider.checks import Fault, Funds, Payer
from tokenmesh.provider.mirror import MISSING, Mirror, within
from tokenmesh.steps import Steps
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Header, Signed
from tokenmesh_chaincode.limits import RECORD_KEEP_S
from tokenmesh_chaincode.rules import allows

ALLOWANCE_BELIEVED_PART = 0.2
"""The part of the policy's grace for which an allowance is believed: its payer may have closed it, which
starts the grace."""


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
        self._policy: Mirror[dict[str, Any]] = Mirror(
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

    def signed(self, signed: Signed[Contract]) -> Steps[Fault | None]:
        """Whether the payer's wallet, as registered, signed the contract while its certificate was good."""
        contract, x5t = signed.body, signed.header.x5t
        payer = yield from self._payers.get(contract.iss)
        if payer is None or x5t not in payer.keys:
            # Registered or rotated since the ledger was asked?
            payer = yield from self._payers.again(contract.iss)
            if payer is None:
                return Fault("wallet_unknown", f"There is no wallet {contract.iss} on this ledger.")
            if x5t not in payer.keys:
                return Fault(
                    "certificate_unknown", f"{contract.iss} has no certificate with thumbprint {x5t}."
                )
        key = payer.keys[x5t]
        if not documents.verify(signed, key.key):
            return _forged(contract)
        if key.revoked:
            return Fault("certificate_revoked", f"Governance has revoked this certificate of {contract.iss}.")
        if key.until is not None and contract.iat > key.until:
            return Fault("certificate_ended", f"{contract.iss} had another certificate when it was signed.")
        return None

    def funds(self, signed: Signed[Contract], *, doubted: bool = False) -> Steps[Funds | Fault]:
        """Whether a contract that holds may be taken now (in time, not frozen, allowed by the policy), and
        what is set aside for it. ``doubted``: what was said of that lately is not enough."""
        contract = signed.body
        policy = yield from self._policy.get("")
        now, payer, payee = self._clock(), contract.iss, contract.aud
        fault = checks.timely(contract, policy, now, self._skew_s)
        if fault is not None:
            return fault
        for name in (payer, payee):
            wallet = yield from self._payers.get(name)
            if wallet is None or wallet.frozen_at is not None:
                return Fault("wallet_frozen", f"The wallet {name} was frozen by governance.")
        if not allows(policy, payer, payee, contract.op):
            return Fault("forbidden", f"{payer} may not call {contract.op} of {payee}.")
        if contract.via == HOLD:
            hold = yield from within(self._ledger.hold(payer, contract.jti), self._settings.ledger_wait_s)
            return checks.funds_of_hold(contract, hold, self._clock())
        allowances = self._allowances
        if doubted:
            self._known.pop((signed.header, contract.via, contract.op), None)
            allowance = yield from allowances.again(contract.via)
        else:
            allowance = yield from allowances.get(contract.via)
            if allowance is None:
                allowance = yield from allowances.again(contract.via)
        funds = checks.funds_of_allowance(contract, allowance, now, allowances.believe_s)
        if isinstance(funds, Funds) and allowance is not None and allowance.closed_at is None:
            self._note(signed, allowance, policy, funds.settle_by - now)
        return funds

    def _note(
        self,
        signed: Signed[Contract],
        allowance: Allowance,
        policy: Mapping[str, Any],
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
            policy["contract_ttl_s_max"],
            allowance.exp,
            allowance.tokens,
            settle_within_s,
        )

    def _read_policy(self, policy: dict[str, Any]) -> dict[str, Any]:
        longest = self._settings.wallet_cache_s
        self._payers.believe_s = min(longest, policy["propagation_s"])
        self._allowances.believe_s = min(longest, policy["grace_s"] * ALLOWANCE_BELIEVED_PART)
        return policy


def _forged(contract: Contract) -> Fault:
    return Fault("signature_invalid", f"It was not made with the key of {contract.iss}.")


def _itself(value: Any) -> Any:
    return value

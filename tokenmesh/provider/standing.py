"""What the ledger says about a payer: its keys, whether it is frozen, what policy allows it, its funds.

Read through mirrors, so the answers may be a little old. How old is tied to the policy: the rules settle
what was accepted in good faith within ``propagation_s`` of a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenmesh.config import Settings
from tokenmesh.journal import HOLD
from tokenmesh.ledger.base import Allowance, Ledger
from tokenmesh.provider import checks
from tokenmesh.provider.checks import Fault, Funds, Payer
from tokenmesh.provider.mirror import MISSING, Mirror, within
from tokenmesh.steps import Steps
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, Signed
from tokenmesh_chaincode.rules import allows

ALLOWANCE_BELIEVED_PART = 0.2
"""The part of the policy's grace for which an allowance is believed: its payer may have closed it, which
starts the grace."""


class Standing:
    """The ledger's answers about payers, kept for one payee."""

    def __init__(self, ledger: Ledger, settings: Settings, clock: Callable[[], float]) -> None:
        self.domain = ledger.domain
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
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

    def signed(self, signed: Signed[Contract]) -> Steps[Fault | None]:
        """Whether the payer's wallet, as registered, signed the contract while its certificate was good."""
        contract, x5t = signed.body, signed.header.x5t
        payer = self._payers.at_hand(contract.iss)
        if payer is MISSING:
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
            return Fault("signature_invalid", f"It was not made with the key of {contract.iss}.")
        if key.until is not None and contract.iat > key.until:
            return Fault("certificate_ended", f"{contract.iss} had another certificate when it was signed.")
        return None

    def funds(self, contract: Contract, *, doubted: bool = False) -> Steps[Funds | Fault]:
        """Whether a contract that holds may be taken now (in time, not frozen, allowed by the policy), and
        what is set aside for it. ``doubted``: what was said of that lately is not enough."""
        policy = self._policy.at_hand("")
        if policy is MISSING:
            policy = yield from self._policy.get("")
        now, payers, payer, payee = self._clock(), self._payers, contract.iss, contract.aud
        fault = checks.timely(contract, policy, now, self._settings.clock_skew_s)
        if fault is not None:
            return fault
        for name in (payer, payee):
            wallet = payers.at_hand(name)
            if wallet is MISSING:
                wallet = yield from payers.get(name)
            if wallet is None or wallet.frozen_at is not None:
                return Fault("wallet_frozen", f"The wallet {name} was frozen by governance.")
        if not allows(policy, payer, payee, contract.op):
            return Fault("forbidden", f"{payer} may not call {contract.op} of {payee}.")
        if contract.via == HOLD:
            hold = yield from within(self._ledger.hold(payer, contract.jti), self._settings.ledger_wait_s)
            return checks.funds_of_hold(contract, hold, self._clock())
        allowances = self._allowances
        allowance = MISSING if doubted else allowances.at_hand(contract.via)
        if allowance is MISSING:
            allowance = yield from (allowances.again if doubted else allowances.get)(contract.via)
        if allowance is None and not doubted:
            allowance = yield from allowances.again(contract.via)
        return checks.funds_of_allowance(contract, allowance, now, allowances.believe_s)

    def _read_policy(self, policy: dict[str, Any]) -> dict[str, Any]:
        longest = self._settings.wallet_cache_s
        self._payers.believe_s = min(longest, policy["propagation_s"])
        self._allowances.believe_s = min(longest, policy["grace_s"] * ALLOWANCE_BELIEVED_PART)
        return policy


def _itself(value: Any) -> Any:
    return value

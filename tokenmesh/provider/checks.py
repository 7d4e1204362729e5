"""Whether a contract is good for a request: each check is a function that gives a fault or nothing.

They ask what the rules will ask when the contract is settled, so nothing is accepted here that the ledger
would refuse later; where the two could differ in time (a freeze on its way, a payer that closes early), they
are the stricter side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh.ledger.base import Allowance, Hold, WalletRecord
from tokenmesh.provider.terms import Price, Request, Terms
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import Contract, Header
from tokenmesh_chaincode.limits import RECORD_KEEP_S
from tokenmesh_chaincode.rules import allows

SETTLE_MARGIN_S_MAX = 30.0
"""How long before the end of the grace a contract must be fulfilled, so that it is settled in time."""
SETTLE_MARGIN_PART = 0.2
"""The same as a part of the grace, for policies with a short one."""
ALLOWED_MAX = 1_024
"""Payers' operations of which one policy's verdict is remembered."""


class Fault(NamedTuple):
    """Why a contract is not good: the ``code`` of a problem and its ``detail``; ``retry_after`` so many
    seconds it may be good, for the ledger was not asked."""

    code: str
    detail: str
    retry_after: float | None = None


class Key(NamedTuple):
    """A certificate's key, good for contracts made from ``since`` until ``until``; for none if it is
    ``revoked``."""

    key: EllipticCurvePublicKey
    since: int
    until: int | None
    revoked: bool = False


class Payer(NamedTuple):
    """What is needed of a payer's wallet: its keys by ``x5t``, and whether it is frozen."""

    keys: Mapping[str, Key]
    frozen_at: int | None

    @classmethod
    def of(cls, record: WalletRecord | None) -> Payer | None:
        """The payer that a wallet's record describes."""
        if record is None:
            return None
        keys = {
            item.x5t: Key(public_key(item.pem), item.since, item.until, item.revoked_at is not None)
            for item in record.certificates
        }
        return cls(keys, record.frozen_at)


class Policy:
    """A policy, as the ledger has said it. It may have hundreds of rules, and every rule three patterns: what
    they say of one payer and one operation is worked out once."""

    __slots__ = ("_allowed", "contract_ttl_s_max", "document")

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.contract_ttl_s_max: int = document["contract_ttl_s_max"]
        self._allowed: dict[tuple[str, str, str], bool] = {}

    def allows(self, contract: Contract) -> bool:
        """Whether the payer may call this operation of the payee."""
        key = (contract.iss, contract.aud, contract.op)
        allowed = self._allowed.get(key)
        if allowed is None:
            if len(self._allowed) >= ALLOWED_MAX:
                self._allowed.clear()
            allowed = self._allowed[key] = allows(self.document, *key)
        return allowed


class Funds(NamedTuple):
    """What is set aside for a contract, in tokens, and the last moment at which it can be fulfilled."""

    tokens: int
    settle_by: float


NO_FUNDS = Funds(0, 0.0)


def plainly_meant(contract: Contract, request: Request, terms: Terms, price: Price) -> bool:
    """Whether :func:`bound` and :func:`offered` have nothing against it; False where they must say."""
    return (
        contract.htm == request.method
        and contract.htu == request.target
        and contract.op == request.operation
        and contract.tok >= price.needed
        and terms.via != "hold"
        and (not terms.private or contract.sd is not None)
    )


def addressed(contract: Contract, header: Header, domain: str, payee: str) -> Fault | None:
    """For this ledger and this payee, signed by the one who pays."""
    if contract.dom != domain:
        return Fault("other_domain", f"It is for {contract.dom}, and this payee settles on {domain}.")
    if contract.aud != payee:
        return Fault("other_payee", f"It is for {contract.aud}, and this is {payee}.")
    if header.kid != contract.iss:
        return Fault("other_signer", f"It is to be paid by {contract.iss}, but {header.kid} signed it.")
    return None


def certified(contract: Contract, key: Key) -> Fault | None:
    """Signed with a certificate that was good when it was signed, and was not revoked since."""
    if key.revoked:
        return Fault("certificate_revoked", f"Governance has revoked this certificate of {contract.iss}.")
    if key.until is not None and contract.iat > key.until:
        return Fault("certificate_ended", f"{contract.iss} had another certificate when it was signed.")
    return None


def bound(contract: Contract, request: Request) -> Fault | None:
    """Made for this very request: method and target. The body's digest is compared once it has been read."""
    if not contract.op:
        return Fault("undisclosed", "It is private, and came without its disclosure.")
    if contract.htm != request.method:
        return Fault("other_request", f"It is for {contract.htm}, and this request is {request.method}.")
    if contract.htu not in (request.target, request.alias):
        return Fault("other_request", f"It is for {contract.htu}, and this request is for {request.target}.")
    return None


def timely(contract: Contract, now: float, skew_s: float) -> Fault | None:
    """Not expired, not from the future."""
    if now >= contract.exp:
        return Fault("expired", f"It expired {now - contract.exp:.0f} s ago.")
    if contract.iat > now + skew_s:
        return Fault("not_yet_valid", f"It begins in {contract.iat - now:.0f} s, by this payee's clock.")
    return None


def lifetime(contract: Contract, policy: Policy) -> Fault | None:
    """Not longer-lived than allowed."""
    longest = policy.contract_ttl_s_max
    if contract.exp - contract.iat > longest:
        return Fault(
            "lives_too_long", f"It is valid for {contract.exp - contract.iat} s; {longest} s are allowed."
        )
    return None


def permitted(contract: Contract, policy: Policy, payer: Payer | None, payee: Payer | None) -> Fault | None:
    """Neither party frozen, and the policy not against it."""
    if payer is None or payer.frozen_at is not None:
        return Fault("wallet_frozen", f"The wallet {contract.iss} was frozen by governance.")
    if payee is None or payee.frozen_at is not None:
        return Fault("wallet_frozen", f"The wallet {contract.aud} was frozen by governance.")
    if not policy.allows(contract):
        return Fault("forbidden", f"{contract.iss} may not call {contract.op} of {contract.aud}.")
    return None


def _margin_s(grace_s: float) -> float:
    return min(SETTLE_MARGIN_S_MAX, grace_s * SETTLE_MARGIN_PART)


def funds_of_allowance(
    contract: Contract, allowance: Allowance | None, now: float, believed_s: float
) -> Funds | Fault:
    """What the allowance named in ``via`` has set aside for this payee.

    ``believed_s`` is how old the answer of the ledger may be: the payer may have closed the allowance since.
    """
    if allowance is None or allowance.payer != contract.iss or allowance.payee != contract.aud:
        return Fault(
            "allowance_unknown", f"{contract.iss} has no allowance {contract.via} for {contract.aud}."
        )
    end = allowance.exp if allowance.closed_at is None else min(allowance.exp, allowance.closed_at)
    if allowance.ended or contract.iat > end:
        return Fault("allowance_ended", f"The allowance {allowance.id} ended before the contract was made.")
    if contract.exp > allowance.exp:
        return Fault("allowance_ended", f"The allowance {allowance.id} ends before the contract expires.")
    if contract.iat < allowance.opened_at - RECORD_KEEP_S:
        return Fault("allowance_ended", f"The allowance {allowance.id} was opened long after the contract.")
    # A payer that closes early starts the grace at once, and may have done so since the ledger was asked.
    closes = min(end, now - believed_s) if allowance.closed_at is None else end
    settle_by = closes + allowance.grace_s - _margin_s(allowance.grace_s)
    if now >= settle_by:
        return Fault("allowance_ended", f"The allowance {allowance.id} cannot be settled in time any more.")
    return Funds(allowance.tokens, settle_by)


def funds_of_hold(contract: Contract, hold: Hold | None, now: float) -> Funds | Fault:
    """What the hold of this very contract has set aside for this payee."""
    if hold is None or hold.payee != contract.aud:
        return Fault("hold_unknown", f"{contract.iss} has no hold {contract.jti} for {contract.aud}.")
    if hold.state != "open":
        return Fault("hold_ended", f"The hold {hold.id} is {hold.state}.")
    if contract.exp > hold.exp:
        return Fault("hold_ended", f"The hold {hold.id} ends before the contract expires.")
    if contract.iat < hold.opened_at - RECORD_KEEP_S:
        return Fault("hold_ended", f"The hold {hold.id} was placed long after the contract was made.")
    if hold.tokens < contract.tok:
        return Fault(
            "hold_ended", f"The hold {hold.id} has {hold.tokens} tokens, the contract says {contract.tok}."
        )
    settle_by = hold.exp + hold.grace_s - _margin_s(hold.grace_s)
    if now >= settle_by:
        return Fault("hold_ended", f"The hold {hold.id} cannot be settled in time any more.")
    return Funds(hold.tokens, settle_by)


def offered(contract: Contract, terms: Terms, price: Price, request: Request) -> Fault | None:
    """Worth what is asked: the operation, the tokens, the way of paying."""
    if contract.op != request.operation:
        return Fault("other_operation", f"It is for {contract.op}, and this is {request.operation}.")
    if contract.tok < price.needed:
        return Fault("too_few_tokens", f"It offers {contract.tok} tokens for what costs {price.needed}.")
    if terms.via == "hold" and contract.via != "hold":
        return Fault("hold_required", f"It is paid by an allowance, and {request.operation} wants a hold.")
    if terms.private and contract.sd is None:
        return Fault("private_required", f"It says for all to read that it is for {request.operation}.")
    return None

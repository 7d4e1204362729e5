"""``apply``: one operation, from its text to its outcome.

First the document must hold; a document that does not leaves no trace. Then its id is looked up: one id,
one outcome. Then the operation is carried out on an overlay, which is kept if it ends well and thrown away
if it is refused; either way the outcome is recorded under the id, in the same transaction.
"""

from __future__ import annotations

from typing import Final

from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import (
    NO_DISCLOSURES,
    Disclosures,
    DocumentError,
    Operation,
    Parser,
    Signed,
    Verifier,
    parse_contract,
    parse_operation,
    thumbprint,
    verify_many,
)
from tokenmesh_chaincode.limits import CLOCK_SKEW_S_MAX, OPERATION_TTL_S_MAX
from tokenmesh_chaincode.rules import ending, enforcing, funds, governing, settling, tokens, wallets
from tokenmesh_chaincode.rules.arguments import check_argument
from tokenmesh_chaincode.rules.base import (
    Act,
    Argument,
    Call,
    Context,
    Given,
    Outcome,
    Refusal,
    is_frozen,
    ok,
)
from tokenmesh_chaincode.rules.codes import NOT_RECORDED
from tokenmesh_chaincode.state import Overlay, State, Value

_PLAIN: Final[dict[str, Act]] = {
    **wallets.ACTS,
    **tokens.ACTS,
    **funds.ACTS,
    **settling.ACTS,
    **ending.ACTS,
    **governing.POLICY_ACTS,
    **enforcing.ACTS,
}
ACTS: Final[dict[str, Act]] = {**_PLAIN, **governing.Proposals(_PLAIN).acts()}


def apply(
    state: State,
    operation: str | Signed[Operation],
    context: Context,
    *,
    verify_many: Verifier = verify_many,
    parse_contract: Parser = parse_contract,
    disclosures: Disclosures = NO_DISCLOSURES,
    recorded: Outcome | None = None,
) -> Outcome:
    """Carry out one operation on ``state`` at ``context.now``, all or nothing; return what came of it.

    ``operation`` is its text; or what ``parse_operation`` made of it, if the ledger has read it already.
    Never raises for any text. The same document always has the same outcome, except that one refused with
    a code of ``NOT_RECORDED`` has not taken place. ``verify_many`` checks signatures; it must agree with
    :func:`tokenmesh_chaincode.documents.verify_many`, and may use threads. ``parse_contract`` likewise: a
    ledger that has read a settlement's contracts before its turn came need not read them again.

    ``disclosures`` are those of the private contracts in a settlement, or more. In a replay ``recorded`` is
    the outcome that the ledger has: what policy has said about a private contract whose disclosure is not
    there any more is then taken from it; all else is judged anew.
    """
    try:
        signed = parse_operation(operation) if isinstance(operation, str) else operation
    except DocumentError as error:
        return Outcome(False, error.code, {"why": str(error)})
    try:
        domain = _domain(state)
        wallet = _check_signer(state, domain, signed, verify_many)
        given = Given(verify_many, parse_contract, disclosures, recorded)
        return _once(state, domain, wallet, signed, context, given)
    except Refusal as refusal:
        return refusal.outcome


def _domain(state: State) -> Value:
    domain = state.get("domain")
    if domain is None:
        raise Refusal("no_domain")
    return domain


def _check_signer(state: State, domain: Value, signed: Signed[Operation], verify: Verifier) -> Value:
    """The wallet that has really signed this."""
    body, header = signed.body, signed.header
    if body.dom != domain["id"]:
        raise Refusal("wrong_domain", domain=domain["id"])
    if header.kid != body.iss:
        raise Refusal("wrong_signer")
    wallet = state.get(f"wallet/{body.iss}")
    if wallet is None:
        raise Refusal("unknown_signer", wallet=body.iss)
    for cert in wallet["certs"]:
        if cert["x5t"] == header.x5t:
            if verify([(signed, public_key(cert["pem"]))]) != [True]:
                raise Refusal("bad_signature")
            return wallet
    raise Refusal("unknown_certificate")


def _check_time(wallet: Value, signed: Signed[Operation], now: int) -> None:
    body = signed.body
    if body.iat > now + CLOCK_SKEW_S_MAX:
        raise Refusal("not_yet_valid", now=now)
    if now > body.exp:
        raise Refusal("expired", now=now)
    if body.exp - body.iat > OPERATION_TTL_S_MAX:
        raise Refusal("ttl_too_long", most_s=OPERATION_TTL_S_MAX)
    for cert in wallet["certs"]:
        if cert["x5t"] == signed.header.x5t:
            if "revoked_at" in cert:
                raise Refusal("revoked_certificate", revoked_at=cert["revoked_at"])
            if body.iat > cert["until"]:
                raise Refusal("certificate_expired")


def _once(
    state: State,
    domain: Value,
    wallet: Value,
    signed: Signed[Operation],
    context: Context,
    given: Given,
) -> Outcome:
    body = signed.body
    key = f"op/{body.iss}/{body.jti}"
    # The claims, not the text: the same claims signed again are the same operation, and nobody who changes
    # a signature into its twin on the way can make the original look like another operation.
    digest = thumbprint(signed.signing_input.partition(b".")[2])
    record = state.get(key)
    if record is not None:
        if record["digest"] != digest:
            raise Refusal("id_reused")
        return Outcome.from_json(record["outcome"])
    _check_time(wallet, signed, context.now)
    act = ACTS.get(body.act)
    if act is None:
        raise Refusal("unknown_act", act=body.act)
    check_argument(act, body.arg)
    policy = state.get("policy")
    if policy is None:
        raise Refusal("no_domain")
    overlay = Overlay(state)
    call = Call(overlay, context.now, domain, policy, wallet, body.jti, body.iss, given)
    outcome = _run(act, call, body.arg)
    if outcome.code in NOT_RECORDED:
        return outcome
    if not outcome.ok:
        overlay = Overlay(state)
    overlay.put(key, {"digest": digest, "exp": body.exp, "outcome": outcome.to_json()})
    overlay.commit()
    return outcome


def _run(act: Act, call: Call, argument: Argument) -> Outcome:
    try:
        _check_caller(act, call, argument)
        return ok(act.run(call, argument))
    except Refusal as refusal:
        return refusal.outcome


def _check_caller(act: Act, call: Call, argument: Argument) -> None:
    if act.governors_only and call.wallet["role"] != "governor":
        raise Refusal("not_governor")
    if is_frozen(call.wallet) and not act.when_frozen:
        raise Refusal("frozen", wallet=call.name)
    threshold = call.policy["threshold"]
    if threshold > 1 and act.needs_approval is not None and act.needs_approval(call, argument):
        raise Refusal("needs_approval", threshold=threshold)

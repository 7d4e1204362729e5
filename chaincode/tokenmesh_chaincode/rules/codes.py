"""The rules' words for why something was refused, each with what it means. Part of the protocol.

``NOT_RECORDED`` are the refusals that leave no trace: the document does not hold, or not now, so asking
again with the same document may end otherwise. Every other outcome is kept, and is the outcome for ever.
"""

from __future__ import annotations

from typing import Final

OK: Final = "ok"

MEANING: Final[dict[str, str]] = {
    "ok": "done",
    # The document of the operation, or of a contract that a settlement carries.
    "not_an_operation": "the text is not an operation's document",
    "not_a_contract": "the text is not a contract",
    "too_large": "the document is longer than it may be",
    "too_deep": "the document is nested deeper than it may be",
    "unknown_algorithm": "the document is not signed with ES256",
    "bad_header": "the document's header lacks something, or asks for something that is not understood",
    "duplicate_claim": "a name stands twice in one object of the document",
    "missing_claim": "a claim is missing",
    "bad_claim": "a claim does not have its form",
    "undisclosed": "a private contract came without its disclosure; detail.items says which",
    "bad_disclosure": "the disclosure of a private contract is none; detail.items says which",
    "bad_argument": "the argument of the operation does not have its form; detail.why says what is wrong",
    "unknown_act": "there is no such operation",
    "no_domain": "this ledger has not been created yet",
    "wrong_domain": "the document is meant for another ledger",
    "wrong_signer": "kid is not the wallet that the document is from",
    "unknown_signer": "the wallet that asks is not registered",
    "unknown_wallet": "no such wallet is registered",
    "unknown_certificate": "the wallet has no certificate with this thumbprint",
    "certificate_expired": "the certificate was not, or no longer, the wallet's when the document was made",
    "revoked_certificate": "the certificate was revoked before the document was made",
    "bad_signature": "the signature does not hold",
    "not_yet_valid": "the document was made in the future",
    "expired": "the document's time is over",
    "ttl_too_long": "the document would be valid for longer than it may be",
    # Who may do what.
    "id_reused": "this id stands for something else already",
    "not_governor": "only a governor may do this",
    "not_yours": "this belongs to another wallet",
    "frozen": "the wallet is frozen",
    "payee_frozen": "the payee's wallet is frozen",
    "forbidden": "policy forbids this",
    "needs_approval": "this takes several governors: propose it, and have it approved",
    # Wallets and governance.
    "name_taken": "the name is registered with another certificate, role or url",
    "bad_certificate": "the certificate is not one for this wallet; detail.why says what is wrong",
    "too_many_certificates": "the wallet has too many certificates that are still needed",
    "too_many_governors": "there are as many governors as there may be",
    "bad_policy": "the policy does not have its form; detail.why says what is wrong",
    "unknown_proposal": "there is no such proposal",
    "proposal_ended": "the proposal has been carried out, or its time is over",
    "already_approved": "this governor has approved the proposal already",
    # Tokens.
    "insufficient_funds": "the wallet has too few tokens to spend; detail says how many",
    "too_many_tokens": "more tokens than one number may hold, or than policy allows in one place",
    # Holds, allowances, settlement.
    "unknown_hold": "there is no such hold",
    "hold_ended": "the hold was captured, voided or expired",
    "unknown_allowance": "there is no such allowance",
    "allowance_ended": "the allowance has been closed, or has expired",
    "allowance_used_up": "too few tokens are left in the allowance",
    "wrong_payer": "the hold or allowance is another payer's",
    "wrong_payee": "the contract, hold or allowance is for another payee",
    "bad_expiry": "the expiry does not lie in the future, or lies further off than policy allows",
    "too_late": "the time to settle is over",
    "outlives_funds": "the contract is valid for longer than the hold or allowance that pays for it",
    "before_funds": "the contract is older than the hold or allowance that pays for it",
    "charged_too_much": "more is charged than the contract offers, or the hold holds",
    "already_settled": "the hold was captured, or this seq was used, before",
    "too_many_lanes": "the allowance has as many lanes as it may have",
    "too_many_ranges": "the used seq of the allowance have too many gaps; settle or skip what lies between",
    "not_expired": "it is too early: it can still be settled",
}

NOT_RECORDED: Final = frozenset(
    {
        "not_an_operation",
        "too_large",
        "too_deep",
        "unknown_algorithm",
        "bad_header",
        "duplicate_claim",
        "missing_claim",
        "bad_claim",
        "undisclosed",
        "bad_disclosure",
        "bad_argument",
        "unknown_act",
        "no_domain",
        "wrong_domain",
        "wrong_signer",
        "unknown_signer",
        "unknown_certificate",
        "certificate_expired",
        "revoked_certificate",
        "bad_signature",
        "not_yet_valid",
        "expired",
        "ttl_too_long",
    }
)

"""What a payee answers in place of its handler: problems (RFC 9457) and stored responses.

Every refusal has a ``code``. The catalogue below gives its status, what happened and what to do; why comes
from the place that refuses. Nothing in a problem is secret: names, amounts and ids the payer sent itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from json.encoder import encode_basestring
from typing import NamedTuple

from tokenmesh.errors import TokenmeshError

Headers = list[tuple[str, str]]

PROBLEM_TYPE = "urn:tokenmesh:problem:"
RECEIPT_HEADER = "Token-Receipt"
CONTRACT_HEADER = "Token-Contract"
RETRY_AFTER_S = 1
"""What ``Retry-After`` says when nothing better is known."""

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

_NEW = "Sign a new contract for this call."
_SAME = "Try again later with the same contract: it is charged once or not at all."

CATALOGUE: Mapping[str, tuple[int, str, str]] = {
    # 400: not a contract at all. These codes are the documents' own.
    "not_a_contract": (
        400,
        "This is not a contract.",
        "Send one signed contract (JWS compact) in one Token-Contract header.",
    ),
    "too_large": (400, "The contract is too large.", "Keep to the limits in the protocol's reference."),
    "too_deep": (
        400,
        "The contract is nested too deeply.",
        "Keep to the limits in the protocol's reference.",
    ),
    "unknown_algorithm": (400, "The contract is signed with another algorithm.", "Sign with ES256."),
    "bad_header": (400, "The contract's header cannot be right.", "Write it as the protocol says."),
    "missing_claim": (400, "The contract lacks a claim.", "Write all claims that the protocol asks for."),
    "duplicate_claim": (400, "The contract has a claim twice.", "Write every claim once."),
    "bad_claim": (400, "A claim of the contract cannot be right.", "Write it as the protocol says."),
    "undisclosed": (
        400,
        "The contract is private, and its disclosure is not there.",
        "Send it behind the contract, with a ~ between them.",
    ),
    "bad_disclosure": (
        400,
        "What came with the contract is not a disclosure of it.",
        "Write it as the protocol says.",
    ),
    "request_too_large": (400, "The request's body is too large for a priced operation.", "Send less."),
    # 401: a contract, but not a good one for this payee.
    "other_domain": (401, "The contract is for another ledger.", "Use a wallet of this payee's ledger."),
    "other_payee": (401, "The contract is for another payee.", _NEW),
    "other_signer": (401, "The contract is not signed by its payer.", "Sign with the payer's own wallet."),
    "wallet_unknown": (401, "The ledger knows no such wallet.", "Register the wallet, then call again."),
    "certificate_unknown": (
        401,
        "The contract is signed with a certificate that the ledger does not have for this wallet.",
        "Sign with the wallet's certificate as registered.",
    ),
    "certificate_ended": (
        401,
        "The certificate that signed the contract has ended.",
        "Sign with the new one.",
    ),
    "certificate_revoked": (
        401,
        "The certificate that signed the contract was revoked.",
        "Sign with another one.",
    ),
    "signature_invalid": (401, "The contract's signature does not hold.", _NEW),
    "expired": (401, "The contract has expired.", _NEW),
    "not_yet_valid": (401, "The contract is from the future.", "Set the clock, then sign a new contract."),
    "lives_too_long": (401, "The contract is valid for longer than the policy allows.", _NEW),
    # 402: certainly unpaid.
    "contract_required": (
        402,
        "This operation costs tokens, and the request carries no contract.",
        "Sign a contract for one of the offers and send it in a Token-Contract header.",
    ),
    "too_few_tokens": (402, "The contract offers too few tokens.", "Sign a contract for the offer."),
    "other_operation": (
        402,
        "The contract names another operation.",
        "Sign a contract for one of the offers.",
    ),
    "hold_required": (402, "This operation is paid by a hold.", "Place a hold and sign a contract for it."),
    "private_required": (
        402,
        "This operation is paid by private contracts.",
        "Make the contract private, as the offer says.",
    ),
    "hold_unknown": (402, "The ledger has no hold for this contract.", "Place the hold, then call again."),
    "hold_ended": (402, "The hold cannot pay for this contract.", "Place a hold for a new contract."),
    "allowance_unknown": (402, "The ledger has no such allowance.", "Open an allowance, then call again."),
    "allowance_ended": (402, "The allowance cannot pay for this contract.", "Open a new allowance."),
    "allowance_used_up": (402, "The allowance has too few tokens left.", "Refill it or open a new one."),
    "sequence_used": (402, "This number of the allowance's lane is used.", "Sign with the next number."),
    "contract_void": (402, "This contract has ended and nothing is owed.", _NEW),
    # 403: a good contract, from someone who may not.
    "wallet_frozen": (403, "The wallet is frozen.", "Ask governance to unfreeze it."),
    "forbidden": (403, "Policy forbids this payer this operation.", "Ask governance to allow it."),
    # 409, 410, 422: the contract is known already.
    "in_progress": (409, "This contract is being worked on now.", _SAME),
    "response_not_kept": (
        410,
        "This contract was fulfilled, but its response was too large to keep.",
        "The receipt names its digest. Sign a new contract to have the work done again.",
    ),
    "other_request": (422, "This contract is for another request.", _NEW),
    # 503: unknown, or not now.
    "ledger_unavailable": (503, "The ledger cannot be reached.", _SAME),
    "ledger_busy": (503, "Too many requests wait for the ledger.", _SAME),
    "journal_unavailable": (503, "The payee's journal cannot be read or written.", _SAME),
    "journal_full": (503, "The payee's journal takes no more contracts for now.", _SAME),
    "too_late": (503, "The work took longer than the contract can be settled. Nothing is owed.", _NEW),
    "taken_over": (503, "Another process has taken this contract over.", _SAME),
    # Of the receipts' own address.
    "receipt_unknown": (404, "There is no receipt for this contract here.", "Ask the payee of the contract."),
}


class Answer(NamedTuple):
    """A whole response: what goes out in place of the handler's."""

    status: int
    headers: Headers
    body: bytes


class Problem(NamedTuple):
    """A refusal: its ``code`` from the catalogue, and ``detail``, which says why. ``offers`` are JSON."""

    code: str
    detail: str
    contract_id: str | None = None
    offers: str | None = None
    retry_after: float | None = None
    receipt: str | None = None

    @property
    def status(self) -> int:
        return CATALOGUE[self.code][0]

    def answer(self) -> Answer:
        """The response to send: the problem as compact JSON."""
        code, detail, contract_id, offers, retry_after, receipt = self
        status, head, tail = _fixed(code)
        text = f"{head}{encode_basestring(detail)}{tail}"
        if contract_id is not None:
            text += f',"contract_id":{encode_basestring(contract_id)}'
        if offers is not None:
            text += f',"offers":{offers}'
        body = f"{text}}}".encode("utf-8", "replace")
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if retry_after is None and status in (409, 503):
            retry_after = RETRY_AFTER_S
        if retry_after is not None:
            # Whole seconds (RFC 9110, section 10.2.3), and never 0: that would be a loop without a pause.
            headers.append(("Retry-After", str(max(1, math.ceil(retry_after)))))
        if receipt is not None:
            headers.append((RECEIPT_HEADER, receipt))
        # A named tuple's own constructor is a Python function around this.
        return tuple.__new__(Answer, (status, headers, body))


@cache
def _fixed(code: str) -> tuple[int, str, str]:
    """What all problems with a code have in common: the status and, as JSON, what stands before their detail
    and after it."""
    status, title, action = CATALOGUE[code]
    head = _ENCODER.encode({"type": PROBLEM_TYPE + code, "title": title, "status": status})
    tail = _ENCODER.encode({"action": action, "code": code})
    return status, f'{head[:-1]},"detail":', f",{tail[1:-1]}"


class Answered(TokenmeshError):
    """Raised to leave a priced handler: ``answer`` goes out in its place, past every error handler."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class Refused(Answered):
    """The contract is refused (or missing); ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}", problem.answer())
        self.problem = problem


class Replayed(Answered):
    """The contract has ended earlier; the answer is the one that was stored then."""

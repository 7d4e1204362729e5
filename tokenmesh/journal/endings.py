"""How a claim ends in the SQLite journal, and how its ending is read again.

Every function runs in the caller's transaction (``execute``). An ending takes effect only while the claim is
open and still belongs to the owner named: that one condition keeps an owner that was given up from ending
what another has taken over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenmesh.journal import allowances
from tokenmesh.journal.base import HOLD, Claim, Ended, Out, State, StoredResponse
from tokenmesh.journal.file import Execute

ABANDONED = "abandoned"
"""Reason of a claim that is void because its owner died or was given up."""
OUT_OF_TIME = "out_of_time"
"""Reason of a claim that is void because nobody ended it before it could no longer be settled."""


class Open(NamedTuple):
    """What an open claim has set in motion, and what ending it has to undo or report."""

    tok: int
    via: str
    lane: str | None
    seq: int | None
    settle_by: float


class Found(NamedTuple):
    """A claim as it is read, with its owner (an entry of ``owners``)."""

    claim: Claim
    owner: int


def end_owed(
    execute: Execute,
    claim: tuple[str, str],
    owner: int,
    *,
    contract: str,
    charged: int,
    response: StoredResponse,
    receipt: str | None,
    now: float,
) -> bool:
    """Fulfil: store the response and put the contract in the outbox. False: not open, not the owner's, or
    too late to settle, and nothing has changed."""
    # The next n of `owed` is known here, before its row: nobody else writes in this transaction.
    row = execute(
        "UPDATE claims SET ended = (SELECT ifnull(max(n), 0) + 1 FROM owed) "
        "WHERE payer = ? AND jti = ? AND ended IS NULL AND owner = ? AND settle_by > ? "
        "RETURNING ended, tok, via",
        (*claim, owner, now),
    ).fetchone()
    if row is None:
        return False
    n, tok, via = row
    execute(
        "INSERT INTO owed (n, payer, jti, charged, at, response, status, digest, contract, receipt) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            n,
            *claim,
            charged,
            now,
            _store(execute, response),
            response.status,
            response.digest,
            contract,
            receipt,
        ),
    )
    if charged < tok and via != HOLD:
        allowances.give_back(execute, via, tok - charged)
    return True


def end_unowed(
    execute: Execute,
    claim: tuple[str, str],
    owner: int,
    *,
    out: Out,
    reason: str | None,
    response: StoredResponse | None,
    receipt: str | None,
    now: float,
) -> bool:
    """End without owing anything: void, or fulfilled for no tokens. The tokens go back to the allowance at
    once, and the ledger will be told (a hold to release, a number to skip). False: not open, or not the
    owner's, and nothing has changed."""
    row = execute(
        "UPDATE claims SET ended = -(SELECT ifnull(max(n), 0) + 1 FROM unowed) "
        "WHERE payer = ? AND jti = ? AND ended IS NULL AND owner = ? "
        "RETURNING ended, tok, via, lane, seq, settle_by",
        (*claim, owner),
    ).fetchone()
    if row is None:
        return False
    execute(
        "INSERT INTO unowed (n, payer, jti, out, reason, at, response, status, digest, receipt) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            -row[0],
            *claim,
            out,
            reason,
            now,
            _store(execute, response) if response else None,
            response.status if response else None,
            response.digest if response else None,
            receipt,
        ),
    )
    give_up_funds(execute, claim, Open._make(row[1:]))
    return True


def give_up_funds(execute: Execute, claim: tuple[str, str], was: Open) -> None:
    """What a claim had set aside is free again, here at once and on the ledger by the next settlement."""
    if was.via == HOLD:
        execute("INSERT INTO releases (payer, jti) VALUES (?, ?) ON CONFLICT DO NOTHING", claim)
    else:
        allowances.give_back(execute, was.via, was.tok)
        execute(
            "INSERT INTO skips (allowance, lane, seq, until) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (was.via, was.lane, was.seq, was.settle_by),
        )


def find(execute: Execute, payer: str, jti: str) -> Found | None:
    """Everything known of a contract; an open claim is ``open`` here, whether its owner lives or not."""
    row = execute(
        "SELECT binding, tok, via, lane, seq, exp, settle_by, owner, ended FROM claims "
        "WHERE payer = ? AND jti = ?",
        (payer, jti),
    ).fetchone()
    if row is None:
        return None
    *fields, owner, ended = row
    state: State = "open"
    claim = Claim(payer, jti, state, *fields)
    if ended is None:
        return Found(claim, owner)
    return Found(_owed(execute, claim, ended) if ended > 0 else _unowed(execute, claim, -ended), owner)


def ended(claim: Claim) -> Ended:
    """The answer to a retry of a contract that has ended."""
    out: Out = "fulfilled" if claim.state == "fulfilled" else "void"
    return Ended(out, claim.charged, claim.receipt, claim.response, claim.tx_id, claim.reason)


def _owed(execute: Execute, claim: Claim, n: int) -> Claim:
    charged, response, status, digest, contract, receipt = execute(
        "SELECT charged, response, status, digest, contract, receipt FROM owed WHERE n = ?", (n,)
    ).fetchone()
    verdict = execute("SELECT code, tx_id FROM verdicts WHERE n = ?", (n,)).fetchone()
    if verdict is None:
        settled = execute(
            "SELECT tx_id FROM batches WHERE first <= ? AND last >= ? AND finished IS NOT NULL "
            "ORDER BY first DESC LIMIT 1",
            (n, n),
        ).fetchone()
        verdict = (None, settled and settled[0])
    return claim._replace(
        state="fulfilled",
        charged=charged,
        contract=contract,
        receipt=receipt,
        response=_response(execute, response, status, digest),
        lost=verdict[0],
        tx_id=verdict[1],
    )


def _unowed(execute: Execute, claim: Claim, n: int) -> Claim:
    out, reason, response, status, digest, receipt = execute(
        "SELECT out, reason, response, status, digest, receipt FROM unowed WHERE n = ?", (n,)
    ).fetchone()
    return claim._replace(
        state=out,
        reason=reason,
        receipt=receipt,
        response=None if status is None else _response(execute, response, status, digest),
    )


def _store(execute: Execute, response: StoredResponse) -> int | None:
    """Keep headers and body; None for a response that is kept by digest only."""
    if response.body is None:
        return None
    # A field's name or value holds no line break (RFC 9110, section 5.5), so lines are a safe list.
    lines = [line for header in response.headers for line in header]
    headers = "\n".join(lines)
    if lines and headers.count("\n") != len(lines) - 1:
        raise ValueError("a response header holds a line break, which HTTP does not allow")
    stored: int = execute(
        "INSERT INTO responses (headers, body) VALUES (?, ?)", (headers, response.body)
    ).lastrowid
    return stored


def _response(execute: Execute, stored: int | None, status: int, digest: str) -> StoredResponse:
    row: Any = None
    if stored is not None:
        row = execute("SELECT headers, body FROM responses WHERE id = ?", (stored,)).fetchone()
    if row is None:
        return StoredResponse(status, [], None, digest)
    lines = row[0].split("\n") if row[0] else []
    return StoredResponse(status, list(zip(lines[::2], lines[1::2], strict=True)), row[1], digest)

"""How a claim ends in the SQLite journal, and how its ending is read again.

Every function runs in the caller's transaction (``execute``). An ending takes effect only while the claim is
open and still belongs to the owner named: that one condition keeps an owner that was given up from ending
what another has taken over.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

from tokenmesh.journal import allowances
from tokenmesh.journal.base import HOLD, Claim, Ended, Out, State, StoredResponse
from tokenmesh.journal.file import Execute

INLINE_BYTES_MAX = 1_024
"""A body up to this length is kept in its contract's row, which saves a call one page of writing."""
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
        "INSERT INTO owed (n, payer, jti, charged, at, contract, receipt, "
        "status, digest, headers, body, response) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (n, *claim, charged, now, contract, receipt, *_store(execute, response)),
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
        "INSERT INTO unowed (n, payer, jti, out, reason, at, receipt, "
        "status, digest, headers, body, response) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (-row[0], *claim, out, reason, now, receipt, *_store(execute, response)),
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


KNOWN = "SELECT 1 FROM claims WHERE payer = ? AND jti = ?"
"""Whether there is anything for :func:`find` to find."""


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
    charged, contract, receipt, *response = execute(
        "SELECT charged, contract, receipt, status, digest, headers, body, response FROM owed WHERE n = ?",
        (n,),
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
        response=_response(execute, response),
        lost=verdict[0],
        tx_id=verdict[1],
    )


def _unowed(execute: Execute, claim: Claim, n: int) -> Claim:
    out, reason, receipt, *response = execute(
        "SELECT out, reason, receipt, status, digest, headers, body, response FROM unowed WHERE n = ?", (n,)
    ).fetchone()
    return claim._replace(state=out, reason=reason, receipt=receipt, response=_response(execute, response))


def _store(execute: Execute, response: StoredResponse | None) -> tuple[Any, ...]:
    """Columns ``status``, ``digest``, ``headers``, ``body`` and ``response`` of a contract's row."""
    if response is None:
        return (None, None, None, None, None)
    status, headers, body, digest = response
    if body is None:
        return (status, digest, None, None, None)
    lines = header_lines(headers)
    if len(body) <= INLINE_BYTES_MAX:
        return (status, digest, lines, body, None)
    stored = execute("INSERT INTO responses (headers, body) VALUES (?, ?)", (lines, body)).lastrowid
    return (status, digest, None, None, stored)


def header_lines(headers: list[tuple[str, str]]) -> str:
    """Names and values in turn, a line each: neither holds a line break (RFC 9110, section 5.5)."""
    text = "\n".join(chain.from_iterable(headers))
    if headers and text.count("\n") != 2 * len(headers) - 1:
        raise ValueError("a response header holds a line break, which HTTP does not allow")
    return text


def _response(execute: Execute, columns: list[Any]) -> StoredResponse | None:
    status, digest, lines, body, stored = columns
    if status is None:
        return None
    if stored is not None:
        row = execute("SELECT headers, body FROM responses WHERE id = ?", (stored,)).fetchone()
        lines, body = row or (None, None)
    names = lines.split("\n") if lines else []
    return StoredResponse(status, list(zip(names[::2], names[1::2], strict=True)), body, digest)

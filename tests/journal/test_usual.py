"""The usual case in one statement: it leaves the journal exactly as the long way does, and is taken."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tokenmesh.journal import HOLD, AllowanceUsedUp, Claimed, NewClaim, SequenceUsed, StoredResponse, usual
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh_chaincode.documents import digest

NOW = 1_800_000_000.0
TABLES = ("claims", "owed", "unowed", "allowances", "numbers", "skips", "releases", "responses")


def journal_in(path: Path) -> SqliteJournal:
    return SqliteJournal(path, clock=lambda: NOW, response_bytes_max=3_000, lease_s=3_600)


def contents(path: Path) -> dict[str, list[Any]]:
    """Every row; without ``funds``, which only says which way a claim has come."""
    with sqlite3.connect(path) as connection:
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    connection.close()
    rows["claims"] = [row[:-1] for row in rows["claims"]]
    return rows


def some_work(journal: SqliteJournal, seed: int) -> list[Any]:
    """Claims and ends of all kinds, some of them impossible; what came of each."""
    chance = random.Random(seed)
    results: list[Any] = []
    for number in range(300):
        via = chance.choice(["one", "two", HOLD])
        seq = None if via == HOLD else chance.choice([number, number, number, chance.randrange(130)])
        entry = NewClaim(
            payer=chance.choice(["shop", "cart"]),
            jti=f"c{chance.choice([number, number, chance.randrange(300)])}",
            contract=f"contract {number}",
            htm="GET",
            htu="/quote",
            dig=digest(b""),
            op="GET /quote",
            tok=chance.choice([0, 5, 5, 5, 70]),
            via=via,
            lane=None if via == HOLD else chance.choice(["a", "b"]),
            seq=seq,
            exp=int(NOW) + 60,
            settle_by=NOW + chance.choice([0, 300, 300, 300]),
            funds=chance.choice([400, 1_000]),
        )
        results.append(journal.claim(entry, NOW))
        body = b"x" * chance.choice([0, 50, 1_024, 1_025, 3_001])
        response = StoredResponse(200, [("A", "b"), ("C", "d")], body, digest(body))
        key = (entry.payer, entry.jti)
        end = chance.randrange(10)
        if end < 7:
            charged = chance.choice([entry.tok, entry.tok, 0, entry.tok // 2])
            try:
                results.append(journal.fulfil(*key, charged, response, "receipt", NOW + 1))
            except ValueError as error:  # an id that was claimed for fewer tokens before
                results.append(str(error))
        elif end < 9:
            results.append(journal.void(*key, "no", response, "receipt", NOW + 1))
    return results


@pytest.mark.parametrize("seed", range(5))
def test_it_leaves_what_the_long_way_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The same work, with the short way and without it: the same answers, and the same rows."""
    short, long = tmp_path / "short.db", tmp_path / "long.db"
    journal = journal_in(short)
    answers = some_work(journal, seed)
    journal.close()
    monkeypatch.setattr(usual, "claim", lambda *_: None)
    monkeypatch.setattr(usual, "why_not", lambda *_: None)
    monkeypatch.setattr(usual, "fulfil", lambda *_: False)
    journal = journal_in(long)
    assert some_work(journal, seed) == answers
    journal.close()
    assert contents(short) == contents(long)


def test_what_is_refused_is_looked_for_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A used number, and an allowance that is used up, are found without the write lock."""
    journal = journal_in(tmp_path / "journal.db")
    base = NewClaim("shop", "", "text", "GET", "/", digest(b""), "op", 5, "one", "a", 0, 1, NOW + 300, 10)
    for number in range(2):
        assert isinstance(journal.claim(base._replace(jti=f"c{number}", seq=number), NOW), Claimed)
    monkeypatch.setattr(journal, "_claim", None)
    assert journal.claim(base._replace(jti="c2", seq=1), NOW) == SequenceUsed()
    assert journal.claim(base._replace(jti="c2", seq=2, funds=12), NOW) == AllowanceUsedUp(2)
    journal.close()


def test_why_not_says_what_the_long_way_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every contract that is new: for numbers of all lanes, chunks that are there, below the floor or not
    begun, and sums. It says all that there is to say."""
    journal = journal_in(tmp_path / "journal.db")
    monkeypatch.setattr(usual, "claim", lambda *_: None)
    why_not = usual.why_not
    monkeypatch.setattr(usual, "why_not", lambda *_: None)
    chance = random.Random(3)
    base = NewClaim("shop", "", "text", "GET", "/", digest(b""), "op", 5, "one", "a", 0, 1, NOW + 300, 1_500)
    said = []
    for seq in range(200):  # the first chunks are used whole, which raises the floor above them
        assert isinstance(journal.claim(base._replace(jti=f"all{seq}", seq=seq), NOW), Claimed)
    for number in range(400):
        seq, lane = chance.choice([chance.randrange(400), 10**6 + number]), chance.choice("ab")
        via, tok = chance.choice(["one", "two"]), chance.choice([1, 5, 30])
        entry = base._replace(jti=f"c{number}", lane=lane, seq=seq, via=via, tok=tok)
        said.append(why_not(journal._requests, entry))
        answer = journal.claim(entry, NOW)
        assert answer == said[-1] if said[-1] is not None else isinstance(answer, Claimed)
    assert {type(one) for one in said} == {type(None), SequenceUsed, AllowanceUsedUp}
    journal.close()


def test_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second contract of an allowance and a lane on, and again for each 60 numbers."""
    taken: list[bool] = []
    claim = usual.claim

    def counted(*args: Any) -> int | None:
        left = claim(*args)
        taken.append(left is not None)
        return left

    monkeypatch.setattr(usual, "claim", counted)
    journal = journal_in(tmp_path / "journal.db")
    base = NewClaim("shop", "", "text", "GET", "/", digest(b""), "op", 5, "one", "a", 0, 1, NOW + 300, 1_000)
    for number in range(121):
        result = journal.claim(base._replace(jti=f"c{number}", seq=number), NOW)
        assert result.left == 1_000 - 5 * (number + 1)
    journal.close()
    # The very first claim counts the room that there is, before it asks for anything.
    assert [number for number, short in enumerate(taken, start=1) if not short] == [60, 120]

"""The checker notices every lie: one run's books in which all adds up, and one entry at a time made wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chaos.checker import Answer, Asked, Books, Recorded, Run, check

from tokenmesh.cli.demo import auditor
from tokenmesh.cli.demo.tally import Passage

FORGETFUL = "look"


def passage(jti: str, charged: int, status: int = 200) -> Passage:
    out = "fulfilled" if status == 200 else "void"
    return Passage("payee", "drawn", "alice", jti, status, 0.0, False, f"receipt of {jti}", out, charged)


def all_well() -> Books:
    """Alice pays for two jobs, of which one failed first, and looks something up without hearing of it."""
    settled = [
        auditor.Settled("alice", "payee", "one", "POST /drawn/{job}", 5, 5),
        auditor.Settled("alice", "payee", "look", "GET /look/{job}", 2, 2),
    ]
    runs = [
        Run("r0", "alice", "given-up", "a-drawn-0", None),
        Run("r1", "alice", "one", "a-drawn-0", 5),
        Run("r2", "alice", "failed", "a-drawn-1", 0),
        Run("r3", "alice", "look", "a-look-0", 2),
    ]
    evidence = auditor.Evidence(
        settled=settled,
        runs=[auditor.Run("payee", run.payer, run.jti) for run in runs],
        passages=[passage("one", 5), passage("failed", 0, 422)],
        forged=[],
        claims={one.key: one.charged for one in settled},
        unsettled={"payee": 0},
        offers={("payee", "POST /drawn/{job}"): 5, ("payee", "GET /look/{job}"): 2},
        accounts={
            "governance": auditor.Account(900, 900, 0, 0, 0),
            "alice": auditor.Account(100, 93, 0, 0, 0),
            "payee": auditor.Account(0, 7, 0, 0, 0),
        },
        minted=1_000,
        supply=1_000,
        accounted=1_000,
        verify=[],
    )
    return Books(
        payee="payee",
        evidence=evidence,
        runs=runs,
        answers=[
            Answer("a", "alice", "drawn", 0, "one", "r1", 200, 5),
            Answer("a", "alice", "drawn", 1, "failed", "r2", 422, 0),
        ],
        ends={
            ("alice", "payee", "given-up"): "void",
            ("alice", "payee", "one"): "fulfilled",
            ("alice", "payee", "failed"): "void",
            ("alice", "payee", "look"): "fulfilled",
        },
        asked=[Asked("g1", "freeze", "ok", "tx1")],
        recorded=[Recorded("g1", "freeze", "ok", "tx1")],
        forgetful=(FORGETFUL,),
    )


def with_evidence(books: Books, **changes: object) -> Books:
    return books._replace(evidence=books.evidence._replace(**changes))


def with_account(books: Books, name: str, **changes: int) -> Books:
    accounts = dict(books.evidence.accounts)
    accounts[name] = accounts[name]._replace(**changes)
    return with_evidence(books, accounts=accounts)


def charged_twice(books: Books) -> Books:
    """The job that was given up and done again is charged under both contracts."""
    lost = auditor.Settled("alice", "payee", "given-up", "POST /drawn/{job}", 5, 5)
    books = books._replace(ends={**books.ends, lost.key: "fulfilled"})
    return with_evidence(books, settled=[*books.evidence.settled, lost])


LIES: dict[str, tuple[Callable[[Books], Books], str]] = {
    "a contract settled twice": (
        lambda books: with_evidence(books, settled=[*books.evidence.settled, books.evidence.settled[0]]),
        "overcharged: contract one (alice to payee) was settled 2 times",
    ),
    "a handler that ran twice": (
        lambda books: with_evidence(books, runs=[*books.evidence.runs, books.evidence.runs[1]]),
        "double_runs: contract one (alice to payee) ran 2 times",
    ),
    "a token that vanished": (
        lambda books: with_account(books, "alice", spendable=92),
        "books: alice should have 93 tokens and has 92",
    ),
    "a token from nowhere": (
        lambda books: with_evidence(books, supply=1_001),
        "supply: 1000 tokens were made",
    ),
    "tokens that stay set aside": (
        lambda books: with_account(books, "alice", spendable=90, allowed=3),
        "stranded_tokens: 3 tokens of alice are still set aside",
    ),
    "a history that does not hold": (lambda books: with_evidence(books, verify=["bad"]), "verify: bad"),
    "a receipt that nobody signed": (
        lambda books: with_evidence(books, forged=["x.y.z"]),
        "books: a receipt's signature does not hold",
    ),
    "work that was fulfilled and not charged": (
        lambda books: books._replace(ends={**books.ends, ("alice", "payee", "given-up"): "fulfilled"}),
        "fulfilled: contract given-up of alice is fulfilled in the journal, and charged nothing",
    ),
    "work that was charged and not fulfilled": (
        lambda books: books._replace(ends={**books.ends, ("alice", "payee", "one"): "void"}),
        "fulfilled: contract one of alice is void in the journal, and charged 5",
    ),
    "another charge than the handler's": (
        lambda books: books._replace(
            runs=[run._replace(charged=4) if run.run == "r1" else run for run in books.runs]
        ),
        "fulfilled: contract one of alice is charged 5; its handler said 4",
    ),
    "an answer with another charge": (
        lambda books: books._replace(answers=[books.answers[0]._replace(charged=4), books.answers[1]]),
        "answers: a drawn 0 (contract one) was answered 4 tokens, the ledger took 5",
    ),
    "the answer of another run": (
        lambda books: books._replace(answers=[books.answers[0]._replace(run="r0"), books.answers[1]]),
        "answers: a drawn 0 (contract one) was answered by a run of given-up",
    ),
    "a charge for what failed": (
        lambda books: books._replace(answers=[books.answers[0]._replace(status=422), books.answers[1]]),
        "answers: a drawn 0 (contract one) was charged 5 for status 422",
    ),
    "a job that is missing": (
        lambda books: books._replace(answers=books.answers[1:]),
        "jobs: a has noted other drawn jobs than 0 to 0, each once",
    ),
    "a job paid under two contracts": (charged_twice, "jobs: job a-drawn-0 is charged under 2 contracts"),
    "a charge that its payer never heard of": (
        charged_twice,
        "jobs: job a-drawn-0 is charged under given-up, and its payer never heard of it",
    ),
    "an acknowledged freeze that is lost": (
        lambda books: books._replace(
            recorded=[Recorded("g0", "grant", "ok", "tx0")],
            asked=[Asked("g0", "grant", "ok", "tx0"), *books.asked],
        ),
        "governance: freeze g1 was answered ok in tx1, history has nothing",
    ),
    "an outcome that changed": (
        lambda books: books._replace(recorded=[Recorded("g1", "freeze", "frozen", "tx1")]),
        "governance: freeze g1 was answered ok in tx1, history has frozen in tx1",
    ),
    "an operation done twice": (
        lambda books: books._replace(recorded=[*books.recorded, Recorded("g1", "freeze", "ok", "tx2")]),
        "governance: freeze g1 was answered ok in tx1, history has ok in tx1, ok in tx2",
    ),
    "an operation that nobody asked for": (
        lambda books: books._replace(recorded=[*books.recorded, Recorded("g2", "grant", "ok", "tx2")]),
        "governance: grant g2 is in the history, and nobody asked for it",
    ),
    "an operation that was never answered": (
        lambda books: books._replace(asked=[Asked("g1", "freeze", None, None)]),
        "governance: freeze g1 was never answered",
    ),
    "a run in which nothing happened": (
        lambda books: books._replace(answers=[]),
        "at all: no answer was noted",
    ),
}


def test_when_all_adds_up_nothing_is_found() -> None:
    assert check(all_well()) == []


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    """In words that say which contract, whose tokens, or which operation."""
    tell, finding = LIES[lie]
    assert any(found.startswith(finding) for found in check(tell(all_well()))), check(tell(all_well()))


def test_many_findings_are_counted_not_all_told() -> None:
    """A run that went wrong from the start does not drown its reader."""
    books = all_well()
    strangers = [Recorded(f"s{number}", "grant", "ok", "tx") for number in range(100)]
    found = check(books._replace(recorded=[*books.recorded, *strangers]))
    assert len(found) == 21
    assert found[-1] == "governance: 100 in all"

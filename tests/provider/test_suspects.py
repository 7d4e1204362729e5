"""Payers who were refused lately: of them the journal is asked before it is tried, and says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.payee import PAYER, Payee
from support.wallets import Clock
from tokenmesh.errors import JournalError
from tokenmesh.journal import StoredResponse
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.provider import Answered, Provider, Refused, Request, Terms
from tokenmesh.provider.exchange import Exchange
from tokenmesh.provider.suspects import SUSPECTED_S, Suspects
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract

RESPONSE = StoredResponse(200, [], b"quote", documents.digest(b"quote"))
TERMS = Terms(5)


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path, unknown_asked_max=4)
    yield payee
    payee.close()


class Tried:
    """The payee's journal, which counts what is tried."""

    def __init__(self, payee: Payee, monkeypatch: pytest.MonkeyPatch) -> None:
        self.claims = 0
        claim = SqliteJournal.claim

        def counted(journal: SqliteJournal, *args: Any) -> Any:
            self.claims += 1
            return claim(journal, *args)

        monkeypatch.setattr(SqliteJournal, "claim", counted)


@pytest.fixture
def tried(payee: Payee, monkeypatch: pytest.MonkeyPatch) -> Tried:
    return Tried(payee, monkeypatch)


def contract(payee: Payee, **claims: Any) -> Contract:
    return payee.terms("GET /quote", **claims)


def send(payee: Payee, terms: Contract | str, provider: Provider | None = None) -> str | bytes:
    """Have a request served, as an adapter does it: the body it gets, or the code of its problem."""
    text = terms if isinstance(terms, str) else payee.sign(terms)
    request = Request("GET", "/quote", "GET /quote", "/quote", (text.encode(),), lambda: b"")
    exchange = Exchange(provider or payee.provider, TERMS, request, object())
    try:
        for step in (exchange.check, exchange.admit, exchange.begin):
            rest = step()
            if rest is not None:
                run(rest)
        run(exchange.end(RESPONSE, lambda: None))
    except Refused as refused:
        return refused.problem.code
    except Answered as answered:
        return answered.answer.body
    return b"worked"


def refuse(payee: Payee) -> Contract:
    """Have a number used twice; gives the contract that has it."""
    first = contract(payee)
    assert send(payee, first) == b"worked"
    assert send(payee, contract(payee, seq=first.seq)) == "sequence_used"
    return first


class TestWhoIsRefusedAgain:
    """The same answers as before, for less."""

    def test_a_used_number_is_not_tried_again(self, payee: Payee, tried: Tried) -> None:
        first = refuse(payee)
        tried.claims = 0
        for _ in range(5):
            assert send(payee, contract(payee, seq=first.seq)) == "sequence_used"
        assert tried.claims == 0
        payee.clock.forward(SUSPECTED_S)
        assert send(payee, contract(payee, seq=first.seq)) == "sequence_used"
        assert tried.claims == 1

    def test_an_allowance_that_is_used_up_is_not_tried_again(self, payee: Payee, tried: Tried) -> None:
        """Once the ledger was asked often enough whether it has more; whatever lane and number they have."""
        small = payee.open_allowance(5)
        assert send(payee, contract(payee, via=small, seq=1)) == b"worked"
        codes = [send(payee, contract(payee, via=small, seq=number)) for number in range(2, 32)]
        tried.claims = 0
        codes += [send(payee, contract(payee, via=small, lane=f"l{n}", seq=1_000 * n)) for n in range(10)]
        assert set(codes) == {"allowance_used_up"}
        assert tried.claims == 0

    def test_a_refill_is_noticed(self, payee: Payee) -> None:
        """As soon as the ledger is asked once more, which the payer's next contract has it asked."""
        small = payee.open_allowance(5)
        send(payee, contract(payee, via=small, seq=1))
        for number in range(2, 32):
            assert send(payee, contract(payee, via=small, seq=number)) == "allowance_used_up"
        payee.domain.do(PAYER, "refill", {"id": small, "tokens": 5})
        payee.clock.forward(0.1)
        assert send(payee, contract(payee, via=small, seq=40)) == "allowance_used_up"
        payee.clock.forward(0.5)
        assert send(payee, contract(payee, via=small, seq=41)) == b"worked"

    def test_good_contracts_of_theirs_are_worked(self, payee: Payee) -> None:
        refuse(payee)
        for _ in range(3):
            assert send(payee, contract(payee)) == b"worked"
        refuse(payee)
        hold = payee.hold(5)
        assert send(payee, contract(payee, jti=hold, via="hold")) == b"worked"

    def test_a_contract_that_was_worked_gets_its_response(self, payee: Payee) -> None:
        """Whatever became of its number or its allowance: the very same text, or the same job signed anew."""
        small = payee.open_allowance(5)
        worked = contract(payee, via=small, seq=1)
        assert send(payee, worked) == b"worked"
        assert send(payee, contract(payee, via=small, seq=1)) == "sequence_used"
        assert send(payee, worked) == RESPONSE.body
        assert send(payee, worked._replace(seq=2)) == RESPONSE.body
        assert send(payee, worked._replace(via=payee.allowance, seq=99)) == RESPONSE.body

    def test_nobody_else_is_told(self, payee: Payee) -> None:
        """Who has not the payer's key hears that the signature does not hold, and nothing else."""
        first = refuse(payee)
        text = payee.sign(contract(payee, seq=first.seq))
        assert send(payee, f"{text.rpartition('.')[0]}.{'A' * 86}") == "signature_invalid"

    def test_another_process_has_the_last_word(self, payee: Payee, tmp_path: Path) -> None:
        """What is said comes from the journal as it is: a number that was used elsewhere is used."""
        refuse(payee)
        journal = SqliteJournal(tmp_path / "journal.db", clock=payee.clock)
        elsewhere = payee.new_provider(payee.domain.ledger, journal)
        there = contract(payee)
        assert send(payee, there, elsewhere) == b"worked"
        assert send(payee, contract(payee, seq=there.seq)) == "sequence_used"
        assert send(payee, there) == RESPONSE.body
        journal.close()

    def test_a_journal_that_cannot_be_read(self, payee: Payee, monkeypatch: pytest.MonkeyPatch) -> None:
        """503, as for a claim: nobody knows what is true."""
        first = refuse(payee)

        def fail(*_: Any) -> None:
            raise JournalError("no disk")

        monkeypatch.setattr(SqliteJournal, "why_not", fail)
        assert send(payee, contract(payee, seq=first.seq)) == "journal_unavailable"


class TestSuspects:
    """The memory itself."""

    def test_a_payer_is_suspected_for_a_while(self) -> None:
        clock = Clock()
        suspects = Suspects(clock, 10)
        assert not suspects.any
        suspects.note("shop")
        assert suspects.has("shop")
        assert not suspects.has("cart")
        clock.forward(SUSPECTED_S)
        assert not suspects.has("shop")
        assert not suspects.any

    def test_a_clock_that_is_set_back_makes_it_no_longer(self) -> None:
        clock = Clock()
        suspects = Suspects(clock, 10)
        suspects.note("shop")
        clock.forward(-100)
        assert not suspects.has("shop")

    def test_it_is_bounded(self) -> None:
        """The first to be noted go first."""
        suspects = Suspects(Clock(), 3)
        for number in range(10):
            suspects.note(f"payer-{number}")
        assert list(suspects.any) == ["payer-7", "payer-8", "payer-9"]

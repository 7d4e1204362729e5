"""How often a payee asks the ledger for what that may not have; and that what it has gets through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.payee import PAYER, Payee
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import Ledger
from tokenmesh.provider import Provider, Refused, Request, Terms
from tokenmesh.provider.asking import AT_ONCE_S, UNASKED_RETRY_S, Misses, Ration
from tokenmesh.provider.problems import Problem
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import new_id

RATE = 20
AT_ONCE = RATE * AT_ONCE_S


class Counting:
    """A ledger whose questions are counted, by their kind."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.domain = ledger.domain
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Any:
            self.asked[name] += 1
            return getattr(self._ledger, name)(*args)

        return ask


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path, unknown_asked_max=RATE)
    yield payee
    payee.close()


@pytest.fixture
def ledger(payee: Payee) -> Counting:
    return Counting(payee.domain.ledger)


@pytest.fixture
def provider(payee: Payee, ledger: Counting) -> Provider:
    provider = payee.new_provider(ledger)  # type: ignore[arg-type]
    assert answer(provider, payee.sign(payee.terms("GET /quote"))) is None
    ledger.asked.clear()
    return provider


def answer(provider: Provider, text: str) -> Problem | None:
    """The problem that a contract gets; None if it is taken."""
    request = Request("GET", "/quote", "GET /quote", "/quote", (text.encode(),), lambda: b"")
    try:
        call = run(provider.check(request, Terms(5)))
        assert call is not None
        run(provider.admit(call))
        run(provider.claim(call))
    except Refused as refused:
        return refused.problem
    return None


def code(provider: Provider, text: str) -> str | None:
    problem = answer(provider, text)
    return None if problem is None else problem.code


def by_stranger(payee: Payee, stranger: Identity, number: int) -> str:
    """A contract in a name that nobody has."""
    name = f"stranger-{number}"
    signer = Named(name, stranger)
    return documents.sign(payee.terms("GET /quote", iss=name), signer)


class Named:
    """An identity under another name."""

    def __init__(self, name: str, identity: Identity) -> None:
        self.name, self.x5t, self.sign = name, identity.x5t, identity.sign


@pytest.fixture
def stranger(payee: Payee) -> Identity:
    return payee.domain.wallets.new("stranger")


def flood(payee: Payee, provider: Provider, stranger: Identity, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert code(provider, by_stranger(payee, stranger, number)) == "wallet_unknown"


class TestRation:
    def test_so_many_at_once_and_so_many_a_second(self) -> None:
        ration = Ration(4, 100.0)
        assert [ration.take(100.0) for _ in range(21)] == [True] * 20 + [False]
        assert [ration.take(101.0) for _ in range(5)] == [True] * 4 + [False]
        assert sum(ration.take(1_000.0) for _ in range(99)) == 20

    def test_a_clock_that_is_set_back_gives_nothing(self) -> None:
        ration = Ration(4, 100.0)
        while ration.take(100.0):
            pass
        assert not ration.take(40.0)
        assert not ration.take(40.1)
        assert ration.take(40.5)

    def test_what_is_not_there_counts_twice(self) -> None:
        """Also for who comes again as soon as there is one: half as many a second, whatever it does."""
        misses = Misses(20, 2)
        misses.missed("a", 0.0)
        asked = []
        for tick in range(1, 1_000):
            if misses.may_ask("a", tick / 100):
                misses.missed("a", tick / 100)
                asked.append(tick / 100)
        assert len([at for at in asked if 5 < at <= 9]) in (39, 40, 41)

    def test_payers_are_bounded_and_do_not_share(self) -> None:
        misses = Misses(1, 2)
        for payer in ("a", "b", "c"):
            misses.missed(payer, 0.0)
        while misses.may_ask("c", 0.0):
            pass
        assert misses.is_used_up("c", 0.0)
        assert not misses.is_used_up("b", 0.0)
        assert len(misses._rations) == 2


class TestStrangers:
    """It takes no key to make up a name."""

    def test_the_ledger_is_asked_for_so_many_and_no_more(
        self, payee: Payee, ledger: Counting, provider: Provider, stranger: Identity
    ) -> None:
        """A thousand names: each has the same answer, and past the ration all of them cost one question."""
        flood(payee, provider, stranger, 0, 1_000)
        assert ledger.asked == {"wallet": AT_ONCE, "wallets": 1}
        payee.clock.forward(1)
        flood(payee, provider, stranger, 1_000, 1_000)
        assert ledger.asked["wallet"] <= AT_ONCE + RATE + 2  # two parties are asked about anew
        assert ledger.asked["wallets"] == 2

    def test_what_was_not_asked_for_may_be_tried_again(
        self, payee: Payee, provider: Provider, stranger: Identity
    ) -> None:
        """Only where the ledger was not asked: otherwise the answer is final."""
        asked = answer(provider, by_stranger(payee, stranger, 0))
        flood(payee, provider, stranger, 1, AT_ONCE)
        unasked = answer(provider, by_stranger(payee, stranger, AT_ONCE + 1))
        assert asked is not None
        assert unasked is not None
        assert (asked.retry_after, unasked.retry_after) == (None, UNASKED_RETRY_S)

    def test_a_wallet_that_is_registered_meanwhile_gets_through(
        self, payee: Payee, provider: Provider, stranger: Identity
    ) -> None:
        """Within about a second, while strangers go on; and it is known from then on."""
        flood(payee, provider, stranger, 0, 2 * AT_ONCE)
        domain = payee.domain
        late = domain.wallets.new("late")
        record = {"name": "late", "cert": late.certificate_pem, "role": "service", "url": None}
        domain.do("governance", "register", record)
        text = documents.sign(payee.terms("GET /quote", iss="late"), late)
        for second in range(2):
            flood(payee, provider, stranger, 1_000 * second, 2 * AT_ONCE)
            payee.clock.forward(1)
        assert code(provider, text) == "allowance_unknown"

    def test_a_payer_that_rotates_meanwhile_gets_through(
        self, payee: Payee, provider: Provider, stranger: Identity
    ) -> None:
        flood(payee, provider, stranger, 0, 2 * AT_ONCE)
        domain = payee.domain
        old = domain[PAYER]
        new = domain.wallets.new(PAYER)
        domain.do(old, "rotate", {"name": PAYER, "cert": new.certificate_pem})
        for second in range(2):
            flood(payee, provider, stranger, 1_000 * second, 2 * AT_ONCE)
            payee.clock.forward(1)
        assert code(provider, documents.sign(payee.terms("GET /quote"), new)) is None

    def test_payers_that_are_known_do_not_notice(
        self, payee: Payee, provider: Provider, stranger: Identity
    ) -> None:
        """Nor does one that the process has not met, if the ledger has it."""
        flood(payee, provider, stranger, 0, 2 * AT_ONCE)
        assert code(provider, payee.sign(payee.terms("GET /quote"))) is None
        text = documents.sign(payee.terms("GET /quote", iss="other"), payee.domain["other"])
        assert code(provider, text) == "allowance_unknown"

    def test_whoever_forges_a_payer_has_nothing_asked(
        self, payee: Payee, ledger: Counting, provider: Provider
    ) -> None:
        """However old what is known of its wallet is: a certificate's key stays what it was."""
        payee.clock.forward(60)
        for _ in range(100):
            signed = payee.sign(payee.terms("GET /quote"))
            forged = f"{signed.rpartition('.')[0]}.{'A' * 86}"
            assert code(provider, forged) == "signature_invalid"
        assert not ledger.asked

    def test_a_certificate_that_is_made_up(
        self, payee: Payee, ledger: Counting, provider: Provider, stranger: Identity
    ) -> None:
        """In the name of a payer that is known."""
        for _ in range(500):
            text = documents.sign(payee.terms("GET /quote"), Named(PAYER, stranger))
            assert code(provider, text) == "certificate_unknown"
        assert ledger.asked["wallet"] <= AT_ONCE
        assert ledger.asked["wallets"] == 1


class TestPayers:
    """Who has a key can be told apart, so one payer's inventions are its own affair."""

    @pytest.mark.parametrize(
        ("kind", "wrong"),
        [("allowance", {}), ("hold", {"via": "hold", "lane": None, "seq": None})],
        ids=["allowance", "hold"],
    )
    def test_what_one_payer_makes_up_is_rationed(
        self, payee: Payee, ledger: Counting, provider: Provider, kind: str, wrong: dict[str, Any]
    ) -> None:
        for _ in range(5 * AT_ONCE):
            claims = {"via": new_id(), **wrong}
            assert code(provider, payee.sign(payee.terms("GET /quote", **claims))) == f"{kind}_unknown"
        assert 0 < ledger.asked[kind] <= AT_ONCE
        payee.clock.forward(1)
        before = ledger.asked[kind]
        for _ in range(AT_ONCE):
            claims = {"via": new_id(), **wrong}
            assert code(provider, payee.sign(payee.terms("GET /quote", **claims))) == f"{kind}_unknown"
        assert 0 < ledger.asked[kind] - before <= RATE

    def test_its_good_contracts_are_taken_all_the_same(self, payee: Payee, provider: Provider) -> None:
        """What is known needs no question; what is new has one within a tenth of a second, and then the
        payer is trusted as before."""
        for _ in range(2 * AT_ONCE):
            assert code(provider, payee.sign(payee.terms("GET /quote", via=new_id()))) == "allowance_unknown"
        assert code(provider, payee.sign(payee.terms("GET /quote"))) is None
        payee.clock.forward(0.1)
        for _ in range(2 * AT_ONCE):
            assert code(provider, payee.sign(payee.terms("GET /quote", via=payee.open_allowance(5)))) is None

    def test_another_payer_does_not_notice(self, payee: Payee, provider: Provider) -> None:
        for _ in range(2 * AT_ONCE):
            assert code(provider, payee.sign(payee.terms("GET /quote", via=new_id()))) == "allowance_unknown"
        domain = payee.domain
        domain.grant("other", 100)
        fresh = {"id": new_id(), "payee": "quotes", "tokens": 50, "exp": domain.now + 3_600}
        domain.do("other", "open", fresh)
        body = payee.terms("GET /quote", iss="other", via=fresh["id"])
        assert code(provider, documents.sign(body, domain["other"])) is None

    def test_a_forged_contract_does_not_use_up_its_payers_ration(
        self, payee: Payee, provider: Provider
    ) -> None:
        for _ in range(2 * AT_ONCE):
            signed = payee.sign(payee.terms("GET /quote", via=new_id()))
            assert code(provider, f"{signed.rpartition('.')[0]}.{'A' * 86}") == "signature_invalid"
        assert code(provider, payee.sign(payee.terms("GET /quote", via=payee.open_allowance(50)))) is None

    def test_a_contract_that_was_taken_gets_its_answer_whatever_is_known(
        self, payee: Payee, provider: Provider
    ) -> None:
        """Its payer has named so much that the ledger is asked for nothing, and its allowance was forgotten
        by this process: a retry is still found to be one."""
        text = payee.sign(payee.terms("GET /quote"))
        assert code(provider, text) is None
        again = payee.new_provider(payee.domain.ledger)
        for _ in range(2 * AT_ONCE):
            assert code(again, payee.sign(payee.terms("GET /quote", via=new_id()))) == "allowance_unknown"
        assert code(again, text) == "in_progress"

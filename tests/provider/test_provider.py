"""The provider without any framework: what becomes of a contract, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.payee import PAYEE, PAYER, Payee
from tokenmesh.errors import LedgerBusy
from tokenmesh.journal import StoredResponse
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger.base import Ledger
from tokenmesh.provider import Answered, Call, Provider, Request, Terms
from tokenmesh.provider.checks import Fault
from tokenmesh.provider.problems import CATALOGUE, Problem
from tokenmesh.steps import run
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract

TERMS = Terms(5)
RESPONSE = StoredResponse(200, [("X-Own", "yes")], b"quote", documents.digest(b"quote"))


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path)
    yield payee
    payee.close()


def looked_at(provider: Provider, text: str, terms: Terms = TERMS) -> Call:
    """Check and admit a contract for ``GET /quote``."""
    request = Request("GET", "/quote", "GET /quote", "/quote", (text.encode(),), lambda: b"")
    call = run(provider.check(request, terms))
    assert call is not None
    run(provider.admit(call))
    return call


def take(provider: Provider, text: str, terms: Terms = TERMS) -> Call:
    """Check, admit and claim a contract for ``GET /quote``."""
    call = looked_at(provider, text, terms)
    run(provider.claim(call))
    return call


def refused(provider: Provider, text: str) -> str:
    """The code of the problem that a contract gets."""
    with pytest.raises(Answered) as caught:
        take(provider, text)
    problem: Problem = caught.value.problem  # type: ignore[attr-defined]
    return problem.code


def contract(payee: Payee, **claims: Any) -> Contract:
    return payee.terms("GET /quote", **claims)


class TestCertificates:
    """Whose signature holds, while wallets come, rotate and are frozen."""

    def test_a_wallet_that_was_just_registered(self, payee: Payee) -> None:
        """It was unknown a moment ago, and is known now."""
        domain = payee.domain
        identity = domain.wallets.new("late")
        text = documents.sign(contract(payee, iss="late"), identity)
        assert refused(payee.provider, text) == "wallet_unknown"
        record = {"name": "late", "cert": identity.certificate_pem, "role": "service", "url": None}
        domain.do("governance", "register", record)
        assert refused(payee.provider, text) == "allowance_unknown"

    def test_rotation_leaves_contracts_in_flight_valid(self, payee: Payee) -> None:
        """The old certificate holds for what it signed until the overlap is over; the new one at once."""
        domain = payee.domain
        old = domain[PAYER]
        assert take(payee.provider, documents.sign(contract(payee), old))
        in_flight = documents.sign(contract(payee), old)
        new = domain.wallets.new(PAYER)
        domain.do(old, "rotate", {"name": PAYER, "cert": new.certificate_pem})
        assert take(payee.provider, documents.sign(contract(payee), new))
        assert take(payee.provider, in_flight)
        payee.clock.forward(601)
        assert refused(payee.provider, documents.sign(contract(payee), old)) == "certificate_ended"
        assert take(payee.provider, documents.sign(contract(payee), new))

    def test_a_revoked_certificate_pays_for_nothing_more(self, payee: Payee) -> None:
        """Within what policy allows for the news to travel; also what was signed before, and came later."""
        domain = payee.domain
        old = domain[PAYER]
        assert take(payee.provider, payee.sign(contract(payee)))
        before = documents.sign(contract(payee), old)
        new = domain.wallets.new(PAYER)
        domain.do(old, "rotate", {"name": PAYER, "cert": new.certificate_pem})
        domain.do("governance", "revoke", {"name": PAYER, "x5t": old.x5t})
        payee.clock.forward(5)
        assert refused(payee.provider, before) == "certificate_revoked"
        assert refused(payee.provider, documents.sign(contract(payee), old)) == "certificate_revoked"
        assert take(payee.provider, documents.sign(contract(payee), new))

    def test_a_payee_that_is_frozen_takes_nothing(self, payee: Payee) -> None:
        """It could not settle what it works for."""
        payee.domain.do("governance", "freeze", {"name": PAYEE})
        assert refused(payee.provider, payee.sign(contract(payee))) == "wallet_frozen"


class TestExpiry:
    """A contract that expires while its request is looked at."""

    @pytest.mark.parametrize("via", ["allowance", "hold"])
    def test_it_is_not_taken(self, payee: Payee, via: str) -> None:
        """Its body comes slowly, or the ledger answers late: it was good when it was checked. Its payer may
        count on it that nobody takes it after its expiry."""
        claims = {"jti": payee.hold(5), "via": "hold"} if via == "hold" else {}
        text = payee.sign(contract(payee, **claims))
        call = looked_at(payee.provider, text)
        payee.clock.forward(60)
        assert not payee.provider.claim_at_once(call)
        with pytest.raises(Answered) as caught:
            run(payee.provider.claim(call))
        assert caught.value.problem.code == "expired"  # type: ignore[attr-defined]
        assert payee.state(text) is None

    def test_one_that_was_taken_meanwhile_gets_its_answer(self, payee: Payee) -> None:
        """A copy of it came through: the slow one hears what became of that."""
        text = payee.sign(contract(payee))
        slow = looked_at(payee.provider, text)
        run(payee.provider.fulfil(take(payee.provider, text), RESPONSE))
        payee.clock.forward(60)
        with pytest.raises(Answered) as caught:
            run(payee.provider.claim(slow))
        assert caught.value.answer.body == b"quote"


class TestFunds:
    """What pays, until when."""

    @pytest.mark.parametrize("via", ["allowance", "hold"])
    def test_the_grace_is_that_of_the_day_the_tokens_were_set_aside(self, payee: Payee, via: str) -> None:
        """Governance raises the grace later: older funds do not get it, so nothing is taken on it."""
        claims = {"jti": payee.hold(5), "via": "hold"} if via == "hold" else {}
        text = payee.sign(contract(payee, **claims))
        policy = payee.domain.ledger.policy().result(30)
        payee.domain.do("governance", "set_policy", {"policy": {**policy, "grace_s": 100_000}})
        call = take(payee.provider, text)
        assert call.funds.settle_by < payee.clock() + 3_600 + 300


class TestEnds:
    """Fulfilled, void, and what is known of them afterwards."""

    def test_a_receipt_names_its_transaction_once_it_is_settled(self, payee: Payee) -> None:
        body = contract(payee)
        call = take(payee.provider, payee.sign(body))
        text = run(payee.provider.fulfil(call, RESPONSE))
        kept = run(payee.provider.receipt(PAYER, body.jti))
        assert (kept.status, kept.body.decode()) == (200, text)
        assert payee.receipt(text).tx is None
        journal, now = payee.journal, payee.clock()
        batch = journal.take_batch(10, now)
        assert batch is not None
        assert journal.finish_batch(batch.id, {}, "tx-1", now)
        settled = payee.receipt(run(payee.provider.receipt(PAYER, body.jti)).body.decode())
        assert settled == payee.receipt(text)._replace(tx="tx-1")

    def test_a_receipt_is_found_by_the_contract_id_alone_where_it_was_made(self, payee: Payee) -> None:
        """By whoever knows the id, for as long as this process remembers whose it is."""
        body = contract(payee)
        call = take(payee.provider, payee.sign(body))
        assert run(payee.provider.receipt(None, body.jti)).status == 409
        run(payee.provider.fulfil(call, RESPONSE))
        assert run(payee.provider.receipt(None, body.jti)).status == 200
        restarted = payee.new_provider(payee.domain.ledger)
        assert run(restarted.receipt(None, body.jti)).status == 404
        assert run(restarted.receipt(PAYER, body.jti)).status == 200

    def test_ids_are_remembered_up_to_a_limit(self, tmp_path: Path) -> None:
        payee = Payee(tmp_path, receipt_cache_max=2)
        bodies = [contract(payee) for _ in range(3)]
        for body in bodies:
            take(payee.provider, payee.sign(body))
        assert [run(payee.provider.receipt(None, body.jti)).status for body in bodies] == [404, 409, 409]
        payee.close()

    def test_a_killed_process_owes_nothing_and_is_owed_nothing(self, payee: Payee, tmp_path: Path) -> None:
        """Its contract is void for whoever asks next, with a receipt that is signed then."""
        body = contract(payee)
        other = SqliteJournal(tmp_path / "journal.db", clock=payee.clock, lease_s=1)
        take(payee.new_provider(payee.domain.ledger, other), payee.sign(body))
        assert refused(payee.provider, payee.sign(body)) == "in_progress"
        other.close()  # gives up its lease, as one that was killed loses it
        # Nobody has decided yet how it ends, so there is no receipt to be had.
        assert run(payee.provider.receipt(PAYER, body.jti)).status == 409
        with pytest.raises(Answered) as caught:
            take(payee.provider, payee.sign(body))
        problem = caught.value.problem  # type: ignore[attr-defined]
        assert problem.code == "contract_void"
        receipt = payee.receipt(problem.receipt)
        assert (receipt.out, receipt.tok, receipt.jti) == ("void", 0, body.jti)
        assert payee.used() == 0

    def test_the_same_job_signed_anew_is_the_same_contract(self, payee: Payee) -> None:
        """Another price, time, or number of the allowance, but the same id: one end."""
        body = contract(payee)
        run(payee.provider.fulfil(take(payee.provider, payee.sign(body)), RESPONSE))
        again = contract(payee, tok=9, exp=body.exp + 30)._replace(jti=body.jti)
        with pytest.raises(Answered) as caught:
            take(payee.provider, payee.sign(again))
        assert caught.value.answer.body == b"quote"
        assert payee.used() == 5

    def test_a_claim_whose_end_could_not_be_written_ends_with_the_next_attempt(self, payee: Payee) -> None:
        """The journal failed for a moment; the contract is not worked on for ever because of it."""
        journal = Flickering(payee.journal)
        provider = payee.new_provider(payee.domain.ledger, journal)
        body = contract(payee)
        call = take(provider, payee.sign(body))
        journal.failing = True
        assert run(provider.void(call, "the handler raised", RESPONSE)) is None
        assert refused(provider, payee.sign(body)) == "journal_unavailable"
        journal.failing = False
        assert refused(provider, payee.sign(body)) == "contract_void"
        assert payee.used() == 0

    def test_nor_for_ever_if_that_attempt_can_read_and_not_write(self, payee: Payee) -> None:
        """On a full disk a known contract is found all the time; that it ended must not be forgotten then."""
        journal = Flickering(payee.journal, "fulfil", "void")
        provider = payee.new_provider(payee.domain.ledger, journal)
        body = contract(payee)
        call = take(provider, payee.sign(body))
        journal.failing = True
        with pytest.raises(Answered):
            run(provider.fulfil(call, RESPONSE))
        for _ in range(2):
            assert refused(provider, payee.sign(body)) == "journal_unavailable"
        journal.failing = False
        assert refused(provider, payee.sign(body)) == "contract_void"
        assert payee.used() == 0

    def test_another_process_that_took_over_keeps_what_it_has(self, tmp_path: Path) -> None:
        """A lease that ran out while the handler worked: its response must not go out as fulfilled."""
        payee = Payee(tmp_path)
        body = contract(payee)
        call = take(payee.provider, payee.sign(body))
        journal = payee.journal
        assert journal.void(PAYER, body.jti, "taken over", None, None, payee.clock())
        with pytest.raises(Answered) as caught:
            run(payee.provider.fulfil(call, RESPONSE))
        assert caught.value.answer.status == 503
        payee.close()


class TestLedger:
    """The ledger is not always there."""

    def test_the_warm_path_does_not_need_it(self, payee: Payee) -> None:
        """For as long as its last answers may be believed, calls are taken; then 503."""
        ledger = Cut(payee.domain.ledger)
        provider = payee.new_provider(ledger)
        assert take(provider, payee.sign(contract(payee)))
        ledger.cut = True
        payee.clock.forward(3)
        assert take(provider, payee.sign(contract(payee)))
        payee.clock.forward(2)
        assert refused(provider, payee.sign(contract(payee))) == "ledger_busy"
        ledger.cut = False
        assert take(provider, payee.sign(contract(payee)))


def test_every_problem_has_a_status_and_says_what_to_do() -> None:
    for code, (status, title, action) in CATALOGUE.items():
        answer = Problem(code, "Because.").answer()
        assert answer.status == status
        assert title.endswith(".")
        assert action.endswith(".")
        assert ("Retry-After" in dict(answer.headers)) == (status in (409, 503))


class Flickering:
    """A journal that fails while ``failing``, in all that it does or in what is named."""

    def __init__(self, journal: Any, *names: str) -> None:
        self._journal = journal
        self._names = names
        self.failing = False

    def __getattr__(self, name: str) -> Any:
        from tokenmesh.errors import JournalError

        if self.failing and (not self._names or name in self._names):
            raise JournalError("the disk is full")
        return getattr(self._journal, name)


class Cut:
    """A ledger that is too busy while ``cut``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.domain = ledger.domain
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Any:
            if self.cut:
                raise LedgerBusy("too many wait")
            return getattr(self._ledger, name)(*args)

        return ask


class TestTheShortWay:
    """What is known to be good is not asked about again; nothing else profits from it."""

    def test_it_is_taken_and_ends_with_the_freshness_of_what_it_rests_on(self, payee: Payee) -> None:
        standing = payee.provider._standing
        take(payee.provider, payee.sign(contract(payee)))
        good = documents.parse_contract(payee.sign(contract(payee)))
        funds = standing.at_once(good)
        assert funds is not None
        assert funds == run(standing.funds(good))
        payee.clock.forward(1)
        later = documents.parse_contract(payee.sign(contract(payee)))
        assert standing.at_once(later) is None

    @pytest.mark.parametrize(
        "claims",
        [
            {"dom": "A" * 43},
            {"aud": "other"},
            {"iss": "other"},
            {"op": "GET /cheap"},
            {"via": "A" * 22},
            {"via": "hold", "lane": None, "seq": None},
            {"iat": 0},
            {"iat": 1_800_000_060, "exp": 1_800_000_090},
            {"iat": 1_799_999_900, "exp": 1_800_000_000},
            {"exp": 1_800_000_301},
            {"exp": 1_800_003_700, "iat": 1_800_000_000 + 3_500},
        ],
        ids=str,
    )
    def test_a_contract_that_differs_goes_the_long_way(self, payee: Payee, claims: dict[str, Any]) -> None:
        take(payee.provider, payee.sign(contract(payee)))
        odd = documents.sign(contract(payee)._replace(**claims), payee.domain[PAYER])
        assert payee.provider._standing.at_once(documents.parse_contract(odd)) is None

    def test_a_forged_signature_is_found_out_by_the_short_way(self, payee: Payee) -> None:
        """And verified once: it is the dearest part of a refusal."""
        take(payee.provider, payee.sign(contract(payee)))
        text = payee.sign(contract(payee))
        forged = text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBA")
        fault = payee.provider._standing.at_once(documents.parse_contract(forged))
        assert isinstance(fault, Fault)
        assert fault.code == "signature_invalid"
        assert refused(payee.provider, forged) == "signature_invalid"

    def test_what_is_known_is_bounded(self, tmp_path: Path) -> None:
        payee = Payee(tmp_path, wallet_cache_max=3)
        for _ in range(5):
            payee.allowance = payee.open_allowance(100)
            take(payee.provider, payee.sign(contract(payee)))
        assert len(payee.provider._standing._known) <= 3
        payee.close()

"""What every ledger must do with batches: results in order, each operation once, many callers at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger.suite_tools import PAYEE, PAYER, Suite, imposter, resigned, transfer

from support.ledgers import GOVERNANCE, Domain, now_of
from tokenmesh.errors import LedgerError, LedgerUnavailable
from tokenmesh.ledger.base import Balance, Result
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.limits import OPERATION_BYTES_MAX


class Results(Suite):
    """A part of :class:`~ledger.ledger_suite.LedgerSuite`."""

    def test_a_batch_gives_each_operation_its_own_outcome_in_order(self, domain: Domain) -> None:
        """Refused ones stand between those that are done, and hinder none."""
        texts = [
            domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10}),
            domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10**9}),
            "nonsense",
            domain.operation(PAYER, "transfer", {"to": "nobody", "tokens": 1}),
            domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 20}),
        ]
        results = domain.submit(*texts)
        codes = [result.outcome.code for result in results]
        assert codes == ["ok", "insufficient_funds", "not_an_operation", "unknown_wallet", "ok"]
        assert domain.balance(PAYER).spendable == 970
        assert domain.balance(PAYEE).credits == 30
        assert domain.submit() == []

    def test_results_name_a_transaction_that_holds_the_operation(self, domain: Domain) -> None:
        """Those that are recorded, done or refused; what is turned away without a record is in none."""
        texts = [
            domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10}),
            domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10**9}),
        ]
        for text, result in zip(texts, domain.submit(*texts), strict=True):
            transaction = now_of(domain.ledger.transaction(result.tx_id))
            assert transaction is not None
            assert transaction.time == result.time
            (recorded,) = (one for one in transaction.operations if one.document == text)
            assert recorded.outcome == result.outcome
            assert (recorded.issuer, recorded.act) == (PAYER, "transfer")
        (turned_away,) = domain.submit("nonsense")
        assert turned_away.tx_id == ""

    @pytest.mark.parametrize(
        ("code", "make"),
        [
            ("not_an_operation", lambda domain: ""),
            ("not_an_operation", lambda domain: "a.b.c"),
            ("not_an_operation", lambda domain: "\ud800" * 10),
            ("not_an_operation", lambda domain: domain.contract(PAYER, PAYEE)),
            ("too_large", lambda domain: "x" * (OPERATION_BYTES_MAX + 1)),
            ("wrong_domain", lambda domain: transfer(domain, dom="x" * 43)),
            ("bad_signature", resigned),
            ("unknown_signer", lambda domain: transfer(domain, by=domain.wallets.new("stranger"))),
            ("unknown_certificate", lambda domain: transfer(domain, by=imposter(domain))),
            ("expired", lambda domain: transfer(domain, iat=domain.now - 1_000)),
            ("not_yet_valid", lambda domain: transfer(domain, iat=domain.now + 1_000)),
            ("unknown_act", lambda domain: domain.operation(PAYER, "steal", {})),
            ("bad_argument", lambda domain: domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": -1})),
        ],
    )
    def test_a_document_that_does_not_hold_leaves_no_trace(
        self, domain: Domain, code: str, make: Callable[[Domain], str]
    ) -> None:
        before = now_of(domain.ledger.transactions(newest_first=True, limit=1))
        (result,) = domain.submit(make(domain))
        assert (result.outcome.ok, result.outcome.code, result.tx_id) == (False, code, "")
        assert now_of(domain.ledger.transactions(newest_first=True, limit=1)) == before
        assert domain.balance(PAYER).spendable == 1_000

    def test_the_same_operation_happens_once(self, domain: Domain) -> None:
        """Twice in a batch, then again: one transfer, and everyone is told the same, transaction included."""
        text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10})
        results = [*domain.submit(text, text), *domain.submit(text)]
        assert len(set(map(repr, results))) == 1
        assert results[0].outcome.ok
        assert results[0].tx_id
        assert domain.balance(PAYER).spendable == 990

    def test_a_refusal_is_remembered_too(self, domain: Domain) -> None:
        """Refused for lack of funds: the same document is refused still when the funds are there."""
        text = domain.operation(PAYEE, "transfer", {"to": PAYER, "tokens": 10})
        (refused,) = domain.submit(text)
        domain.grant(PAYEE, 100)
        assert domain.submit(text) == [refused]
        assert refused.outcome.code == "insufficient_funds"
        assert domain.balance(PAYEE).spendable == 100

    def test_an_id_stands_for_one_operation(self, domain: Domain) -> None:
        """Another operation under the same id is refused, nothing happens; another wallet may use the id."""
        domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 10}, jti="order-17")
        again = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 11}, jti="order-17")
        (result,) = domain.submit(again)
        assert (result.outcome.code, result.tx_id) == ("id_reused", "")
        assert domain.balance(PAYER).spendable == 990
        domain.do(GOVERNANCE, "grant", {"to": PAYEE, "tokens": 1}, jti="order-17")

    def test_a_hundred_copies_at_once_happen_once(self, domain: Domain) -> None:
        text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10})
        start = threading.Barrier(20)

        def submit() -> list[Result]:
            start.wait(30)
            futures = [domain.ledger.submit([text]) for _ in range(5)]
            return [result for future in futures for result in now_of(future)]

        with ThreadPoolExecutor(20) as pool:
            results = [
                result for part in [pool.submit(submit) for _ in range(20)] for result in part.result(60)
            ]
        assert len(results) == 100
        assert len(set(map(repr, results))) == 1
        assert domain.balance(PAYER).spendable == 990

    def test_concurrent_callers_get_their_own_results(self, domain: Domain) -> None:
        """Sixteen threads transfer at once: each is told of its own, and the sums are right."""
        callers, rounds = 16, 5
        start = threading.Barrier(callers)

        def call(caller: int) -> None:
            start.wait(30)
            for round_ in range(rounds):
                jti = f"caller-{caller}-{round_}"
                text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 1 + caller}, jti=jti)
                (result,) = now_of(domain.ledger.submit([text]))
                assert result.outcome.detail["credit"] == f"{PAYER}:{jti}"

        with ThreadPoolExecutor(callers) as pool:
            for future in [pool.submit(call, caller) for caller in range(callers)]:
                future.result(60)
        moved = rounds * sum(range(1, callers + 1))
        assert domain.balance(PAYER).spendable == 1_000 - moved
        assert domain.balance(PAYEE).credits == moved
        assert now_of(domain.ledger.supply()).conserved

    def test_concurrent_callers_cannot_overspend(self, domain: Domain) -> None:
        """Thirty-two holds of a hundred at once, of a thousand tokens: ten are placed."""
        texts = [
            domain.operation(
                PAYER, "hold", {"id": new_id(), "payee": PAYEE, "tokens": 100, "exp": domain.now + 60}
            )
            for _ in range(32)
        ]
        futures = [domain.ledger.submit([text]) for text in texts]
        codes = sorted(now_of(future)[0].outcome.code for future in futures)
        assert codes == ["insufficient_funds"] * 22 + ["ok"] * 10
        assert domain.balance(PAYER) == Balance(0, 0, 1_000, 0)

    def test_close_finishes_what_was_submitted(self, domain: Domain) -> None:
        """Then everything is refused with LedgerUnavailable; closing twice is fine."""
        text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10})
        future = domain.ledger.submit([text])
        domain.ledger.close()
        assert future.result(0)[0].outcome.ok
        domain.ledger.close()
        for late in (domain.ledger.submit([text]), domain.ledger.policy()):
            with pytest.raises(LedgerUnavailable, match="closed"):
                late.result(0)

    def test_one_submission_is_bounded(self, domain: Domain) -> None:
        """More operations than a batch takes are refused at once, with what the limit is; none is done."""
        text = domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": 10})
        with pytest.raises(LedgerError, match="at most"):
            domain.ledger.submit([text] * 200_000).result(0)
        assert domain.balance(PAYER).spendable == 1_000

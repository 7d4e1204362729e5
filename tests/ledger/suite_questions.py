"""What every ledger must say: balances, history in either direction, contracts by their ids."""

from __future__ import annotations

from ledger.suite_tools import (
    PAYEE,
    PAYER,
    THIRD,
    NewDomain,
    Suite,
    contracts,
    id_of,
    open_allowance,
    place_hold,
    settle,
)

from support.ledgers import GOVERNANCE, Domain, now_of
from tokenmesh.ledger.base import HISTORY_LIMIT_MAX, Balance


class Questions(Suite):
    """A part of :class:`~ledger.ledger_suite.LedgerSuite`."""

    def test_credits_are_listed_up_to_a_limit(self, domain: Domain) -> None:
        for tokens in range(1, 6):
            domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": tokens})
        assert len(now_of(domain.ledger.credits(PAYEE, 3))) == 3
        assert sum(credit.tokens for credit in now_of(domain.ledger.credits(PAYEE, 10))) == 15
        assert now_of(domain.ledger.credits("nobody", 10)) == []

    def test_a_name_that_begins_another_is_not_that_other(self, new_domain: NewDomain) -> None:
        """Balances are sums over keys that begin alike: ``shop`` must not count what ``shop-2`` has."""
        domain = new_domain({"shop": 10, "shop-2": 100, "shop2": 7})
        domain.do("shop-2", "transfer", {"to": "shop2", "tokens": 60})
        domain.do("shop-2", "hold", {"id": "h", "payee": "shop", "tokens": 5, "exp": domain.now + 60})
        assert domain.balance("shop") == Balance(10, 0, 0, 0)
        assert domain.balance("shop-2") == Balance(35, 0, 5, 0)
        assert domain.balance("shop2") == Balance(7, 60, 0, 0)

    def test_history_is_read_forwards_and_backwards(self, domain: Domain) -> None:
        """In pages, without a gap or an overlap, from either end; times never go back."""
        for tokens in range(1, 8):
            domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": tokens})
        everything = now_of(domain.ledger.transactions(limit=HISTORY_LIMIT_MAX))
        numbers = [one.number for one in everything]
        assert numbers == sorted(set(numbers))
        assert [one.time for one in everything] == sorted(one.time for one in everything)
        forwards, after = [], 0
        while page := now_of(domain.ledger.transactions(after=after, limit=3)):
            assert len(page) <= 3
            forwards += page
            after = page[-1].number
        assert forwards == everything
        backwards, after = [], 0
        while page := now_of(domain.ledger.transactions(after=after, limit=4, newest_first=True)):
            backwards += page
            after = page[-1].number
        assert backwards == everything[::-1]

    def test_history_of_a_wallet_has_all_that_touches_it(self, domain: Domain) -> None:
        """Whether it asked, was paid, had tokens set aside for it, or was settled with; and nothing else."""
        domain.open_wallet(THIRD, 100)
        domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 1})
        hold = place_hold(domain)
        allowance = open_allowance(domain)
        settle(domain, *((text, 5) for text in contracts(domain, allowance, 2)))
        domain.do(PAYEE, "void", {"holds": [[PAYER, hold]]})
        domain.do(GOVERNANCE, "freeze", {"name": THIRD})

        def acts(name: str) -> list[str]:
            found = now_of(domain.ledger.transactions(wallet=name))
            return [recorded.act for transaction in found for recorded in transaction.operations]

        assert acts(PAYER) == ["register", "grant", "sweep", "transfer", "hold", "open", "settle", "void"]
        assert acts(PAYEE) == ["register", "transfer", "hold", "open", "settle", "void"]
        assert acts(THIRD) == ["register", "grant", "sweep", "freeze"]
        newest = now_of(domain.ledger.transactions(wallet=THIRD, newest_first=True, limit=1))
        assert [one.act for one in newest[0].operations] == ["freeze"]
        assert acts("nobody") == []

    def test_a_long_document_is_listed_without_and_given_whole(self, domain: Domain) -> None:
        """Listings stay small: a settlement's document is left out there, and comes with the transaction."""
        allowance = open_allowance(domain)
        items = [[text, 5] for text in contracts(domain, allowance, 40)]
        text = domain.operation(PAYEE, "settle", {"items": items})
        (result,) = domain.submit(text)
        (listed,) = now_of(domain.ledger.transactions(newest_first=True, limit=1))
        (operation,) = listed.operations
        assert (operation.document, operation.bytes, operation.act) == (None, len(text), "settle")
        whole = now_of(domain.ledger.transaction(result.tx_id))
        assert whole is not None
        assert whole.operations[0].document == text
        assert now_of(domain.ledger.transaction("nothing")) is None

    def test_a_contract_is_found_by_its_id(self, domain: Domain) -> None:
        """Every appearance, oldest first: refused when charged too much, settled, refused again."""
        allowance = open_allowance(domain)
        one, other = contracts(domain, allowance, 2)
        settle(domain, (one, 6), (other, 5))
        settle(domain, (one, 4))
        settle(domain, (one, 4))
        found = now_of(domain.ledger.contract(id_of(one)))
        assert [(record.code, record.charged) for record in found] == [
            ("charged_too_much", 6),
            ("ok", 4),
            ("already_settled", 4),
        ]
        for record in found:
            assert (record.payer, record.payee, record.op) == (PAYER, PAYEE, "GET /quote/{symbol}")
            assert record.contract == one
            transaction = now_of(domain.ledger.transaction(record.tx_id))
            assert transaction is not None
            assert transaction.time == record.time
        assert now_of(domain.ledger.contract("nothing")) == []

    def test_a_contract_id_that_two_payers_use_is_told_apart(self, domain: Domain) -> None:
        """Another payer's contract with the same id, refused in the same settlement, changes nothing."""
        domain.open_wallet(THIRD, 100)
        allowance = open_allowance(domain)
        good = domain.contract(PAYER, PAYEE, via=allowance, lane="lane", seq=0, jti="order-17")
        copy = domain.contract(THIRD, PAYEE, via=allowance, lane="lane", seq=1, jti="order-17")
        settled = settle(domain, (copy, 5), (good, 5))
        assert settled["settled"] == 1
        found = now_of(domain.ledger.contract("order-17"))
        assert {record.payer: record.code for record in found} == {PAYER: "ok", THIRD: "wrong_payer"}

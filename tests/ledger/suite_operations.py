"""What every ledger must do with operations: each does what it says, and every token is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ledger.suite_tools import (
    LIFE_S,
    PAYEE,
    PAYER,
    THIRD,
    Suite,
    contracts,
    open_allowance,
    place_hold,
    settle,
)

from support.ledgers import GOVERNANCE, SUPPLY, Domain, now_of
from tokenmesh.ledger.base import Balance
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.limits import RECORD_KEEP_S
from tokenmesh_chaincode.rules import default_policy


class Operations(Suite):
    """A part of :class:`~ledger.ledger_suite.LedgerSuite`."""

    def test_a_new_ledger_has_its_supply_and_its_wallets(self, domain: Domain) -> None:
        """What the fixture granted is there, and every token is accounted for."""
        assert domain.balance(PAYER) == Balance(1_000, 0, 0, 0)
        assert domain.balance(PAYEE) == Balance(0, 0, 0, 0)
        assert domain.balance(GOVERNANCE) == Balance(SUPPLY - 1_000, 0, 0, 0)
        assert now_of(domain.ledger.supply()) == (SUPPLY, 0, SUPPLY)

    def test_tokens_are_minted_granted_transferred_swept_and_burned(self, domain: Domain) -> None:
        """Each moves what it says, and the supply knows what was minted and burned."""
        domain.do(GOVERNANCE, "mint", {"tokens": 50})
        domain.do(GOVERNANCE, "grant", {"to": PAYEE, "tokens": 30})
        domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 100})
        assert domain.balance(PAYEE) == Balance(0, 130, 0, 0)
        found = now_of(domain.ledger.credits(PAYEE, 10))
        assert sorted(credit.tokens for credit in found) == [30, 100]
        swept = domain.do(PAYEE, "sweep", {"credits": [credit.id for credit in found]})
        assert (swept["swept"], swept["tokens"]) == (2, 130)
        domain.do(PAYEE, "burn", {"tokens": 20})
        assert domain.balance(PAYEE) == Balance(110, 0, 0, 0)
        supply = now_of(domain.ledger.supply())
        assert supply == (SUPPLY + 50, 20, SUPPLY + 30)
        assert supply.conserved

    def test_a_wallet_is_registered_updated_and_rotated(self, domain: Domain) -> None:
        """Its record says so; both certificates are good for a while, the new one stands last."""
        old = domain.open_wallet(THIRD, url="http://127.0.0.1:1")
        domain.do(THIRD, "update", {"name": THIRD, "url": "http://127.0.0.1:2"})
        new = domain.wallets.new(THIRD)
        domain.do(old, "rotate", {"name": THIRD, "cert": new.certificate_pem})
        domain.do(new, "update", {"name": THIRD, "url": "http://127.0.0.1:3"})
        record = now_of(domain.ledger.wallet(THIRD))
        assert record is not None
        assert (record.name, record.role, record.url, record.frozen_at) == (
            THIRD,
            "service",
            "http://127.0.0.1:3",
            None,
        )
        assert [one.x5t for one in record.certificates] == [old.x5t, new.x5t]
        assert record.certificates[1].pem == new.certificate_pem
        assert record.certificates[0].until < record.certificates[1].until
        assert now_of(domain.ledger.wallet("nobody")) is None
        assert [one.name for one in now_of(domain.ledger.wallets())] == [GOVERNANCE, PAYER, PAYEE, THIRD]

    def test_a_hold_is_placed_and_captured(self, domain: Domain) -> None:
        """Set aside first; after the settlement the payee has what it charged, the payer the rest."""
        hold = place_hold(domain, 20)
        assert domain.balance(PAYER) == Balance(980, 0, 20, 0)
        record = now_of(domain.ledger.hold(PAYER, hold))
        assert record is not None
        assert (record.payee, record.tokens, record.state, record.charged) == (PAYEE, 20, "open", 0)
        grace_s = now_of(domain.ledger.policy())["grace_s"]
        assert (record.exp - record.opened_at, record.grace_s) == (LIFE_S, grace_s)
        settled = settle(domain, (domain.contract(PAYER, PAYEE, jti=hold, tok=20), 13))
        assert (settled["settled"], settled["tokens"], settled["refused"]) == (1, 13, {})
        assert domain.balance(PAYER) == Balance(980, 7, 0, 0)
        assert domain.balance(PAYEE) == Balance(0, 13, 0, 0)
        record = now_of(domain.ledger.hold(PAYER, hold))
        assert record is not None
        assert (record.state, record.charged) == ("captured", 13)
        assert now_of(domain.ledger.hold(PAYEE, hold)) is None

    def test_many_holds_are_placed_at_once(self, domain: Domain) -> None:
        """Each by itself; then they are captured, or given back, like any other."""
        ids = [new_id() for _ in range(4)]
        tokens = dict(zip(ids, (20, 2_000, 30, 5), strict=True))
        items = [[hold, PAYEE, tokens[hold], domain.now + LIFE_S] for hold in ids]
        placed = domain.do(PAYER, "holds", {"holds": items})
        assert placed == {"placed": 3, "tokens": 55, "refused": {ids[1]: "insufficient_funds"}}
        assert domain.balance(PAYER) == Balance(945, 0, 55, 0)
        assert now_of(domain.ledger.hold(PAYER, ids[1])) is None
        settled = settle(domain, (domain.contract(PAYER, PAYEE, jti=ids[0], tok=20), 13))
        assert settled["tokens"] == 13
        domain.do(PAYEE, "void", {"holds": [[PAYER, ids[2]]]})
        assert domain.balance(PAYER) == Balance(945, 37, 5, 0)

    def test_a_hold_is_given_back(self, domain: Domain) -> None:
        """Void: the payee lets go, and all of it returns to the payer."""
        hold = place_hold(domain, 20)
        voided = domain.do(PAYEE, "void", {"holds": [[PAYER, hold]]})
        assert (voided["voided"], voided["tokens"]) == (1, 20)
        assert domain.balance(PAYER) == Balance(980, 20, 0, 0)
        record = now_of(domain.ledger.hold(PAYER, hold))
        assert record is not None
        assert record.state == "void"

    def test_an_allowance_pays_for_many_contracts(self, domain: Domain) -> None:
        """Open, settle in parts, refill, settle, close: what is left and which numbers are used is right."""
        allowance = open_allowance(domain, 100)
        assert domain.balance(PAYER) == Balance(900, 0, 0, 100)
        settle(domain, *((text, 5) for text in contracts(domain, allowance, 10)))
        settle(domain, *((text, 1) for text in contracts(domain, allowance, 2, first=15)))
        domain.do(PAYER, "refill", {"id": allowance, "tokens": 50})
        record = now_of(domain.ledger.allowance(allowance))
        assert record is not None
        assert (record.payer, record.payee, record.tokens, record.spent, record.left) == (
            PAYER,
            PAYEE,
            150,
            52,
            98,
        )
        assert (record.exp - record.opened_at, record.grace_s) == (
            LIFE_S,
            now_of(domain.ledger.policy())["grace_s"],
        )
        assert {lane: [list(each) for each in ranges] for lane, ranges in record.lanes.items()} == {
            "lane": [[0, 9], [15, 16]]
        }
        assert domain.balance(PAYER) == Balance(850, 0, 0, 98)
        assert domain.balance(PAYEE) == Balance(0, 52, 0, 0)
        domain.do(PAYER, "close", {"id": allowance})
        closed = now_of(domain.ledger.allowance(allowance))
        assert closed is not None
        assert closed.closed_at is not None
        assert not closed.ended
        assert now_of(domain.ledger.allowance("nothing")) is None

    def test_open_allowances_are_found_by_payer_and_payee(self, domain: Domain) -> None:
        """Only the payer's own, only those for the payee that is asked for."""
        domain.open_wallet(THIRD, 100)
        to_payee = {open_allowance(domain, 10), open_allowance(domain, 20)}
        to_third = open_allowance(domain, 30, payee=THIRD)
        others = open_allowance(domain, 40, payer=THIRD)

        def ids(payer: str, payee: str | None = None) -> set[str]:
            return {one.id for one in now_of(domain.ledger.allowances(payer, payee))}

        assert ids(PAYER, PAYEE) == to_payee
        assert ids(PAYER) == to_payee | {to_third}
        assert ids(THIRD) == {others}
        assert ids(PAYEE) == set()

    def test_a_settlement_judges_each_contract_by_itself(self, domain: Domain) -> None:
        """One that was settled before, one signed by another, one that is none: the good one is paid."""
        allowance = open_allowance(domain)
        first, second = contracts(domain, allowance, 2)
        settle(domain, (first, 5))
        forged = domain.contract(domain[PAYEE], PAYEE, via=allowance, lane="lane", seq=9)
        settled = settle(domain, (first, 5), (forged, 5), ("nonsense", 5), (second, 4))
        assert (settled["settled"], settled["tokens"]) == (1, 4)
        assert len(settled["refused"]) == 3
        assert domain.balance(PAYEE).credits == 9

    def test_a_frozen_wallet_spends_nothing_until_it_is_unfrozen(self, domain: Domain) -> None:
        domain.do(GOVERNANCE, "freeze", {"name": PAYER})
        record = now_of(domain.ledger.wallet(PAYER))
        assert record is not None
        assert record.frozen_at is not None
        assert domain.ask(PAYER, "transfer", {"to": PAYEE, "tokens": 1}).code == "frozen"
        domain.do(GOVERNANCE, "unfreeze", {"name": PAYER})
        domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 1})

    def test_policy_is_set_and_read(self, domain: Domain) -> None:
        """A new policy counts at once and has the next version."""
        before = now_of(domain.ledger.policy())
        domain.do(GOVERNANCE, "set_policy", {"policy": {**default_policy(), "tokens_max": 7}})
        after = now_of(domain.ledger.policy())
        assert (after["tokens_max"], after["version"]) == (7, before["version"] + 1)
        terms = {"id": new_id(), "payee": PAYEE, "tokens": 8, "exp": domain.now + 60}
        assert domain.ask(PAYER, "hold", terms).code == "too_many_tokens"

    def test_what_needs_several_governors_waits_for_them(self, domain: Domain) -> None:
        """With a threshold of two one governor proposes, and the other's approval carries it out."""
        second = domain.wallets.new("governance-2", "governor")
        record = {"name": "governance-2", "cert": second.certificate_pem, "role": "governor"}
        domain.do(GOVERNANCE, "register", record)
        domain.do(GOVERNANCE, "set_policy", {"policy": {**default_policy(), "threshold": 2}})
        assert domain.ask(GOVERNANCE, "mint", {"tokens": 10}).code == "needs_approval"
        proposed = domain.do(GOVERNANCE, "propose", {"act": "mint", "arg": {"tokens": 10}})
        assert not proposed["done"]
        assert now_of(domain.ledger.supply()).minted == SUPPLY
        (waiting,) = now_of(domain.ledger.proposals(domain.now))
        assert waiting[:5] == (proposed["proposal"], "mint", {"tokens": 10}, GOVERNANCE, (GOVERNANCE,))
        assert now_of(domain.ledger.proposals(waiting.exp)) == []
        assert domain.do("governance-2", "approve", {"proposal": proposed["proposal"]})["done"]
        assert now_of(domain.ledger.proposals(domain.now)) == []
        supply = now_of(domain.ledger.supply())
        assert supply.minted == SUPPLY + 10
        assert supply.conserved

    def test_what_nobody_claimed_comes_back_and_is_forgotten(
        self, domain: Domain, forward: Callable[[float], None]
    ) -> None:
        """After expiry and grace, by anyone's asking; later the records go too, and no token with them."""
        grace_s = now_of(domain.ledger.policy())["grace_s"]
        hold, allowance = place_hold(domain, 20), open_allowance(domain, 100)
        settle(domain, *((text, 5) for text in contracts(domain, allowance, 3)))
        nothing: dict[str, list[Any]] = {"holds": [], "allowances": []}
        forward(LIFE_S + grace_s - 1)
        assert now_of(domain.ledger.expirable(domain.now, 10)) == nothing
        forward(1)
        due = now_of(domain.ledger.expirable(domain.now, 10))
        assert due == {"holds": [[PAYER, hold]], "allowances": [allowance]}
        assert now_of(domain.ledger.expirable(domain.now, 10, PAYER)) == due
        assert now_of(domain.ledger.expirable(domain.now, 10, PAYEE)) == nothing
        expired = domain.do(PAYEE, "expire", due)
        assert (expired["holds"], expired["allowances"], expired["tokens"]) == (1, 1, 105)
        assert domain.balance(PAYER) == Balance(880, 105, 0, 0)
        assert now_of(domain.ledger.expirable(domain.now, 10)) == nothing
        assert now_of(domain.ledger.allowances(PAYER)) == []
        forward(RECORD_KEEP_S + 1)
        old = now_of(domain.ledger.forgettable(domain.now, 100))
        assert old["holds"] == [[PAYER, hold]]
        assert old["allowances"] == [allowance]
        assert len(old["operations"]) >= 4
        assert domain.do(PAYEE, "forget", old)["kept"] == 0
        assert now_of(domain.ledger.hold(PAYER, hold)) is None
        assert now_of(domain.ledger.allowance(allowance)) is None
        assert now_of(domain.ledger.forgettable(domain.now, 100))["holds"] == []
        assert now_of(domain.ledger.supply()).conserved

    def test_listings_of_what_is_due_are_bounded(
        self, domain: Domain, forward: Callable[[float], None]
    ) -> None:
        """``limit`` counts holds and allowances together; asking again after doing so gives the others."""
        for _ in range(3):
            place_hold(domain)
            open_allowance(domain, 5)
        forward(LIFE_S + 10_000)
        seen = 0
        while True:
            due = now_of(domain.ledger.expirable(domain.now, 4))
            count = len(due["holds"]) + len(due["allowances"])
            assert count <= 4
            if not count:
                break
            domain.do(PAYER, "expire", due)
            seen += count
        assert seen == 6
        forward(RECORD_KEEP_S + 10_000)
        old = now_of(domain.ledger.forgettable(domain.now, 5))
        assert sum(map(len, old.values())) == 5

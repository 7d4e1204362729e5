"""What every ledger must do, whatever it is: a test class to be inherited.

A test module for a ledger has a class that inherits :class:`LedgerSuite` and gives the fixture
``new_domain``: a callable ``(tokens, policy) -> Domain`` that makes a fresh ledger with ``governance`` and
those wallets. Where the ledger's clock cannot be held (``domain.clock`` is no ``Clock``), the tests that
need time to pass are skipped. Nothing else may be skipped or overridden.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.ledgers import GOVERNANCE, SUPPLY, Domain, now_of
from support.wallets import Clock
from tokenmesh.errors import LedgerError, LedgerUnavailable
from tokenmesh.ledger.base import HISTORY_LIMIT_MAX, Balance, Result
from tokenmesh_chaincode.documents import Operation, new_id, parse_contract, sign
from tokenmesh_chaincode.limits import OPERATION_BYTES_MAX, RECORD_KEEP_S
from tokenmesh_chaincode.rules import default_policy

PAYER, PAYEE, THIRD = "service-a", "service-b", "service-c"
NewDomain = Callable[..., Domain]
LIFE_S = 600


def id_of(text: str) -> str:
    return parse_contract(text).body.jti


def open_allowance(domain: Domain, tokens: int = 500, *, payer: str = PAYER, payee: str = PAYEE) -> str:
    allowance = new_id()
    terms = {"id": allowance, "payee": payee, "tokens": tokens, "exp": domain.now + LIFE_S}
    domain.do(payer, "open", terms)
    return allowance


def place_hold(domain: Domain, tokens: int = 5, *, payer: str = PAYER, payee: str = PAYEE) -> str:
    hold = new_id()
    domain.do(payer, "hold", {"id": hold, "payee": payee, "tokens": tokens, "exp": domain.now + LIFE_S})
    return hold


def contracts(domain: Domain, allowance: str, count: int, *, first: int = 0, tok: int = 5) -> list[str]:
    return [
        domain.contract(PAYER, PAYEE, via=allowance, lane="lane", seq=seq, tok=tok)
        for seq in range(first, first + count)
    ]


def settle(domain: Domain, *items: tuple[str, int], by: str = PAYEE) -> dict[str, Any]:
    return domain.do(by, "settle", {"items": [list(item) for item in items]})


def _transfer(domain: Domain, by: Any = PAYER, **claims: Any) -> str:
    return domain.operation(by, "transfer", {"to": PAYEE, "tokens": 1}, **claims)


def _imposter(domain: Domain) -> Any:
    """Somebody with a certificate for the payer's name, of the right authority, but not registered."""
    return domain.wallets.authority.new_identity(PAYER)


def _resigned(domain: Domain) -> str:
    """The payer's operation with another amount, under the old signature."""
    honest = _transfer(domain)
    signer = domain[PAYER]
    arg: Mapping[str, Any] = {"to": PAYEE, "tokens": 999}
    now = domain.now
    other = sign(
        Operation(domain.ledger.domain, signer.name, new_id(), now, now + 60, "transfer", dict(arg)), signer
    )
    return f"{other.rpartition('.')[0]}.{honest.rpartition('.')[2]}"


class LedgerSuite:
    """To be inherited; see the module."""

    @pytest.fixture
    def new_domain(self) -> NewDomain:
        """``(tokens, policy) -> Domain``: a new ledger with these wallets and what differs in its policy."""
        raise NotImplementedError("a class that inherits LedgerSuite gives the fixture new_domain")

    @pytest.fixture
    def domain(self, new_domain: NewDomain) -> Domain:
        return new_domain({PAYER: 1_000, PAYEE: 0})

    @pytest.fixture
    def forward(self, domain: Domain) -> Callable[[float], None]:
        if not isinstance(domain.clock, Clock):
            pytest.skip("this ledger's clock cannot be held")
        return domain.clock.forward

    # --- operations ---------------------------------------------------------------------------------

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

    # --- batches and results ------------------------------------------------------------------------

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
            ("wrong_domain", lambda domain: _transfer(domain, dom="x" * 43)),
            ("bad_signature", _resigned),
            ("unknown_signer", lambda domain: _transfer(domain, by=domain.wallets.new("stranger"))),
            ("unknown_certificate", lambda domain: _transfer(domain, by=_imposter(domain))),
            ("expired", lambda domain: _transfer(domain, iat=domain.now - 1_000)),
            ("not_yet_valid", lambda domain: _transfer(domain, iat=domain.now + 1_000)),
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

    # --- idempotency --------------------------------------------------------------------------------

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

    # --- concurrency --------------------------------------------------------------------------------

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

    # --- queries and history ------------------------------------------------------------------------

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

    # --- the end ------------------------------------------------------------------------------------

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

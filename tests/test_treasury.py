"""The treasury on a real ledger and a held clock: tokens are set aside before they are needed, and once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.homes import until
from support.market import PAYEE, PAYER, Market
from support.wallets import Clock
from tokenmesh.errors import (
    InsufficientFunds,
    LedgerOutcomeUnknown,
    LedgerUnavailable,
    NotFunded,
    NotFundedYet,
)
from tokenmesh.ledger.base import Ledger
from tokenmesh.steps import run
from tokenmesh.treasury import Ticket, Treasury, allowances
from tokenmesh.treasury import treasury as treasury_module
from tokenmesh.treasury.operations import spawn
from tokenmesh_chaincode.documents import parse_operation


class Watched:
    """The real ledger, with a look at what is submitted, and trouble on request.

    ``trouble`` gets each submission and may return an error to answer with; with ``after`` the ledger has
    done what was asked all the same.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.domain = ledger.domain
        self.documents: list[str] = []
        self.trouble: Callable[[str], Exception | None] = lambda document: None
        self.after = False
        self._held: list[tuple[Future[Any], Future[Any]]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)

    @property
    def acts(self) -> list[str]:
        return [parse_operation(document).body.act for document in self.documents]

    def silence(self) -> None:
        """From now on do what is asked, but keep the answers."""
        self._held = []

    def release(self) -> None:
        """Give the answers that were kept, and all later ones at once."""
        held, self._held = self._held or [], None
        for done, answer in held:
            answer.set_result(done.result(30))

    def submit(self, operations: Sequence[str]) -> Future[Any]:
        self.documents.extend(operations)
        error = self.trouble(operations[0])
        if error is None and self._held is None:
            return self.ledger.submit(operations)
        answer: Future[Any] = Future()
        if error is None and self._held is not None:
            self._held.append((self.ledger.submit(operations), answer))
        elif self.after:
            self.ledger.submit(operations).add_done_callback(lambda _: answer.set_exception(error))
        else:
            answer.set_exception(error)
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    market = Market(tmp_path, {PAYER: 10_000, PAYEE: 0, "other": 0}, clock=clock)
    yield market
    market.close()


@pytest.fixture
def ledger(market: Market) -> Watched:
    return Watched(market.domain.ledger)


@pytest.fixture
def treasury(market: Market, ledger: Watched) -> Treasury:
    return new(market, ledger)


def new(market: Market, ledger: Any, **settings: Any) -> Treasury:
    """A treasury of a process of its own. Its allowances are for 100 calls, and are swept in rarely."""
    settings = {"allowance_calls": 100, "sweep_interval_s": 3_600, **settings}
    return market.payer(ledger=ledger, **settings).treasury


def take(treasury: Treasury, tokens: int = 5, payee: str = PAYEE) -> Ticket:
    return run(treasury.allowance_for(payee, tokens))


def landed(treasury: Treasury, payee: str = PAYEE) -> None:
    """Wait until what is under way in the background is done."""
    flight = treasury._accounts[payee].flight
    if flight is not None:
        flight.result(30)


# Opening and refilling


def test_the_first_call_opens_an_allowance_for_many(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """A hundred calls' worth, as set; the next calls ask the ledger nothing."""
    tickets = [take(treasury) for _ in range(50)]
    assert ledger.acts == ["open"]
    assert market.domain.balance(PAYER).allowed == 500
    assert len({(ticket.via, ticket.lane, ticket.seq) for ticket in tickets}) == 50
    assert [ticket.seq for ticket in tickets] == list(range(50))


def test_it_is_refilled_in_the_background_before_it_runs_dry(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """At half of it, while calls go on without waiting."""
    for _ in range(51):
        treasury.charged(take(treasury), 5, None)
    ledger.silence()
    taken = take(treasury)
    for _ in range(47):
        take(treasury)  # on what is left, while the refill is on its way
    wait_for(lambda: ledger.acts == ["open", "refill"])
    ledger.release()
    landed(treasury)
    for _ in range(100):
        assert take(treasury).via == taken.via


def test_a_busy_allowance_grows(treasury: Treasury, market: Market, clock: Clock) -> None:
    """Refilled again within two seconds: twice as much at a time; calm makes it small again."""
    market.domain.grant(PAYER, 990_000)
    amounts = []
    for pause in (0, 0, 0, 120, 120, 0):
        before = market.domain.balance(PAYER).spendable
        while market.domain.balance(PAYER).spendable == before:
            treasury.charged(take(treasury), 5, None)
            landed(treasury)
        amounts.append(before - market.domain.balance(PAYER).spendable)
        clock.forward(pause)
    assert amounts == [500, 1_000, 2_000, 4_000, 2_000, 1_000]


def test_an_allowance_leaves_room_for_other_payees(treasury: Treasury, market: Market) -> None:
    """At most a quarter of what is spendable: no payee gets all that a small wallet has."""
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 9_800})
    take(treasury)
    assert market.domain.balance(PAYER).allowed == 50
    take(treasury, payee="other")
    assert market.domain.balance(PAYER)[:1] == (200 - 50 - 37,)


def test_it_is_followed_by_another_before_it_expires(
    treasury: Treasury, market: Market, ledger: Watched, clock: Clock
) -> None:
    """A contract must end within its allowance, so the next one is opened while the old one still serves."""
    first = take(treasury)
    clock.forward(3_600 - 85)
    assert take(treasury).via == first.via
    landed(treasury)
    assert ledger.acts == ["open", "open"]
    clock.forward(30)
    second = take(treasury)
    assert second.via != first.via
    assert second.exp > clock() + 60
    assert ledger.acts == ["open", "open"]


def test_a_short_lived_allowance_has_shorter_contracts(market: Market, ledger: Watched, clock: Clock) -> None:
    """Policy may allow less than a contract's usual life; calls still go."""
    treasury = new(market, ledger, allowance_ttl_s=20)
    for _ in range(10):
        ticket = take(treasury)
        landed(treasury)
        assert ticket.exp >= clock() + 10
        clock.forward(4)


def test_tokens_too_many_for_one_allowance_go_into_the_next(market: Market, ledger: Watched) -> None:
    """The bound on one allowance is kept; calls go on with another."""
    treasury = new(market, ledger, allowance_tokens_max=600)
    vias = set()
    for _ in range(300):
        ticket = take(treasury)
        landed(treasury)
        vias.add(ticket.via)
        treasury.charged(ticket, 5, None)
    tokens = {}
    for document in ledger.documents:
        arg = parse_operation(document).body.arg
        tokens[arg["id"]] = tokens.get(arg["id"], 0) + arg["tokens"]
    assert len(vias) > 2
    assert max(tokens.values()) <= 600


# Restarts and other processes


def test_open_allowances_are_taken_up_in_a_lane_of_their_own(market: Market, ledger: Watched) -> None:
    """The same service started anew opens nothing, and numbers where nobody did before."""
    first = take(new(market, ledger))
    second = take(new(market, ledger))
    assert ledger.acts == ["open"]
    assert second.via == first.via
    assert second.lane != first.lane


def test_another_process_may_be_faster(market: Market, ledger: Watched) -> None:
    """It spent what this one saw spendable: what it left will do."""
    treasury = new(market, ledger)

    def spend(document: str) -> None:
        if ledger.acts == ["open"]:
            faster = market.domain.operation(PAYER, "transfer", {"to": "other", "tokens": 9_980})
            market.domain.ledger.submit([faster])

    ledger.trouble = spend
    ticket = take(treasury)
    assert ticket.tokens == 5
    assert market.domain.balance(PAYER).allowed == 20


# Too few tokens


def test_too_few_tokens_are_not_asked_for_on_the_ledger(market: Market, ledger: Watched) -> None:
    """A wallet that is dry is told so by a look, not by an operation that stays in history for ever."""
    treasury = new(market, ledger)
    with pytest.raises(InsufficientFunds, match="10001 tokens are needed and 10000"):
        take(treasury, 10_001)
    assert ledger.acts == []


def test_credits_are_swept_in_when_they_are_needed(market: Market, ledger: Watched) -> None:
    """Earnings and refunds wait as credits: they pay for calls as well."""
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 9_999})
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 9})
    assert take(new(market, ledger), 8).tokens == 8
    assert ledger.acts == ["sweep", "open"]


def test_what_has_expired_is_taken_back_when_it_is_needed(
    market: Market, ledger: Watched, clock: Clock
) -> None:
    """Tokens set aside for other payees return after expiry and grace, without anyone's command."""
    take(new(market, ledger, allowance_calls=10_000), payee="other")
    clock.forward(3_600 + 300)
    dry = new(market, ledger)
    assert take(dry, 9_000).tokens == 9_000
    assert ledger.acts[1:] == ["expire", "sweep", "open"]


def test_a_top_up_helps_at_once(market: Market, ledger: Watched) -> None:
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 10_000})
    treasury = new(market, ledger)
    with pytest.raises(InsufficientFunds):
        take(treasury)
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 50})
    assert take(treasury).tokens == 5


def test_a_failed_refill_in_the_background_waits_a_little(
    market: Market, ledger: Watched, clock: Clock
) -> None:
    """A dry wallet is not looked at for every call, as long as the calls have what they need."""
    treasury = new(market, ledger)
    take(treasury)
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 9_500})
    looks: list[str] = []
    balance = ledger.ledger.balance
    ledger.balance = lambda name: (looks.append(name), balance(name))[1]  # type: ignore[attr-defined, func-returns-value]

    def calls(number: int) -> int:
        for _ in range(number):
            take(treasury)
            landed(treasury)
        return len(looks)

    looked = calls(60)
    assert looked > 0
    assert calls(30) == looked
    clock.forward(1.1)
    assert calls(1) > looked


def test_a_wallet_that_may_not_is_told_why(market: Market, ledger: Watched) -> None:
    """Frozen: the rules' word, and what it means."""
    market.domain.do("governance", "freeze", {"name": PAYER})
    with pytest.raises(NotFunded, match="the wallet is frozen"):
        take(new(market, ledger))


# A ledger that does not answer


def test_an_unknown_answer_is_asked_for_with_the_same_document(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """Done but not answered, twice: the third time the same document brings the answer. Once set aside."""
    answers = iter([LedgerOutcomeUnknown("?"), LedgerOutcomeUnknown("?")])
    ledger.after = True
    ledger.trouble = lambda document: next(answers, None)
    take(treasury)
    assert len(ledger.documents) == 3
    assert len(set(ledger.documents)) == 1
    assert market.domain.balance(PAYER).allowed == 500


def test_a_ledger_that_stays_silent_is_asked_again_by_the_next_call(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """The caller hears that nothing was spent; later calls find out about that very operation first."""
    ledger.after = True
    ledger.trouble = lambda document: LedgerOutcomeUnknown("?")
    with pytest.raises(NotFundedYet) as caught:
        take(treasury)
    assert caught.value.retryable
    ledger.trouble = lambda document: None
    take(treasury)
    assert len(set(ledger.documents)) == 1
    assert market.domain.balance(PAYER).allowed == 500


def test_an_operation_that_can_no_longer_be_applied_is_looked_up(
    treasury: Treasury, market: Market, ledger: Watched, clock: Clock
) -> None:
    """Its time is over: the ledger's state shows whether it was, and it is not done again."""
    ledger.after = True
    ledger.trouble = lambda document: LedgerOutcomeUnknown("?")
    with pytest.raises(NotFundedYet):
        take(treasury)
    ledger.trouble = lambda document: None
    clock.forward(100)
    take(treasury)
    assert len(set(ledger.documents)) == 1
    assert market.domain.balance(PAYER).allowed == 500


def test_a_ledger_that_cannot_be_reached_leaves_nothing_behind(
    treasury: Treasury, ledger: Watched, market: Market
) -> None:
    """Certainly nothing happened: the next call begins anew."""
    ledger.trouble = lambda document: LedgerUnavailable("gone")
    with pytest.raises(NotFundedYet):
        take(treasury)
    ledger.trouble = lambda document: None
    take(treasury)
    assert market.domain.balance(PAYER).allowed == 500


def test_the_last_policy_will_do_while_the_ledger_is_away(
    treasury: Treasury, ledger: Watched, clock: Clock
) -> None:
    """On what is set aside already, calls go on."""
    take(treasury)
    clock.forward(100)

    def away() -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(LedgerUnavailable("gone"))
        return future

    ledger.policy = away  # type: ignore[attr-defined]
    assert take(treasury).tokens == 5


# Many at once


def test_all_who_wait_share_one_opening(treasury: Treasury, market: Market, ledger: Watched) -> None:
    """Thirty-two threads at the first moment: one allowance, and a ticket of its own for each."""
    ledger.silence()
    with ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(take, treasury) for _ in range(32)]
        wait_for(lambda: treasury._accounts[PAYEE].waiting == 32 * 5)
        ledger.release()
        tickets = [future.result(30) for future in futures]
    assert ledger.acts == ["open"]
    assert len({ticket.seq for ticket in tickets}) == 32


def test_nothing_is_lent_out_twice(market: Market, ledger: Watched) -> None:
    """Eight threads that take, pay and give back: what is out never exceeds what is set aside."""
    treasury = new(market, ledger, allowance_calls=3)
    seen: set[tuple[str, str | None, int | None]] = set()
    lock = threading.Lock()
    out = [0]

    def calls(number: int) -> None:
        for n in range(60):
            ticket = take(treasury, 1 + (number + n) % 7)
            with lock:
                seen.add((ticket.via, ticket.lane, ticket.seq))
                out[0] += ticket.tokens
                aside = sum(each.tokens for each in treasury._accounts[PAYEE].allowances)
                assert out[0] <= aside
            if n % 3:
                treasury.charged(ticket, ticket.tokens, None)
            else:
                with lock:
                    out[0] -= ticket.tokens
                treasury.charged(ticket, 0, None)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(calls, n) for n in range(8)]:
            future.result(60)
    assert len(seen) == 8 * 60, "no number twice"


def test_a_large_crowd_is_served_in_turn(market: Market, ledger: Watched) -> None:
    """More callers than one allowance has room for: what they wait for is counted in."""
    treasury = new(market, ledger, allowance_calls=1)
    with ThreadPoolExecutor(64) as pool:
        tickets = list(pool.map(lambda n: take(treasury, 3), range(64)))
    assert len({(ticket.via, ticket.seq) for ticket in tickets}) == 64
    assert len(ledger.acts) < 64


def test_a_crowd_without_funds_is_told_so(market: Market, ledger: Watched) -> None:
    """Everybody hears; nobody waits for ever; the small ones get what the large ones cannot."""
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 9_990})
    treasury = new(market, ledger)

    def call(tokens: int) -> bool:
        try:
            take(treasury, tokens)
        except InsufficientFunds:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        served = list(pool.map(call, [50] * 8 + [1] * 8))
    assert served == [False] * 8 + [True] * 8


# Receipts put the estimate right


def left(treasury: Treasury) -> int:
    return sum(each.left for each in treasury._accounts[PAYEE].allowances)


def test_a_receipt_says_what_is_left(treasury: Treasury) -> None:
    """Another process spent from the same allowance: the payee knows, and so do we from now on."""
    ticket = take(treasury)
    treasury.charged(ticket, 5, 300)
    assert left(treasury) == 300


def test_a_receipt_that_others_overtook_only_lowers_the_estimate(treasury: Treasury) -> None:
    """Tickets that are out at the same time may not be counted in it: what is lent stays lent."""
    first, second = take(treasury), take(treasury)
    treasury.charged(first, 5, 495)
    assert left(treasury) == 490
    treasury.charged(second, 5, 490)
    assert left(treasury) == 490


def test_contracts_without_an_answer_stay_reserved_until_they_expire(
    treasury: Treasury, clock: Clock
) -> None:
    """Then the payee's word counts again."""
    treasury.lost(take(treasury), clock() + 60)
    assert left(treasury) == 495
    treasury.charged(take(treasury), 5, 495)
    assert left(treasury) == 490
    clock.forward(61)
    treasury.charged(take(treasury), 5, 490)
    assert left(treasury) == 490


def test_what_was_not_taken_comes_back_with_its_number(treasury: Treasury) -> None:
    """The number only if no copy of its contract is on its way."""
    ticket = take(treasury)
    treasury.returned(ticket, reusable=True)
    assert left(treasury) == 500
    again = take(treasury)
    assert again.seq == ticket.seq
    treasury.returned(again, reusable=False)
    assert take(treasury).seq == ticket.seq + 1  # type: ignore[operator]


def test_a_payee_that_has_not_seen_a_refill_is_not_misunderstood(treasury: Treasury, ledger: Watched) -> None:
    """It counts from what it knew: the refill is added, so no refill follows upon the refill."""
    for n in range(60):
        treasury.charged(take(treasury), 5, 500 - 5 * (n + 1))
        landed(treasury)
    assert ledger.acts == ["open", "refill"]
    assert left(treasury) > 500
    known = left(treasury)
    treasury.charged(take(treasury), 5, known - 5)
    assert left(treasury) == known - 5


def test_an_allowance_said_to_be_used_up_is_used_no_more(treasury: Treasury, ledger: Watched) -> None:
    """The payee has looked at the ledger: calls go on with more tokens."""
    ticket = take(treasury)
    treasury.returned(ticket, reusable=False)
    assert treasury.used_up(ticket)
    assert left(treasury) == 0
    take(treasury)
    assert ledger.acts == ["open", "refill"]


def test_a_payee_behind_the_ledger_is_worth_asking_again(treasury: Treasury) -> None:
    """Right after a refill that it has not shown to know of."""
    for _ in range(51):
        treasury.charged(take(treasury), 5, None)
        landed(treasury)
    ticket = take(treasury)
    assert not treasury.used_up(ticket)
    assert treasury.used_up(ticket)


# Bounds and upkeep


def test_numbers_given_back_are_kept_up_to_a_limit(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beyond it are gaps; too many gaps, and the next allowance is opened instead of a refill."""
    monkeypatch.setattr(allowances, "FREE_MAX", 2)
    monkeypatch.setattr(allowances, "GAPS_MAX", 3)
    tickets = [take(treasury) for _ in range(10)]
    for ticket in tickets:
        treasury.returned(ticket, reusable=True)
    (allowance,) = treasury._accounts[PAYEE].allowances
    assert (len(allowance.free), allowance.gaps) == (2, 8)
    via = {take(treasury).via for _ in range(60) if not landed(treasury)}
    landed(treasury)
    via |= {take(treasury, 400).via}
    assert len(via) == 2


def test_contracts_without_an_answer_are_remembered_up_to_a_limit(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The tokens of the oldest then count as spent, as far as the receipts do not say otherwise."""
    monkeypatch.setattr(allowances, "UNKNOWN_MAX", 3)
    for _ in range(5):
        treasury.lost(take(treasury), clock() + 60)
    (allowance,) = treasury._accounts[PAYEE].allowances
    assert len(allowance.unknown) == 3
    assert left(treasury) == 475


def test_open_allowances_are_taken_up_up_to_a_limit(
    market: Market, ledger: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with most left; none whose lanes are used up, or that is closed or nearly over."""
    monkeypatch.setattr(allowances, "TAKEN_UP_MAX", 2)
    for n, tokens in enumerate((10, 40, 30, 20)):
        exp = market.domain.now + 3_000
        market.domain.do(PAYER, "open", {"id": f"a{n}", "payee": PAYEE, "tokens": tokens, "exp": exp})
    market.domain.do(
        PAYER, "open", {"id": "over", "payee": PAYEE, "tokens": 99, "exp": market.domain.now + 9}
    )
    market.domain.do(PAYER, "open", {"id": "closed", "payee": PAYEE, "tokens": 99, "exp": exp})
    market.domain.do(PAYER, "close", {"id": "closed"})
    treasury = new(market, ledger)
    take(treasury)
    assert {each.id for each in treasury._accounts[PAYEE].allowances} >= {"a1", "a2"}
    assert not {each.id for each in treasury._accounts[PAYEE].allowances} & {"a0", "a3", "over", "closed"}


def test_a_call_that_others_always_overtake_gives_up(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many turns, with advice; nothing is left waiting."""
    monkeypatch.setattr(treasury_module, "TURNS_MAX", 3)
    enlarge = treasury._enlarge

    def overtaken(account: Any, *args: Any, **options: Any) -> Any:
        shortage = yield from enlarge(account, *args, **options)
        for allowance in account.allowances:
            allowance.left = 0
        return shortage

    monkeypatch.setattr(treasury, "_enlarge", overtaken)
    with pytest.raises(NotFundedYet, match="allowance_calls"):
        take(treasury)
    assert treasury._accounts[PAYEE].waiting == 0


def test_a_search_for_funds_ends(market: Market, ledger: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many sweeps, however many credits there are."""
    monkeypatch.setattr(treasury_module, "SWEEPS_MAX", 2)
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 10_000})
    for _ in range(20):
        market.domain.do("governance", "grant", {"to": PAYER, "tokens": 1})
    with pytest.raises(InsufficientFunds):
        take(new(market, ledger, sweep_batch_max=2), 15)
    assert ledger.acts.count("sweep") == 4


def test_payees_are_bounded(market: Market, ledger: Watched) -> None:
    """An idle one makes room, and is found on the ledger again; with all of them busy the caller hears."""
    market.domain.open_wallet("third")
    treasury = new(market, ledger, allowances_max=2)
    treasury.charged(take(treasury), 5, None)
    landed(treasury)
    busy = take(treasury, payee="other")
    landed(treasury, "other")
    third = take(treasury, payee="third")
    landed(treasury, "third")
    with pytest.raises(NotFunded, match="allowances_max"):
        take(treasury)
    treasury.charged(busy, 5, None)
    treasury.charged(third, 5, None)
    take(treasury)
    assert ledger.acts.count("open") == 3


def test_upkeep_sweeps_and_expires_by_itself(market: Market, ledger: Watched, clock: Clock) -> None:
    """With the calls, every few seconds: earnings come in, and what has expired comes back."""
    treasury = new(market, ledger, sweep_interval_s=5)
    take(treasury, payee="other")
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 70})
    clock.forward(6)
    take(treasury)
    wait_for(lambda: market.domain.balance(PAYER).credits == 0)
    clock.forward(3_600 + 300)
    take(treasury)
    wait_for(lambda: "expire" in ledger.acts and market.domain.balance(PAYER).credits == 0)
    assert sum(market.domain.balance(PAYER)) == 10_070


def test_a_sweep_takes_no_more_than_its_batch(market: Market, ledger: Watched) -> None:
    """Many credits: a bounded number at a time."""
    for _ in range(7):
        market.domain.do("governance", "grant", {"to": PAYER, "tokens": 1})
    treasury = new(market, ledger, sweep_batch_max=3)
    run(treasury.upkeep())
    assert market.domain.balance(PAYER).credits == 4


def wait_for(condition: Callable[[], bool]) -> None:
    """Until the background work that was begun has shown its effect."""
    turn = threading.Event()
    for _ in range(600):
        if condition():
            return
        turn.wait(0.05)
    raise AssertionError("it did not happen within 30 s")


# Holds


def test_a_hold_is_for_one_contract(treasury: Treasury, market: Market) -> None:
    """Its tokens, its id, its time."""
    ticket = run(treasury.place_hold(PAYEE, 40, "job-1"))
    assert (ticket.via, ticket.lane, ticket.seq, ticket.tokens) == ("hold", None, None, 40)
    assert market.domain.balance(PAYER).held == 40


def test_a_hold_without_an_answer_is_placed_once(treasury: Treasury, market: Market, ledger: Watched) -> None:
    """The ledger is silent; asked for again, in another operation, the same hold is found."""
    ledger.after = True
    ledger.trouble = lambda document: LedgerOutcomeUnknown("?")
    with pytest.raises(NotFundedYet):
        run(treasury.place_hold(PAYEE, 40, "job-1"))
    ledger.trouble = lambda document: None
    market.clock.forward(2)  # type: ignore[attr-defined]
    assert run(treasury.place_hold(PAYEE, 40, "job-1")).tokens == 40
    assert market.domain.balance(PAYER).held == 40


def test_a_hold_sweeps_in_what_it_needs(market: Market, ledger: Watched) -> None:
    market.domain.do(PAYER, "transfer", {"to": "other", "tokens": 9_999})
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 9})
    treasury = new(market, ledger)
    assert run(treasury.place_hold(PAYEE, 10, "job-1")).tokens == 10
    with pytest.raises(InsufficientFunds):
        run(treasury.place_hold(PAYEE, 10, "job-2"))


def place(treasury: Treasury, tokens: list[int]) -> list[Future[Ticket]]:
    """Holds that are all asked for while the ledger keeps its answer to the first."""
    placed: list[Future[Ticket]] = [Future() for _ in tokens]
    for number, (amount, future) in enumerate(zip(tokens, placed, strict=True)):
        spawn(treasury.place_hold(PAYEE, amount, f"job-{number}"), future)
    return placed


def test_holds_asked_for_at_once_travel_together(treasury: Treasury, market: Market, ledger: Watched) -> None:
    """The first goes at once; those who come while it is on its way share one operation."""
    run(treasury.policy())
    ledger.silence()
    placed = place(treasury, [10, 20, 30, 40])
    assert not any(future.done() for future in placed)
    ledger.release()
    assert [future.result(30).tokens for future in placed] == [10, 20, 30, 40]
    assert ledger.acts == ["hold", "holds"]
    assert market.domain.balance(PAYER).held == 100
    assert run(treasury.place_hold(PAYEE, 1, "job-5")).tokens == 1
    assert ledger.acts == ["hold", "holds", "hold"], "and alone again"


def test_one_that_is_refused_among_others_hears_why(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    run(treasury.policy())
    ledger.silence()
    placed = place(treasury, [10, 20, 10**6, 40])
    ledger.release()
    assert [placed[number].result(30).tokens for number in (0, 1, 3)] == [10, 20, 40]
    with pytest.raises(InsufficientFunds, match="1000000 tokens are needed and 9930 can be spent"):
        placed[2].result(30)
    assert market.domain.balance(PAYER).held == 70


def test_holds_that_are_refused_together_are_asked_for_alone(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """As by rules that do not know the operation for many: nobody is worse off for having company."""
    run(treasury.policy())
    market.domain.do("governance", "freeze", {"name": PAYER})
    ledger.silence()
    placed = place(treasury, [10, 20, 30])
    ledger.release()
    for future in placed:
        with pytest.raises(NotFunded, match="frozen"):
            future.result(30)
    assert ledger.acts == ["hold", "holds", "hold", "hold"]


def test_everyone_hears_that_the_ledger_gave_no_answer_and_may_ask_again(
    treasury: Treasury, market: Market, ledger: Watched
) -> None:
    """Each with an error of its own; what was placed without an answer is found, and is there once."""
    run(treasury.policy())
    ledger.silence()
    placed = place(treasury, [10, 20, 30])
    ledger.after = True
    ledger.trouble = lambda document: LedgerOutcomeUnknown("?")
    ledger.release()
    assert placed[0].result(30).tokens == 10
    errors = [future.exception(30) for future in placed[1:]]
    assert all(isinstance(error, NotFundedYet) for error in errors)
    assert errors[0].__cause__ is not errors[1].__cause__  # type: ignore[union-attr]
    ledger.trouble = lambda document: None
    for number, tokens in ((1, 20), (2, 30)):
        assert run(treasury.place_hold(PAYEE, tokens, f"job-{number}")).tokens == tokens
    assert market.domain.balance(PAYER).held == 60


# Upkeep


def test_what_nobody_can_need_any_more_is_forgotten(
    treasury: Treasury, market: Market, ledger: Watched, clock: Clock
) -> None:
    """A ledger's state does not grow with every operation ever made; a few old records are left alone."""
    for _ in range(treasury_module.FORGET_AT):
        market.domain.do("governance", "grant", {"to": PAYEE, "tokens": 1})
    run(treasury.upkeep())
    assert "forget" not in ledger.acts  # their documents could still come again
    clock.forward(2_000)
    run(treasury.upkeep())
    assert ledger.acts.count("forget") == 1
    clock.forward(2_000)
    run(treasury.upkeep())
    assert ledger.acts.count("forget") == 1
    left = ledger.forgettable(int(clock()), 1_000).result(30)
    assert 0 < sum(map(len, left.values())) < treasury_module.FORGET_AT


def test_a_wallet_that_only_earns_is_looked_after_too(
    treasury: Treasury, market: Market, clock: Clock
) -> None:
    """What came in becomes spendable without a call, at intervals."""
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 7})
    before = market.domain.balance(PAYER).spendable
    treasury.look_after()  # not due yet
    assert market.domain.balance(PAYER).spendable == before
    clock.forward(3_600)
    treasury.look_after()
    until(lambda: market.domain.balance(PAYER).spendable == before + 7, "what came is swept in")
    market.domain.do("governance", "grant", {"to": PAYER, "tokens": 7})
    treasury.look_after()
    assert market.domain.balance(PAYER).credits == 7

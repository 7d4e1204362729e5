"""Settlement with the real journal and the real embedded ledger, and a wire to it that can be cut."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from support.journals import RESPONSE, key
from support.ledgers import GOVERNANCE, Domain, make_ledger, now_of
from support.wallets import Clock
from tokenmesh.config import Settings
from tokenmesh.errors import JournalError, LedgerOutcomeUnknown, LedgerUnavailable, OperationRefused
from tokenmesh.journal import Claimed, NewClaim
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger import Result
from tokenmesh.settlement import OPERATION_TTL_S, Settlement
from tokenmesh_chaincode.documents import (
    Disclosures,
    digest,
    new_id,
    parse_contract,
    parse_operation,
    present,
    take_presented,
)
from tokenmesh_chaincode.limits import CLOCK_SKEW_S_MAX, OPERATION_BYTES_MAX
from tokenmesh_chaincode.rules import Outcome

DEADLINE_S = 20.0
LONG_S = 3_000
"""How long the allowances and holds of the tests last."""


class Wire:
    """The ledger as it is reached from here. ``sent`` are the operations that were sent to it."""

    def __init__(self, domain: Domain) -> None:
        self._ledger = domain.ledger
        self.sent: list[str] = []
        self.before: Callable[[Sequence[str]], Future[list[Result]] | None] = lambda operations: None
        """Answers in the ledger's place, before anything is sent."""
        self.lose_answers = False
        self.lose_disclosures = False
        """Carry operations, and not what travels beside them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def submit(
        self, operations: Sequence[str], *, disclosures: Disclosures | None = None
    ) -> Future[list[Result]]:
        self.sent += operations
        answer = self.before(operations)
        if answer is not None:
            return answer
        answer = self._ledger.submit(operations, disclosures=None if self.lose_disclosures else disclosures)
        if self.lose_answers:
            now_of(answer)
            return failed(LedgerOutcomeUnknown("the answer was lost"))
        return answer

    def cut(self) -> None:
        self.before = lambda operations: failed(LedgerUnavailable("the wire is cut"))

    def refuse(self, code: str, when: Callable[[str], bool] = lambda operation: True) -> None:
        """Answer as the rules would, were something wrong with the operation as a whole."""

        def answer(operations: Sequence[str]) -> Future[list[Result]] | None:
            if not any(map(when, operations)):
                return None
            return answered([Result(Outcome(False, code, {}), "", 0.0) for _ in operations])

        self.before = answer

    def mend(self) -> None:
        self.before = lambda operations: None
        self.lose_answers = False


def failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Payee:
    """``service-b``: its journal, its settlement, and contracts of ``service-a`` to fulfil."""

    def __init__(self, directory: Path, domain: Domain, clock: Clock) -> None:
        self.directory = directory
        self.domain = domain
        self.clock = clock
        self.wire = Wire(domain)
        self.numbers = iter(range(10_000))
        self.journals: list[SqliteJournal] = []
        self.journal = self.open_journal()
        self.settlement = self.settle_with(self.journal)
        self.allowance = self.open_allowance()

    def open_journal(self) -> SqliteJournal:
        journal = SqliteJournal(self.directory / "journal.db", clock=self.clock)
        self.journals.append(journal)
        return journal

    def settle_with(self, journal: Any, wallet: str = "service-b", **settings: Any) -> Settlement:
        return Settlement(
            journal,
            self.wire,  # type: ignore[arg-type]
            self.domain[wallet],
            settings=Settings(**settings),
            clock=self.clock,
        )

    def open_allowance(self, tokens: int = 500) -> str:
        allowance = new_id()
        exp = self.domain.now + LONG_S
        self.domain.do(
            "service-a", "open", {"id": allowance, "payee": "service-b", "tokens": tokens, "exp": exp}
        )
        return allowance

    def claim(
        self,
        tok: int = 5,
        via: str | None = None,
        *,
        private: bool = False,
        contract_as: Callable[[str], str] = str,
        **claims: Any,
    ) -> NewClaim:
        """A contract that ``service-a`` signed and ``service-b`` has taken; the journal has it so."""
        jti = new_id()
        if via == "hold":
            hold = {"id": jti, "payee": "service-b", "tokens": tok, "exp": self.domain.now + LONG_S}
            self.domain.do("service-a", "hold", hold)
            lane, seq = None, None
        else:
            via, lane, seq = via or self.allowance, "lane", next(self.numbers)
        terms = {"jti": jti, "tok": tok, "via": via, "lane": lane, "seq": seq, **claims}
        if private:
            text, disclosures = self.domain.private_contract("service-a", "service-b", **terms)
            text = present(text, *disclosures.values())
        else:
            text = self.domain.contract("service-a", "service-b", **terms)
        entry = NewClaim(
            payer="service-a",
            jti=jti,
            contract=contract_as(text),
            htm="GET",
            htu="/quote/ACME",
            dig=digest(b""),
            op="GET /quote/{symbol}",
            tok=tok,
            via=via,
            lane=lane,
            seq=seq,
            exp=self.domain.now + 60,
            settle_by=self.clock.now + LONG_S,
            funds=10_000,
        )
        assert isinstance(self.journal.claim(entry, self.clock.now), Claimed)
        return entry

    def work(self, count: int = 1, charged: int = 5, **claims: Any) -> list[NewClaim]:
        """Contracts that were taken and fulfilled."""
        entries = [self.claim(**claims) for _ in range(count)]
        for entry in entries:
            assert self.journal.fulfil(*key(entry), charged, RESPONSE, None, self.clock.now)
        return entries

    def void(self, entry: NewClaim) -> None:
        assert self.journal.void(*key(entry), "failed", None, None, self.clock.now)

    @property
    def earned(self) -> int:
        return self.domain.total("service-b")

    def tx_ids(self, entries: list[NewClaim]) -> set[str | None]:
        found = [self.journal.find(*key(entry)) for entry in entries]
        return {claim.tx_id for claim in found if claim is not None}

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def payee(tmp_path: Path, clock: Clock) -> Iterator[Payee]:
    domain = make_ledger(tmp_path, {"service-a": 2_000, "service-b": 0}, clock=clock)
    payee = Payee(tmp_path, domain, clock)
    yield payee
    payee.close()
    domain.ledger.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.005)


def running() -> set[threading.Thread]:
    """The threads that settle: those too that other tests have left behind."""
    return {thread for thread in threading.enumerate() if thread.name == "tokenmesh-settlement"}


# The usual case


def test_what_is_fulfilled_is_paid(payee: Payee) -> None:
    """Contracts by allowance and by hold, in one transaction, which the journal knows then."""
    entries = [*payee.work(3), *payee.work(1, via="hold", tok=9, charged=7)]
    done = payee.settlement.step()
    assert (done.settled, done.tokens, done.lost, done.failure) == (4, 22, 0, None)
    assert payee.earned == 22
    (tx_id,) = payee.tx_ids(entries)
    assert tx_id
    assert now_of(payee.domain.ledger.transaction(tx_id)) is not None
    assert payee.domain.total("service-a") == 2_000 - 22
    assert payee.journal.stats().unsettled == 0


def test_nothing_to_settle_asks_nothing_of_the_ledger(payee: Payee) -> None:
    """An idle service writes no history."""
    assert payee.settlement.step().idle
    assert payee.wire.sent == []


def test_holds_of_voided_contracts_are_given_back(payee: Payee) -> None:
    """The payer need not wait for its hold to expire."""
    entry = payee.claim(via="hold", tok=9)
    payee.void(entry)
    assert payee.settlement.step().voided == 1
    assert payee.settlement.step().idle
    hold = now_of(payee.domain.ledger.hold("service-a", entry.jti))
    assert hold is not None
    assert hold.state == "void"
    assert payee.domain.balance("service-a").held == 0


def test_numbers_of_voided_contracts_close_their_gaps(payee: Payee) -> None:
    """The ledger keeps one range instead of three."""
    payee.work(2)
    payee.void(payee.claim())
    payee.work(2)
    payee.void(payee.claim())
    payee.work(1)
    payee.settlement.step()
    allowance = now_of(payee.domain.ledger.allowance(payee.allowance))
    assert allowance is not None
    assert [list(pair) for pair in allowance.lanes["lane"]] == [[0, 6]]
    assert allowance.spent == 25


def test_a_full_batch_is_followed_at_once(payee: Payee) -> None:
    """So many contracts an operation; when it was not full there is time to collect."""
    settlement = payee.settle_with(payee.journal, settle_batch_max=4, settle_interval_s=7)
    payee.work(10)
    rounds = [settlement.step() for _ in range(4)]
    assert [done.settled for done in rounds] == [4, 4, 2, 0]
    assert [done.wait_s for done in rounds] == [0, 0, 7, 7]
    assert payee.earned == 50


def test_an_operation_keeps_within_what_a_ledger_takes(payee: Payee) -> None:
    """Long contracts make more operations, not longer ones."""
    count = 700
    payee.allowance = payee.open_allowance(tokens=count)
    payee.work(count, charged=1, tok=1, htu="/" + "x" * 4_000)
    payee.settlement.step()
    payee.settlement.step()
    assert payee.earned == count
    assert len(payee.wire.sent) == 2
    assert max(map(len, payee.wire.sent)) <= OPERATION_BYTES_MAX


def test_rounds_keep_the_journal_within_its_bounds(payee: Payee) -> None:
    """What is settled and old enough is dropped without anybody asking."""
    old, _ = payee.work(2)
    payee.settlement.step()
    payee.clock.forward(90_000)
    payee.settlement.step()
    assert payee.journal.find(*key(old)) is None


# The ledger is not there, or its answer is not


def test_without_a_ledger_it_waits_longer_and_longer(payee: Payee) -> None:
    """Up to a limit, not in step with others; then the very same document is sent."""
    payee.work(2)
    payee.wire.cut()
    settlement = payee.settle_with(payee.journal, settle_backoff_s_max=5)
    waits = []
    for _ in range(12):
        done = settlement.step()
        assert isinstance(done.failure, LedgerUnavailable)
        waits.append(done.wait_s)
        payee.clock.forward(done.wait_s)
    assert 0.1 <= waits[0] <= 0.2
    assert all(later > earlier / 2 for earlier, later in itertools.pairwise(waits))
    assert all(2.5 <= delay <= 5 for delay in waits[6:])
    assert len(set(waits[6:])) > 1
    payee.wire.mend()
    assert settlement.step().settled == 2
    assert len(set(payee.wire.sent)) == 1
    assert settlement.failure is None
    assert payee.earned == 10


def test_while_it_waits_it_sends_nothing(payee: Payee) -> None:
    """A round that comes too early leaves the ledger alone."""
    payee.work()
    payee.wire.cut()
    wait_s = payee.settlement.step().wait_s
    assert payee.settlement.step().wait_s == pytest.approx(wait_s)
    assert len(payee.wire.sent) == 1


def test_a_lost_answer_is_asked_for_with_the_same_document(payee: Payee) -> None:
    """It was done; sent again, it is not done again, and its first transaction is the answer."""
    entries = payee.work(3)
    payee.wire.lose_answers = True
    assert isinstance(payee.settlement.step().failure, LedgerOutcomeUnknown)
    assert payee.earned == 15
    payee.wire.mend()
    payee.clock.forward(1)
    assert payee.settlement.step().settled == 3
    assert payee.earned == 15
    assert len(payee.wire.sent) == 2
    assert len(set(payee.wire.sent)) == 1
    (tx_id,) = payee.tx_ids(entries)
    records = now_of(payee.domain.ledger.contract(entries[0].jti))
    assert [record.tx_id for record in records] == [tx_id]


@pytest.mark.parametrize("point", ["before it was sent", "before its answer came"])
def test_another_process_ends_what_a_dead_one_began(payee: Payee, point: str) -> None:
    """The document was kept, so the one that adopts the batch sends the same, and all is paid once."""
    payee.work(3)
    if point == "before it was sent":
        payee.wire.cut()
    else:
        payee.wire.lose_answers = True
    payee.settlement.step()
    payee.wire.mend()
    payee.clock.forward(11)
    heir = payee.settle_with(payee.open_journal())
    assert heir.step().settled == 3
    assert payee.earned == 15
    assert len(set(payee.wire.sent)) == 1


def test_who_lost_its_batch_meanwhile_sends_nothing(payee: Payee) -> None:
    """A process that sleeps between taking and sending finds on waking that it was given up."""
    payee.work(2)
    heir = payee.settle_with(payee.open_journal())
    journal = payee.journal

    class Sleepy:
        def __getattr__(self, name: str) -> Any:
            return getattr(journal, name)

        def keep_operation(self, batch_id: int, operation: str) -> bool:
            payee.clock.forward(11)
            assert heir.step().settled == 2
            return journal.keep_operation(batch_id, operation)

    done = payee.settle_with(Sleepy()).step()
    assert (done.settled, done.failure) == (0, None)
    assert len(payee.wire.sent) == 1
    assert payee.earned == 10


def test_who_lost_its_batch_while_the_ledger_worked_changes_nothing(payee: Payee) -> None:
    """Both sent the same document; one of them writes down what came of it."""
    entries = payee.work(2)
    heir = payee.settle_with(payee.open_journal())

    def overtaken(operations: Sequence[str]) -> None:
        payee.wire.mend()
        payee.clock.forward(11)
        assert heir.step().settled == 2

    payee.wire.before = overtaken
    assert payee.settlement.step().settled == 0
    assert payee.earned == 10
    assert len(payee.tx_ids(entries)) == 1


# An operation's time runs out


def test_past_its_time_what_was_not_done_goes_into_a_new_operation(payee: Payee) -> None:
    """The ledger is asked first, and knows nothing of these contracts."""
    payee.work(3)
    payee.wire.cut()
    payee.settlement.step()
    payee.wire.mend()
    payee.clock.forward(OPERATION_TTL_S + CLOCK_SKEW_S_MAX + 1)
    assert payee.settlement.step().settled == 0
    assert payee.settlement.step().settled == 3
    assert len(set(payee.wire.sent)) == 2
    assert payee.earned == 15


def test_past_its_time_what_was_done_is_found(payee: Payee) -> None:
    """The history has the operation, with what became of each contract: nothing is sent again."""
    good = payee.work(2)
    bad = payee.work(1, aud="somebody-else")
    payee.wire.lose_answers = True
    payee.settlement.step()
    payee.wire.mend()
    payee.clock.forward(OPERATION_TTL_S + CLOCK_SKEW_S_MAX + 1)
    done = payee.settlement.step()
    assert (done.settled, done.lost) == (2, 1)
    assert payee.settlement.step().idle
    assert len(payee.wire.sent) == 1
    assert payee.earned == 10
    (tx_id,) = payee.tx_ids(good)
    assert tx_id
    claim = payee.journal.find(*key(bad[0]))
    assert claim is not None
    assert claim.lost == "wrong_payee"


def test_past_its_time_what_another_operation_settled_is_not_sent_again(payee: Payee) -> None:
    """Each contract is looked for by itself; only the others go into the new operation."""
    known, unknown = payee.work(2)
    payee.wire.cut()
    payee.settlement.step()
    payee.wire.mend()
    first = payee.domain.operation("service-b", "settle", {"items": [[known.contract, 5]]})
    tx_id = payee.domain.submit(first)[0].tx_id
    payee.clock.forward(OPERATION_TTL_S + CLOCK_SKEW_S_MAX + 1)
    assert payee.settlement.step().settled == 1
    assert payee.settlement.step().settled == 1
    assert payee.tx_ids([known]) == {tx_id}
    (item,) = parse_operation(payee.wire.sent[-1]).body.arg["items"]
    assert item == [unknown.contract, 5]
    assert payee.earned == 10


def test_between_the_clocks_it_waits(payee: Payee) -> None:
    """Just past its time the ledger, whose clock may be behind, could still do it: no new one is made."""
    payee.work()
    payee.wire.cut()
    payee.settlement.step()
    payee.wire.mend()
    payee.clock.forward(OPERATION_TTL_S + 1)
    done = payee.settlement.step()
    assert (done.settled, len(payee.wire.sent)) == (0, 1)
    payee.clock.forward(done.wait_s + 0.01)
    payee.settlement.step()
    assert payee.settlement.step().settled == 1


def test_the_ledgers_clock_may_be_ahead(payee: Payee) -> None:
    """It says that the operation has expired: what it has not settled goes into a new one."""
    payee.work(2)
    payee.wire.refuse("expired")
    payee.settlement.step()
    payee.wire.mend()
    assert payee.settlement.step().settled == 2
    assert len(set(payee.wire.sent)) == 2
    assert payee.earned == 10


def test_the_ledgers_clock_may_be_behind(payee: Payee) -> None:
    """A document from the future may still be done later, so it stays the document."""
    payee.work(2)
    payee.wire.refuse("not_yet_valid")
    done = payee.settlement.step()
    assert done.failure is not None
    payee.wire.mend()
    payee.clock.forward(done.wait_s)
    assert payee.settlement.step().settled == 2
    assert len(set(payee.wire.sent)) == 1


# What the rules refuse


def test_a_refused_contract_is_lost_and_the_others_are_paid(payee: Payee) -> None:
    """The journal keeps it with the rules' code, for people to look into."""
    payee.work(2)
    (forged,) = payee.work(1)[:1]
    broken = payee.claim(iat=payee.domain.now - 100_000)
    assert payee.journal.fulfil(*key(broken), 5, RESPONSE, None, payee.clock.now)
    done = payee.settlement.step()
    assert (done.settled, done.tokens, done.lost) == (3, 15, 1)
    claim = payee.journal.find(*key(broken))
    assert claim is not None
    assert claim.lost == "before_funds"
    assert payee.journal.stats().lost == 1
    assert payee.tx_ids([forged]) != {None}


def test_text_that_is_no_contract_is_lost(payee: Payee) -> None:
    """The rules name it by its place in the batch."""
    payee.work()
    entry = payee.claim()
    _, by = payee.journal._open[key(entry)]
    payee.journal._open[key(entry)] = (entry._replace(contract="nonsense"), by)
    assert payee.journal.fulfil(*key(entry), 5, RESPONSE, None, payee.clock.now)
    done = payee.settlement.step()
    assert (done.settled, done.lost) == (1, 1)
    claim = payee.journal.find(*key(entry))
    assert claim is not None
    assert claim.lost == "not_a_contract"


def test_what_was_settled_before_is_not_lost(payee: Payee) -> None:
    """A journal restored from a copy settles again: the rules refuse, and the history has the first time."""
    (entry,) = payee.work()
    first = payee.domain.submit(
        payee.domain.operation("service-b", "settle", {"items": [[entry.contract, 5]]})
    )[0]
    payee.work()
    done = payee.settlement.step()
    assert (done.settled, done.lost) == (2, 0)
    assert payee.tx_ids([entry]) == {first.tx_id}
    assert payee.earned == 10


def test_an_operation_refused_as_a_whole_is_made_anew(tmp_path: Path, clock: Clock) -> None:
    """A payee that is not registered yet loses nothing by asking: once it is, its contracts are judged."""
    domain = make_ledger(tmp_path, clock=clock)
    payee = Payee(tmp_path, domain, clock)
    stranger = domain.wallets.new("stranger")
    settlement = payee.settle_with(payee.journal, wallet="stranger")
    payee.work(3, aud="stranger")
    for _ in range(3):
        done = settlement.step()
        assert getattr(done.failure, "code", None) == "unknown_signer"
        clock.forward(done.wait_s)
    arg = {"name": "stranger", "cert": stranger.certificate_pem, "role": "service", "url": None}
    domain.do(GOVERNANCE, "register", arg)
    # Their allowance is another payee's, so each is refused by itself now.
    lost = 0
    while not (done := settlement.step()).idle:
        lost += done.lost
    assert lost == 3
    assert len(payee.wire.sent) == len({parse_operation(text).body.jti for text in payee.wire.sent})
    payee.close()
    domain.ledger.close()


def test_one_item_that_spoils_its_operation_does_not_hold_up_the_others(payee: Payee) -> None:
    """Operations get smaller until it is alone; once it could no longer be settled it is lost."""
    entries = payee.work(16)
    spoiler = entries[5].contract
    payee.wire.refuse(
        "bad_argument",
        lambda text: any(item[0] == spoiler for item in parse_operation(text).body.arg["items"]),
    )
    settled = 0
    for _ in range(60):
        done = payee.settlement.step()
        settled += done.settled
        payee.clock.forward(done.wait_s)
    assert settled == 15
    assert payee.earned == 75
    payee.clock.forward(LONG_S)
    for _ in range(3):
        payee.clock.forward(payee.settlement.step().wait_s)
    claim = payee.journal.find(*key(entries[5]))
    assert claim is not None
    assert claim.lost == "bad_argument"
    assert payee.settlement.step().idle


def test_private_contracts_are_settled_and_only_the_ledger_is_told_what_for(payee: Payee) -> None:
    """Among others, and by holds too: no document that is sent has a disclosure in it."""
    entries = [*payee.work(3, private=True), *payee.work(2), *payee.work(1, private=True, via="hold")]
    assert payee.settlement.step().settled == 6
    assert payee.earned == 30
    assert None not in payee.tx_ids(entries)
    disclosures = [take_presented(entry.contract)[1] for entry in entries]
    assert sum(one is not None for one in disclosures) == 4
    (sent,) = payee.wire.sent
    carried = [text for text, _ in parse_operation(sent).body.arg["items"]]
    assert sorted(carried) == sorted(take_presented(entry.contract)[0] for entry in entries)


def test_disclosures_lost_on_the_way_are_sent_again(payee: Payee) -> None:
    """Who carries operations may lose what travels beside them: then nothing has happened."""
    entries = payee.work(2, private=True)
    payee.wire.lose_disclosures = True
    failure = payee.settlement.step().failure
    assert isinstance(failure, OperationRefused)
    assert failure.code == "undisclosed"
    payee.wire.lose_disclosures = False
    payee.clock.forward(60)
    for _ in range(3):
        payee.clock.forward(payee.settlement.step().wait_s)
    assert payee.earned == 10
    assert None not in payee.tx_ids(entries)


def test_a_disclosure_that_the_journal_has_lost_does_not_hold_up_the_others(payee: Payee) -> None:
    entries = payee.work(4, private=True)
    (lost,) = payee.work(1, contract_as=lambda text: take_presented(text)[0], private=True)
    payee.settlement.step()
    for _ in range(5):
        payee.clock.forward(payee.settlement.step().wait_s)
    assert payee.earned == 20
    assert None not in payee.tx_ids(entries)
    claim = payee.journal.find(*key(lost))
    assert claim is not None
    assert claim.lost == "undisclosed"


def test_a_rotated_key_settles_what_the_old_one_signed(payee: Payee) -> None:
    """The document that was kept stays good."""
    payee.work(2)
    payee.wire.cut()
    payee.settlement.step()
    payee.wire.mend()
    old = payee.domain["service-b"]
    new = payee.domain.wallets.new("service-b")
    rotation = payee.domain.operation(old, "rotate", {"name": "service-b", "cert": new.certificate_pem})
    assert payee.domain.submit(rotation)[0].outcome.ok
    payee.clock.forward(1)
    assert payee.settlement.step().settled == 2


# The thread


def test_the_thread_settles_by_itself(payee: Payee) -> None:
    """Started once, it pays what comes; stopped, it is gone."""
    settlement = payee.settle_with(payee.journal, settle_interval_s=0.01)
    before = running()
    settlement.start()
    settlement.start()
    assert len(running() - before) == 1
    payee.work(3)
    wait_until(lambda: payee.earned == 15)
    payee.work(1)
    assert settlement.stop(DEADLINE_S)
    assert payee.earned == 20
    assert running() <= before


def test_flush_settles_everything_there_is(payee: Payee) -> None:
    """Without a thread too, and though the next round was far off."""
    settlement = payee.settle_with(payee.journal, settle_batch_max=3, settle_interval_s=3_600)
    payee.work(8)
    assert settlement.flush(DEADLINE_S)
    assert payee.earned == 40


def test_flush_gives_up_in_time(payee: Payee) -> None:
    """With no ledger it says that something is left, and it is left for the next start."""
    payee.work(2)
    payee.wire.cut()
    began = time.monotonic()
    assert not payee.settlement.flush(0.3)
    assert time.monotonic() - began < DEADLINE_S / 2
    payee.wire.mend()
    assert payee.settlement.flush(DEADLINE_S)
    assert payee.earned == 10


def test_flush_waits_for_another_process(payee: Payee) -> None:
    """What somebody else is settling now counts as not settled."""
    payee.work(2)
    heir = payee.settle_with(payee.open_journal())
    payee.wire.cut()
    heir.step()
    payee.wire.mend()
    assert not payee.settlement.flush(0.2)
    assert heir.flush(DEADLINE_S)
    assert payee.settlement.flush(DEADLINE_S)


def test_stopping_does_not_wait_for_a_ledger_that_hangs(payee: Payee) -> None:
    """The batch stays in the journal, with its document."""
    sending = threading.Event()

    def hang(operations: Sequence[str]) -> Future[Any]:
        sending.set()
        return Future()

    payee.work(2)
    payee.wire.before = hang
    settlement = payee.settle_with(payee.journal, settle_interval_s=0.01)
    before = running()
    settlement.start()
    assert sending.wait(DEADLINE_S)
    began = time.monotonic()
    assert not settlement.stop(0.2)
    assert time.monotonic() - began < DEADLINE_S / 2
    assert running() <= before
    payee.wire.mend()
    assert payee.settlement.flush(DEADLINE_S)
    assert len(set(payee.wire.sent)) == 1
    assert payee.earned == 10


def test_while_the_ledger_hangs_the_lease_is_kept(payee: Payee) -> None:
    """Or other processes would take a working one's claims away."""
    hanging: Future[Any] = Future()
    beats: list[float] = []
    journal = payee.journal
    open_claim = payee.claim()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(journal, name)

        def heartbeat(self, now: float) -> None:
            journal.heartbeat(now)
            beats.append(now)

    payee.work()
    payee.wire.before = lambda operations: hanging
    settlement = payee.settle_with(Watched(), settle_interval_s=0.01)
    settlement.start()
    wait_until(lambda: len(payee.wire.sent) == 1)
    for _ in range(4):
        payee.clock.forward(4)
        wait_until(lambda: beats[-1] == payee.clock.now)
    other = payee.open_journal()
    other.prune(payee.clock.now)
    assert payee.journal.fulfil(*key(open_claim), 5, RESPONSE, None, payee.clock.now)
    hanging.set_exception(LedgerUnavailable("gone"))
    payee.wire.mend()
    assert settlement.stop(DEADLINE_S)
    assert payee.earned == 10


def test_a_fault_does_not_end_the_thread(payee: Payee, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next round is done."""
    faults = iter([ZeroDivisionError("a fault of ours")])
    journal = payee.journal

    class Faulty:
        def __getattr__(self, name: str) -> Any:
            return getattr(journal, name)

        def take_batch(self, *arguments: Any, **options: Any) -> Any:
            for fault in faults:
                raise fault
            return journal.take_batch(*arguments, **options)

    payee.work()
    settlement = payee.settle_with(Faulty(), settle_interval_s=0.01)
    settlement.start()
    # Not the log: it is written before the time of the next round is reckoned from this clock.
    wait_until(lambda: settlement.failure is not None)
    assert "a fault of ours" in caplog.text
    payee.clock.forward(1)
    wait_until(lambda: payee.earned == 5)
    settlement.stop(DEADLINE_S)


@pytest.mark.parametrize("method", ["take_batch", "heartbeat", "prune", "finish_batch"])
def test_a_journal_that_fails_is_tried_again(payee: Payee, method: str) -> None:
    """For the disk may be full only for a while: nothing is lost by waiting."""
    faults = iter([JournalError("the disk is full")] * 2)
    journal = payee.journal

    class Faulty:
        def __getattr__(self, name: str) -> Any:
            if name == method:
                for fault in faults:
                    raise fault
            return getattr(journal, name)

    payee.work(2)
    settlement = payee.settle_with(Faulty(), settle_interval_s=0.01)
    done = settlement.step()
    assert isinstance(done.failure, JournalError)
    settlement.start()
    wait_until(lambda: next(faults, None) is None and payee.clock.forward(1) is None and payee.earned == 10)
    assert settlement.stop(DEADLINE_S)
    assert payee.journal.stats().unsettled == 0


def test_the_contracts_of_the_tests_are_real(payee: Payee) -> None:
    """What goes to the ledger is what the payer signed."""
    (entry,) = payee.work()
    payee.settlement.step()
    (record,) = now_of(payee.domain.ledger.contract(entry.jti))
    assert record.contract == entry.contract
    assert parse_contract(record.contract).body.iss == "service-a"

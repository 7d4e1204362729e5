"""What every journal must do, whatever stores it.

A journal's tests inherit :class:`JournalSuite` and give the fixture ``opener``: a callable that can be
pickled and opens the same store each time, ``opener(**options)`` with the options of :data:`OPTIONS`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from support.journals import (
    BODY,
    RESPONSE,
    START,
    Blocking,
    Elsewhere,
    at_once,
    claim_copies,
    claim_once,
    do_calls,
    finish,
    fulfil,
    fulfil_once,
    key,
    new_claim,
    new_hold,
    take_and_keep,
    void,
    work,
)
from support.wallets import Clock
from tokenmesh.journal import (
    AllowanceUsedUp,
    Claimed,
    Ended,
    Item,
    Journal,
    JournalFull,
    Mismatch,
    Release,
    Running,
    SequenceUsed,
    Skip,
)

OPTIONS = {"lease_s": 10, "retention_s": 1_000, "leeway_s": 100, "clock": None}
"""Options of every journal in the suite, besides ``on_crash``, ``unsettled_max``, ``bytes_max`` and
``response_bytes_max``; ``clock`` is the test's own, and left out in other processes."""

Open = Callable[..., Any]


class JournalSuite:
    """One journal, and several on one store."""

    @pytest.fixture
    def opener(self) -> Callable[..., Journal]:
        raise NotImplementedError("a journal's tests say how it is opened")

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def open_another(self, opener: Callable[..., Journal], clock: Clock) -> Iterator[Open]:
        """Opens one more journal on the same store: another owner, as another process would be."""
        opened = []

        def open_one(**options: Any) -> Blocking:
            journal = opener(**{**OPTIONS, "clock": clock, **options})
            opened.append(journal)
            return Blocking(journal)

        yield open_one
        for journal in opened:
            journal.close()

    @pytest.fixture
    def journal(self, open_another: Open) -> Any:
        return open_another()

    @pytest.fixture
    def elsewhere(self, opener: Callable[..., Journal]) -> Iterator[Callable[..., Elsewhere]]:
        """Opens the store in another process."""
        started = []

        def start(**options: Any) -> Elsewhere:
            settings = {name: value for name, value in OPTIONS.items() if name != "clock"}
            started.append(Elsewhere(partial(opener, **{**settings, **options})))
            return started[-1]

        yield start
        for other in started:
            other.close()

    # A contract is taken once

    def test_a_new_contract_is_claimed_and_can_be_found(self, journal: Any) -> None:
        """The first to come gets the contract, and is told what the allowance has left."""
        entry = new_claim(tok=7, funds=100)
        assert journal.find(*key(entry)) is None
        assert journal.claim(entry, START).left == 93
        claim = journal.find(*key(entry))
        assert (claim.state, claim.tok, claim.via, claim.lane, claim.seq, claim.exp, claim.settle_by) == (
            ("open", 7, "allowance-1", "lane-1", entry.seq, entry.exp, entry.settle_by)
        )
        assert claim.binds("GET", "/quote/ACME", BODY)

    def test_who_comes_while_it_runs_is_told_to_wait(self, journal: Any, open_another: Open) -> None:
        """A copy of a contract that is being worked on is not run: in this process or in another."""
        entry = new_claim()
        journal.claim(entry, START)
        for other in (journal, open_another()):
            answer = other.claim(entry, START)
            assert isinstance(answer, Running)
            assert answer.retry_after >= 1

    def test_who_comes_after_it_gets_the_stored_response(self, journal: Any, open_another: Open) -> None:
        """A retry gets status, headers and body as they were sent, and the receipt."""
        entry = new_claim()
        journal.claim(entry, START)
        assert fulfil(journal, entry, charged=3)
        for other in (journal, open_another()):
            answer = other.claim(entry, START)
            assert answer == Ended("fulfilled", 3, f"receipt-{entry.jti}", RESPONSE, None)

    def test_a_long_response_is_stored_like_a_short_one(self, journal: Any) -> None:
        """Up to response_bytes_max every byte is given back."""
        for size in (0, 1, 1_023, 1_024, 1_025, 100_000):
            entry = new_claim()
            journal.claim(entry, START)
            body = bytes(number % 251 for number in range(size))
            assert fulfil(journal, entry, body=body)
            assert journal.claim(entry, START).response.body == body

    def test_a_response_without_headers_is_stored(self, journal: Any) -> None:
        """Nothing is made up for a handler that set no header."""
        entry = new_claim()
        journal.claim(entry, START)
        assert fulfil(journal, entry, headers=[])
        assert journal.claim(entry, START).response.headers == []

    def test_a_voided_contract_gets_its_response_too(self, journal: Any) -> None:
        """Nothing is owed for a failure, and a retry is told of the same failure."""
        entry = new_claim()
        journal.claim(entry, START)
        assert void(journal, entry)
        answer = journal.claim(entry, START)
        assert (answer.out, answer.charged, answer.reason) == ("void", 0, "failed")
        assert (answer.response.status, answer.receipt) == (500, f"receipt-{entry.jti}")

    @pytest.mark.parametrize("change", [{"htm": "POST"}, {"htu": "/quote/ACME?x=1"}, {"dig": "sha-256=:x:"}])
    @pytest.mark.parametrize("end", [None, fulfil, void])
    def test_an_id_used_for_another_request_is_a_mismatch(self, journal: Any, change: Any, end: Any) -> None:
        """One id is one request: another method, path, query or body is refused, whatever became of it."""
        entry = new_claim()
        journal.claim(entry, START)
        if end is not None:
            end(journal, entry)
        assert journal.claim(entry._replace(**change), START) == Mismatch()

    def test_an_id_belongs_to_its_payer(self, journal: Any) -> None:
        """Two payers may choose the same id, and each has a contract of its own."""
        entry = new_claim()
        assert isinstance(journal.claim(entry, START), Claimed)
        assert isinstance(journal.claim(entry._replace(payer="other", via="allowance-2"), START), Claimed)

    def test_a_known_contract_is_answered_whatever_pays_for_it_by_now(self, journal: Any) -> None:
        """The same job, tried again with another allowance, gets the answer of the first."""
        entry = new_claim()
        again = entry._replace(via="allowance-2", lane="lane-9", seq=77, tok=9, funds=0)
        journal.claim(entry, START)
        assert isinstance(journal.claim(again, START), Running)
        fulfil(journal, entry)
        assert journal.claim(again, START).out == "fulfilled"
        assert journal.allowance_used("allowance-2") == 0

    def test_a_claim_ends_once(self, journal: Any) -> None:
        """What has ended stays as it ended."""
        entry = new_claim()
        assert not fulfil(journal, entry), "nobody has claimed it"
        journal.claim(entry, START)
        assert fulfil(journal, entry)
        assert not fulfil(journal, entry, charged=1)
        assert not void(journal, entry)
        assert journal.find(*key(entry)).charged == 5

    def test_past_settle_by_nothing_is_fulfilled(self, journal: Any) -> None:
        """What could no longer be settled is not counted as owed; it can still be voided."""
        entry = new_claim(settle_by=START + 10)
        journal.claim(entry, START)
        assert not fulfil(journal, entry, now=START + 10)
        assert not fulfil(journal, entry, charged=0, now=START + 10)
        assert void(journal, entry, now=START + 10)

    def test_more_than_the_contract_offers_cannot_be_charged(self, journal: Any) -> None:
        """That would be a mistake of the caller's, and nothing happens."""
        entry = new_claim()
        journal.claim(entry, START)
        for charged in (6, -1):
            with pytest.raises(ValueError, match="tokens"):
                fulfil(journal, entry, charged=charged)
        assert fulfil(journal, entry)

    # Copies that arrive together

    def test_of_a_hundred_copies_from_threads_one_is_claimed(self, journal: Any) -> None:
        """All others are told that it runs."""
        entry = new_claim()
        answers = at_once([lambda: journal.claim(entry, START)] * 100)
        assert sum(isinstance(answer, Claimed) for answer in answers) == 1
        assert sum(isinstance(answer, Running) for answer in answers) == 99

    def test_of_a_hundred_copies_from_two_processes_one_is_claimed(self, elsewhere: Any) -> None:
        """Five times a hundred copies, fifty threads in each of two processes: one each is claimed."""
        first, second = elsewhere(), elsewhere()
        for _ in range(5):
            entry = new_claim()
            for process in (first, second):
                process.send(claim_copies, entry, 50, START)
            answers = [*first.receive(), *second.receive()]
            assert sum(isinstance(answer, Claimed) for answer in answers) == 1
            assert sum(isinstance(answer, Running) for answer in answers) == 99

    def test_an_allowance_is_not_overdrawn_by_those_who_come_together(self, journal: Any) -> None:
        """Forty contracts of 5 tokens on 100 tokens: twenty are claimed."""
        entries = [new_claim(funds=100) for _ in range(40)]
        answers = at_once([partial(journal.claim, entry, START) for entry in entries])
        assert sum(isinstance(answer, Claimed) for answer in answers) == 20
        assert sum(isinstance(answer, AllowanceUsedUp) for answer in answers) == 20
        assert journal.allowance_used("allowance-1") == 100

    def test_a_number_goes_to_one_of_those_who_come_together(self, journal: Any) -> None:
        """Forty contracts with one seq: one is claimed."""
        entries = [new_claim(seq=9) for _ in range(40)]
        answers = at_once([partial(journal.claim, entry, START) for entry in entries])
        assert sum(isinstance(answer, Claimed) for answer in answers) == 1
        assert sum(isinstance(answer, SequenceUsed) for answer in answers) == 39

    def test_many_processes_work_on_one_journal(self, elsewhere: Any, journal: Any) -> None:
        """Four processes call, settle and prune at once: nobody fails, nothing is lost or doubled."""
        workers = [elsewhere() for _ in range(4)]
        for number, worker in enumerate(workers):
            worker.send(do_calls, f"payer-{number}", 200)
        for worker in workers:
            assert worker.receive() == {"Claimed": 200, "fulfilled": 200}
        assert journal.allowance_used("allowance-1") == 4 * 200 * 5
        seen = [item.jti for item in self.settle(journal)]
        assert len(seen) == len(set(seen))
        assert journal.stats()[:4] == (800, 0, 0, 0)

    # Allowances

    def test_the_sum_follows_what_is_claimed_charged_and_voided(self, journal: Any) -> None:
        """A claim counts at its most, a fulfilled one as charged, a voided one not at all."""
        entries = [new_claim(tok=10, funds=30) for _ in range(4)]
        assert [journal.claim(entry, START).left for entry in entries] == [20, 10, 0, 0]
        assert journal.claim(entries[3], START) == AllowanceUsedUp(0)
        fulfil(journal, entries[0], charged=4)
        assert journal.allowance_used("allowance-1") == 24
        void(journal, entries[1])
        assert journal.allowance_used("allowance-1") == 14
        assert journal.claim(entries[3], START).left == 6
        assert journal.claim(new_claim(tok=7, funds=30), START) == AllowanceUsedUp(6)
        assert journal.claim(new_claim(tok=7, funds=50), START).left == 19, "it was refilled"

    def test_a_refused_claim_leaves_nothing_behind(self, journal: Any) -> None:
        """Neither the id nor the number is used up by a contract that was not taken."""
        entry = new_claim(tok=10, funds=3)
        assert journal.claim(entry, START) == AllowanceUsedUp(3)
        assert journal.find(*key(entry)) is None
        assert journal.allowance_used("allowance-1") == 0
        assert journal.claim(entry._replace(funds=10), START).left == 0

    def test_a_number_is_used_once_in_its_lane(self, journal: Any) -> None:
        """In whatever order they come; another lane or allowance has numbers of its own."""
        numbers = [0, 1, 59, 60, 61, 119, 120, 5_000, 2**53 - 1, 62, 2]
        for seq in numbers:
            assert isinstance(journal.claim(new_claim(seq=seq), START), Claimed)
        for seq in numbers:
            assert journal.claim(new_claim(seq=seq), START) == SequenceUsed()
            assert isinstance(journal.claim(new_claim(seq=seq, lane="lane-2"), START), Claimed)
            assert isinstance(journal.claim(new_claim(seq=seq, via="allowance-2"), START), Claimed)

    def test_a_number_stays_used_after_a_void(self, journal: Any) -> None:
        """The ledger will be told that it is skipped, so it can't be used again."""
        entry = new_claim()
        journal.claim(entry, START)
        void(journal, entry)
        assert journal.claim(new_claim(seq=entry.seq), START) == SequenceUsed()

    def test_why_a_contract_will_not_be_taken(self, journal: Any, open_another: Open) -> None:
        """A journal that can tell by looking says what claiming says; one that cannot says nothing. None says
        anything of what is known, or can be taken."""

        def told(entry: Any) -> Any:
            before = journal.allowance_used(entry.via)
            said = journal.why_not(entry)
            assert journal.find(*key(entry)) is None, "it only looks"
            assert journal.allowance_used(entry.via) == before
            answer = journal.claim(entry, START)
            assert said in (None, answer)
            return answer

        first = new_claim(tok=10, funds=15, seq=61)
        assert isinstance(told(first), Claimed)
        assert told(new_claim(tok=10, funds=15, seq=61)) == SequenceUsed()
        assert told(new_claim(tok=10, funds=15, seq=62)) == AllowanceUsedUp(5)
        assert told(new_claim(tok=10, funds=15, seq=5_000)) == AllowanceUsedUp(5)
        assert told(new_claim(tok=10, funds=15, seq=0, lane="lane-2")) == AllowanceUsedUp(5)
        assert told(new_claim(tok=10, funds=5, via="allowance-2")) == AllowanceUsedUp(5)
        assert told(new_hold(tok=6, funds=5)) == AllowanceUsedUp(5)
        assert isinstance(told(new_claim(tok=5, funds=15, seq=62)), Claimed)
        for other in (journal, open_another()):
            assert other.why_not(first) is None
            assert other.why_not(first._replace(seq=70, via="allowance-3", funds=0)) is None

    def test_a_hold_covers_its_contract_or_not(self, journal: Any) -> None:
        """A hold is counted by itself."""
        assert journal.claim(new_hold(tok=6, funds=5), START) == AllowanceUsedUp(5)
        assert journal.claim(new_hold(tok=5, funds=5), START).left is None

    # Owners that are gone

    def test_refuse_ends_an_abandoned_claim(self, journal: Any, open_another: Open, clock: Clock) -> None:
        """Past its lease an owner is given up: a retry hears that nothing is owed, and it can't come back."""
        entry = new_claim()
        journal.claim(entry, START)
        other = open_another()
        clock.now = START + 11
        assert other.find(*key(entry)).state == "abandoned"
        assert other.claim(entry, clock.now) == Ended("void", 0, None, None, None, "abandoned")
        assert not fulfil(journal, entry, now=clock.now)
        assert not void(journal, entry, now=clock.now)
        assert other.allowance_used("allowance-1") == 0

    def test_rerun_hands_an_abandoned_claim_to_the_retry(self, open_another: Open, clock: Clock) -> None:
        """The retry runs the handler; whoever had it before can no longer end it."""
        old, new = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        entry = new_claim()
        old.claim(entry, START)
        clock.now = START + 11
        assert new.claim(entry, clock.now).left == 995
        assert not fulfil(old, entry, now=clock.now)
        assert not void(old, entry, now=clock.now)
        assert fulfil(new, entry, now=clock.now)
        assert [item.jti for item in self.settle(new)] == [entry.jti]
        assert new.allowance_used("allowance-1") == 5

    def test_who_comes_back_and_takes_over_from_itself(self, open_another: Open, clock: Clock) -> None:
        """A process slept past its lease, was given up, and gets its own contract again by a retry: what its
        first handler made of it ends nothing, whichever is done first."""
        sleeper, other = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        entry = new_claim()
        first = sleeper.claim(entry, START)
        clock.now = START + 11
        other.prune(clock.now)
        sleeper.heartbeat(clock.now)
        second = sleeper.claim(entry._replace(contract="signed again"), clock.now)
        assert isinstance(second, Claimed)
        assert second.by != first.by
        assert not fulfil(sleeper, entry, now=clock.now, by=first.by)
        assert not void(sleeper, entry, now=clock.now, by=first.by)
        assert isinstance(other.claim(entry, clock.now), Running), "the second handler is at work"
        assert fulfil(sleeper, entry, now=clock.now, by=second.by)
        assert not void(sleeper, entry, now=clock.now, by=second.by)
        assert [item.contract for item in self.settle(sleeper)] == ["signed again"]

    @pytest.mark.parametrize("pruned", [False, True])
    def test_rerun_with_another_allowance_gives_the_first_back(
        self, open_another: Open, clock: Clock, pruned: bool
    ) -> None:
        """The tokens are free again and the number is skipped; the retry is counted where it belongs."""
        old, new = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        entry = new_claim()
        old.claim(entry, START)
        clock.now = START + 11
        if pruned:
            new.prune(clock.now)
        again = entry._replace(via="allowance-2", lane="lane-2", seq=1, contract="signed again", tok=8)
        assert new.claim(again, clock.now).left == 992
        assert not fulfil(old, entry, now=clock.now)
        assert fulfil(new, again, now=clock.now)
        assert (new.allowance_used("allowance-1"), new.allowance_used("allowance-2")) == (0, 8)
        batch = new.take_batch(10, clock.now)
        assert batch.items == [Item("shop", entry.jti, "signed again", 8)]
        assert batch.skipped == [Skip("allowance-1", "lane-1", entry.seq)]

    @pytest.mark.parametrize("tok", [5, 4])
    def test_rerun_of_a_hold_keeps_it(self, open_another: Open, clock: Clock, tok: int) -> None:
        """A hold is named like its contract: the retry is paid by the very same one."""
        old, new = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        entry = new_hold()
        old.claim(entry, START)
        clock.now = START + 11
        again = entry._replace(tok=tok)
        assert new.claim(again, clock.now).left is None
        assert fulfil(new, again, now=clock.now)
        batch = new.take_batch(10, clock.now)
        assert [item.charged for item in batch.items] == [tok]
        assert new.finish_batch(batch.id, {}, "tx", clock.now)
        assert new.take_batch(10, clock.now) is None, "there is no hold to give back"

    def test_who_heartbeats_is_not_given_up(self, journal: Any, open_another: Open, clock: Clock) -> None:
        """Long work is not lost as long as its process shows life."""
        entry = new_claim()
        journal.claim(entry, START)
        other = open_another()
        for _ in range(5):
            clock.now += 8
            journal.heartbeat(clock.now)
            other.prune(clock.now)
            assert isinstance(other.claim(entry, clock.now), Running)
        assert fulfil(journal, entry, now=clock.now)

    def test_claims_show_life_too(self, journal: Any, open_another: Open, clock: Clock) -> None:
        """An owner that takes contracts renews its lease by it."""
        entry = new_claim()
        journal.claim(entry, START)
        other = open_another()
        for _ in range(5):
            clock.now += 8
            journal.claim(new_claim(), clock.now)
        assert isinstance(other.claim(entry, clock.now), Running)

    def test_pruning_ends_what_was_abandoned(self, journal: Any, open_another: Open, clock: Clock) -> None:
        """Without waiting for a retry: tokens come back as soon as the owner is known to be gone."""
        allowance, hold = new_claim(), new_hold()
        for entry in (allowance, hold):
            journal.claim(entry, START)
        other = open_another()
        clock.now = START + 11
        other.prune(clock.now)
        assert [other.find(*key(entry)).state for entry in (allowance, hold)] == ["void", "void"]
        assert other.take_batch(10, clock.now).voids == [Release(*key(hold))]
        assert not fulfil(journal, allowance, now=clock.now)
        journal.heartbeat(clock.now)
        again = new_claim()
        assert isinstance(journal.claim(again, clock.now), Claimed), "who is back can work on"
        assert fulfil(journal, again, now=clock.now)

    def test_rerun_waits_for_a_retry_and_not_for_ever(self, open_another: Open, clock: Clock) -> None:
        """An abandoned claim can be taken over until it could no longer be settled; then it is void."""
        old, new = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        early, late = new_claim(), new_claim()
        old.claim(early, START)
        old.claim(late, START)
        clock.now = START + 11
        new.prune(clock.now)
        assert new.find(*key(late)).state == "abandoned"
        assert isinstance(new.claim(early, clock.now), Claimed)
        clock.now = START + 401
        new.heartbeat(clock.now)
        new.prune(clock.now)
        assert [new.find(*key(entry)).state for entry in (early, late)] == ["void", "void"]
        assert new.allowance_used("allowance-1") == 0

    def test_rerun_is_too_late_past_settle_by(self, open_another: Open, clock: Clock) -> None:
        """A retry that comes then is told that nothing is owed; running again could not be paid."""
        old, new = open_another(on_crash="rerun"), open_another(on_crash="rerun")
        entry = new_claim()
        old.claim(entry, START)
        clock.now = START + 400
        assert new.claim(entry, clock.now).out == "void"

    def test_a_claim_that_nobody_ends_ends_by_itself(self, journal: Any, clock: Clock) -> None:
        """Even in a living process: once it could no longer be settled, nothing is owed."""
        entry = new_claim()
        journal.claim(entry, START)
        clock.now = START + 400
        journal.heartbeat(clock.now)
        journal.prune(clock.now)
        claim = journal.find(*key(entry))
        assert (claim.state, claim.reason) == ("void", "out_of_time")
        assert not void(journal, entry, now=clock.now)

    def test_a_closed_journal_gives_its_claims_up(self, opener: Any, journal: Any, clock: Clock) -> None:
        """A process that stops in good order is not waited for."""
        other = opener(**{**OPTIONS, "clock": clock})
        entry = new_claim()
        Blocking(other).claim(entry, START)
        other.close()
        assert journal.claim(entry, START).out == "void"

    def test_a_paused_process_cannot_end_what_was_taken_from_it(self, elsewhere: Any, journal: Any) -> None:
        """Stopped with SIGSTOP past its lease, taken over, woken: its ending is refused."""
        entry = new_claim()
        other = elsewhere()
        assert isinstance(other.run(claim_once, entry, START), Claimed)
        other.signal(signal.SIGSTOP)
        assert isinstance(journal.claim(entry, START), Running), "stopped is not dead"
        assert journal.claim(entry, START + 11).out == "void"
        other.signal(signal.SIGCONT)
        assert other.run(fulfil_once, entry, START + 12) is False
        assert journal.stats().unsettled == 0

    def test_a_paused_process_cannot_end_what_a_retry_runs_again(
        self, elsewhere: Any, open_another: Open
    ) -> None:
        """The same with rerun: the charge is the retry's, once."""
        entry = new_claim()
        other, journal = elsewhere(on_crash="rerun"), open_another(on_crash="rerun")
        assert isinstance(other.run(claim_once, entry, START), Claimed)
        other.signal(signal.SIGSTOP)
        assert isinstance(journal.claim(entry, START + 11), Claimed)
        other.signal(signal.SIGCONT)
        assert other.run(fulfil_once, entry, START + 12) is False
        assert fulfil(journal, entry, now=START + 12)
        assert [item.jti for item in self.settle(journal)] == [entry.jti]

    # The outbox

    def settle(self, journal: Any, now: float = START) -> list[Item]:
        """Settle all there is; what was in it."""
        settled = []
        while (batch := journal.take_batch(100, now)) is not None:
            assert journal.keep_operation(batch.id, "operation")
            assert journal.finish_batch(batch.id, {}, "tx-1", now)
            settled += batch.items
        return settled

    def test_what_is_fulfilled_is_settled_in_its_order(self, journal: Any) -> None:
        """A batch carries signed contracts and what is charged; then they are known as settled."""
        first, second = work(journal, 2)
        voided = new_claim()
        journal.claim(voided, START)
        void(journal, voided)
        batch = journal.take_batch(10, START)
        assert batch.operation is None
        assert batch.items == [
            Item("shop", first.jti, first.contract, 5),
            Item("shop", second.jti, second.contract, 5),
        ]
        assert journal.stats()[2:4] == (2, 10)
        assert journal.keep_operation(batch.id, "operation")
        assert journal.finish_batch(batch.id, {}, "tx-9", START)
        assert journal.stats()[2:4] == (0, 0)
        assert journal.find(*key(first)).tx_id == "tx-9"
        assert journal.claim(second, START).tx_id == "tx-9"
        assert journal.take_batch(10, START) is None

    def test_a_batch_has_limits(self, journal: Any) -> None:
        """So many contracts, so many bytes; a contract longer than that travels alone."""
        work(journal, 5, contract="x" * 100)
        sizes = []
        while (batch := journal.take_batch(3, START, bytes_max=250)) is not None:
            sizes.append(len(batch.items))
            journal.finish_batch(batch.id, {}, "tx", START)
        assert sizes == [2, 2, 1]
        work(journal, 2, contract="x" * 300)
        assert len(journal.take_batch(3, START, bytes_max=250).items) == 1

    def test_an_unfinished_batch_comes_back_as_it_was_sent(self, journal: Any) -> None:
        """With the very same operation: it may have been done already."""
        work(journal, 2)
        batch = journal.take_batch(10, START)
        assert journal.keep_operation(batch.id, "operation")
        work(journal)
        assert journal.take_batch(10, START) == batch._replace(operation="operation")
        assert not journal.keep_operation(batch.id, "another operation")

    def test_one_batch_is_under_way_at_a_time(self, journal: Any, open_another: Open) -> None:
        """While one process settles, the others collect."""
        work(journal)
        other = open_another()
        batch = journal.take_batch(10, START)
        work(journal)
        assert other.take_batch(10, START) is None
        assert not other.finish_batch(batch.id, {}, "tx", START)
        assert not other.release_batch(batch.id)
        assert not other.keep_operation(batch.id, "operation")
        assert journal.finish_batch(batch.id, {}, "tx", START)
        assert len(other.take_batch(10, START).items) == 1

    @pytest.mark.parametrize("operation", [None, "operation"])
    def test_a_dead_owners_batch_is_adopted(
        self, journal: Any, open_another: Open, clock: Clock, operation: str | None
    ) -> None:
        """What may have been sent is sent again as it was; what was not is put together anew."""
        work(journal)
        batch = journal.take_batch(10, START)
        if operation:
            assert journal.keep_operation(batch.id, operation)
        clock.now = START + 11
        other = open_another()
        adopted = other.take_batch(10, clock.now)
        assert (adopted.items, adopted.operation) == (batch.items, operation)
        assert not journal.keep_operation(batch.id, "late")
        assert not journal.finish_batch(batch.id, {}, "tx-late", clock.now)
        assert not journal.release_batch(batch.id)
        assert other.finish_batch(adopted.id, {}, "tx", clock.now)
        assert other.find("shop", batch.items[0].jti).tx_id == "tx"

    def test_a_paused_owner_finds_its_batch_adopted(self, elsewhere: Any, journal: Any) -> None:
        """Stopped with a batch under way, adopted past its lease, woken: it can't finish what it lost."""
        work(journal)
        other = elsewhere()
        batch = other.run(take_and_keep, "operation", START)
        other.signal(signal.SIGSTOP)
        assert journal.take_batch(10, START) is None
        assert journal.take_batch(10, START + 11) == batch._replace(operation="operation")
        other.signal(signal.SIGCONT)
        assert other.run(finish, batch.id, START + 12) is False
        assert journal.finish_batch(batch.id, {}, "tx", START + 12)
        assert journal.find("shop", batch.items[0].jti).tx_id == "tx"

    def test_what_the_ledger_refuses_is_kept_as_lost(self, journal: Any) -> None:
        """With the rules' code; the others in the batch are settled."""
        good, bad, twin = (*work(journal, 2), *work(journal, payer="other"))
        batch = journal.take_batch(10, START)
        refused = {key(bad): "frozen"}
        assert journal.finish_batch(batch.id, refused, "tx-1", START, settled={key(twin): "tx-0"})
        assert [
            (claim.lost, claim.tx_id)
            for claim in map(journal.find, *zip(*map(key, (good, bad, twin)), strict=True))
        ] == [
            (None, "tx-1"),
            ("frozen", None),
            (None, "tx-0"),
        ]
        assert journal.claim(bad, START).out == "fulfilled", "the payer still gets what it asked for"
        assert (journal.stats().lost, journal.stats().unsettled) == (1, 0)

    def test_a_released_batch_waits_again(self, journal: Any) -> None:
        """All of it, with nothing of the old operation left, behind what came meanwhile if need be."""
        entries = work(journal, 3)
        batch = journal.take_batch(10, START)
        journal.keep_operation(batch.id, "operation")
        assert journal.release_batch(batch.id)
        assert not journal.finish_batch(batch.id, {}, "tx", START)
        assert not journal.keep_operation(batch.id, "operation")
        assert journal.stats()[2:4] == (3, 15)
        again = journal.take_batch(10, START)
        assert (again.operation, again.items) == (None, batch.items)
        assert again.id != batch.id
        journal.release_batch(again.id)
        assert sorted(item.jti for item in self.settle(journal)) == sorted(entry.jti for entry in entries)

    def test_a_released_batch_can_be_taken_in_pieces(self, journal: Any) -> None:
        """That is how one contract that spoils a settlement is found."""
        entries = work(journal, 5)
        journal.release_batch(journal.take_batch(10, START).id)
        pieces = []
        while (batch := journal.take_batch(2, START)) is not None:
            pieces.append([item.jti for item in batch.items])
            journal.finish_batch(batch.id, {}, "tx", START)
        assert sorted(map(len, pieces)) == [1, 2, 2]
        assert sorted(jti for piece in pieces for jti in piece) == sorted(entry.jti for entry in entries)

    def test_only_what_is_unknown_of_a_released_batch_waits(self, journal: Any) -> None:
        """What was found settled, or refused, is not sent again."""
        settled, lost, unknown = work(journal, 3)
        batch = journal.take_batch(10, START)
        assert journal.release_batch(
            batch.id, settled={key(settled): "tx-0"}, refused={key(lost): "too_late"}
        )
        assert journal.stats()[2:4] == (1, 5)
        assert [item.jti for item in self.settle(journal)] == [unknown.jti]
        found = [journal.find(*key(entry)) for entry in (settled, lost, unknown)]
        assert [(claim.tx_id, claim.lost) for claim in found] == [
            ("tx-0", None),
            (None, "too_late"),
            ("tx-1", None),
        ]

    def test_a_batch_of_which_all_is_known_does_not_come_back(self, journal: Any) -> None:
        """When a lookup found every contract settled, nothing is left to send."""
        (entry,) = work(journal)
        batch = journal.take_batch(10, START)
        assert journal.release_batch(batch.id, settled={key(entry): "tx-0"})
        assert journal.take_batch(10, START) is None
        assert journal.stats()[2:4] == (0, 0)

    def test_a_voided_hold_is_given_back(self, journal: Any) -> None:
        """In a batch of its own, which is repeated until it is finished."""
        entry = new_hold()
        journal.claim(entry, START)
        assert journal.take_batch(10, START) is None, "not before the contract has ended"
        void(journal, entry)
        batch = journal.take_batch(10, START)
        assert (batch.voids, batch.items) == ([Release(*key(entry))], [])
        assert journal.keep_operation(batch.id, "operation")
        assert journal.take_batch(10, START) == batch._replace(operation="operation")
        assert journal.release_batch(batch.id)
        again = journal.take_batch(10, START)
        assert (again.voids, again.operation) == (batch.voids, None)
        assert journal.finish_batch(again.id, {}, "tx", START)
        assert journal.take_batch(10, START) is None

    def test_holds_and_contracts_take_turns(self, journal: Any) -> None:
        """However much is to be settled, holds are given back in between; and the other way round."""
        for _ in range(4):
            entry = new_hold()
            journal.claim(entry, START)
            void(journal, entry)
            work(journal)
        kinds = []
        while (batch := journal.take_batch(1, START)) is not None:
            kinds.append("hold" if batch.voids else "contract")
            journal.finish_batch(batch.id, {}, "tx", START)
        assert set(kinds[:2]) == set(kinds[2:4]) == {"hold", "contract"}
        assert len(kinds) == 8

    def test_skipped_numbers_travel_with_a_settlement(self, journal: Any) -> None:
        """A voided contract's number is reported to the ledger, once, and is not worth a settlement alone."""
        voided = new_claim()
        journal.claim(voided, START)
        void(journal, voided)
        assert journal.take_batch(10, START) is None
        work(journal)
        batch = journal.take_batch(10, START)
        assert batch.skipped == [Skip("allowance-1", "lane-1", voided.seq)]
        journal.release_batch(batch.id)
        batch = journal.take_batch(10, START)
        assert batch.skipped == [Skip("allowance-1", "lane-1", voided.seq)]
        journal.finish_batch(batch.id, {}, "tx", START)
        work(journal)
        assert journal.take_batch(10, START).skipped == []

    def test_fulfilled_for_nothing_owes_nothing(self, journal: Any) -> None:
        """A handler that charges 0: the response is stored, the tokens are free, nothing is settled."""
        allowance, hold = new_claim(), new_hold()
        for entry in (allowance, hold):
            journal.claim(entry, START)
            assert fulfil(journal, entry, charged=0)
            answer = journal.claim(entry, START)
            assert (answer.out, answer.charged, answer.response) == ("fulfilled", 0, RESPONSE)
        assert journal.allowance_used("allowance-1") == 0
        assert journal.stats().unsettled == 0
        assert journal.take_batch(10, START).voids == [Release(*key(hold))]

    # Bounds

    def test_ended_contracts_are_kept_for_a_while(self, journal: Any, clock: Clock) -> None:
        """For retention_s, then they go; the newest may stay."""
        (old,), voided = work(journal), new_claim()
        journal.claim(voided, START)
        void(journal, voided)
        self.settle(journal)
        clock.now = START + 999
        work(journal, now=START)
        another = new_claim()
        journal.claim(another, START)
        void(journal, another)
        journal.prune(clock.now)
        assert journal.find(*key(old))
        assert journal.find(*key(voided))
        clock.now = START + 1_000
        journal.heartbeat(clock.now)
        journal.prune(clock.now)
        assert journal.find(*key(old)) is None
        assert journal.find(*key(voided)) is None

    def test_nothing_is_dropped_while_it_could_be_sent_again(self, journal: Any, clock: Clock) -> None:
        """A contract is remembered until its expiry and the leeway have passed, whatever retention says."""
        (entry,) = work(journal, exp=int(START) + 5_000)
        work(journal)
        self.settle(journal)
        clock.now = START + 5_099
        journal.prune(clock.now)
        assert journal.find(*key(entry))
        clock.now = START + 5_100
        journal.prune(clock.now)
        assert journal.find(*key(entry)) is None

    def test_nothing_is_dropped_before_it_is_settled(self, journal: Any, clock: Clock) -> None:
        """Neither what waits nor what is under way."""
        entries = work(journal, 4)
        journal.take_batch(2, START)
        clock.now = START + 10_000
        journal.heartbeat(clock.now)
        journal.prune(clock.now)
        assert all(journal.find(*key(entry)) for entry in entries)
        assert [item.jti for item in self.settle(journal, clock.now)] == [entry.jti for entry in entries]
        journal.prune(clock.now)
        assert [bool(journal.find(*key(entry))) for entry in entries] == [False, False, False, True]

    def test_a_number_stays_used_when_its_contract_is_dropped(self, journal: Any, clock: Clock) -> None:
        """As long as the allowance could still pay."""
        entry, _ = work(journal, 2, settle_by=START + 80_000)
        self.settle(journal)
        clock.now = START + 2_000
        journal.prune(clock.now)
        assert journal.find(*key(entry)) is None
        again = new_claim(seq=entry.seq, exp=int(clock.now) + 60, settle_by=START + 80_000)
        assert journal.claim(again, clock.now) == SequenceUsed()
        assert journal.allowance_used("allowance-1") == 10

    def test_an_allowance_that_can_no_longer_pay_is_forgotten(self, journal: Any, clock: Clock) -> None:
        """Its sum and its numbers take no room for ever."""
        work(journal, 3)
        clock.now = START + 500
        journal.prune(clock.now)
        assert journal.allowance_used("allowance-1") == 0

    def test_a_response_above_the_limit_is_kept_by_digest(self, open_another: Open) -> None:
        """A retry learns that it was fulfilled, and with which status; of the body it gets the digest."""
        journal = open_another(response_bytes_max=10)
        entry = new_claim()
        journal.claim(entry, START)
        assert fulfil(journal, entry, body=b"x" * 11, digest="the digest")
        answer = journal.claim(entry, START)
        assert (answer.out, answer.charged, answer.receipt) == ("fulfilled", 5, f"receipt-{entry.jti}")
        assert (answer.response.status, answer.response.body, answer.response.digest) == (
            200,
            None,
            "the digest",
        )

    def test_short_of_space_old_bodies_go_first(self, open_another: Open) -> None:
        """The size keeps within its bound; old contracts are still answered, by digest; new ones in full."""
        journal = open_another(bytes_max=2**20)
        entries = []
        for _ in range(60):
            entries += work_with_body(journal, 50_000)
            self.settle(journal)
        assert journal.stats().bytes <= 2**20
        oldest, newest = journal.claim(entries[0], START), journal.claim(entries[-1], START)
        assert (oldest.out, oldest.response.body, oldest.response.digest) == ("fulfilled", None, "d")
        assert len(newest.response.body) == 50_000

    def test_short_of_space_old_contracts_go_before_their_time(
        self, open_another: Open, clock: Clock
    ) -> None:
        """Settled and expired ones, oldest first, though retention would keep them."""
        journal = open_another(bytes_max=2**20, retention_s=10**6)
        entries = []
        for _ in range(40):
            clock.now += 20
            entries += work(
                journal,
                20,
                now=clock.now,
                exp=int(clock.now) + 1,
                settle_by=10**10,
                contract="x" * 1_000,
                funds=10**6,
            )
            self.settle(journal, clock.now)
        assert journal.find(*key(entries[0])) is None
        assert journal.find(*key(entries[-1]))
        assert journal.stats().bytes <= 2**20

    def test_too_much_unsettled_is_full(self, open_another: Open) -> None:
        """No new contract is taken; known ones get their answer; there is room again after settling."""
        journal = open_another(unsettled_max=3)
        entries = work(journal, 3)
        assert journal.claim(new_claim(), START) == JournalFull()
        assert journal.claim(entries[0], START).out == "fulfilled"
        self.settle(journal)
        assert isinstance(journal.claim(new_claim(), START), Claimed)

    def test_open_claims_take_room_too(self, open_another: Open) -> None:
        """Or all that runs at once could end up in the outbox beyond its bound."""
        journal = open_another(unsettled_max=3)
        entries = [new_claim() for _ in range(4)]
        answers = [journal.claim(entry, START) for entry in entries]
        assert answers[3] == JournalFull()
        void(journal, entries[0])
        assert isinstance(journal.claim(entries[3], START), Claimed)

    def test_no_space_and_nothing_to_drop_is_full(self, open_another: Open) -> None:
        """Unsettled contracts are never dropped for new ones."""
        journal = open_another(bytes_max=2**20)
        entries = []
        for _ in range(2_000):
            entry = new_claim(contract="x" * 4_000, funds=10**6)
            answer = journal.claim(entry, START)
            if not isinstance(answer, Claimed):
                break
            assert fulfil(journal, entry)
            entries.append(entry)
        assert answer == JournalFull()
        assert len(entries) > 100
        assert journal.stats().unsettled == len(entries)
        assert [item.jti for item in self.settle(journal)] == [entry.jti for entry in entries]


def work_with_body(journal: Any, size: int) -> list[Any]:
    """One fulfilled contract with a response of ``size`` bytes."""
    entry = new_claim(funds=10**6)
    assert isinstance(journal.claim(entry, START), Claimed)
    assert fulfil(journal, entry, body=b"x" * size)
    return [entry]

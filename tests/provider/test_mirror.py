"""The mirror of the ledger: what is asked, when, by whom, and how much of it is kept."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from support.wallets import Clock
from tokenmesh.errors import LedgerBusy, LedgerUnavailable
from tokenmesh.provider.mirror import ASK_AGAIN_S, MISSING, Mirror
from tokenmesh.steps import Within, arun, run


class Ledger:
    """Answers when the test says so; ``asked`` are the questions, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pending: list[Future[str]] = []
        self.answers: dict[str, str] = {}

    def ask(self, key: str) -> Future[str]:
        self.asked.append(key)
        future: Future[str] = Future()
        if key in self.answers:
            future.set_result(self.answers[key])
        else:
            self.pending.append(future)
        return future


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def mirror_of(ledger: Ledger, clock: Clock, **limits: Any) -> Mirror[str]:
    options = {"believe_s": 10.0, "size_max": 100, "wait_s": 5.0, **limits}
    return Mirror(ledger.ask, str.upper, clock, **options)


def test_the_ledger_is_asked_once_and_believed_for_a_while(ledger: Ledger, clock: Clock) -> None:
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "x"
    assert mirror.at_hand("a") is MISSING
    assert [run(mirror.get("a")) for _ in range(3)] == ["X"] * 3
    assert mirror.at_hand("a") == "X"
    assert ledger.asked == ["a"]


def test_what_is_in_use_is_asked_anew_in_the_background(ledger: Ledger, clock: Clock) -> None:
    """Nobody waits: the last answer is given until the next one is there."""
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "old"
    run(mirror.get("a"))
    del ledger.answers["a"]
    assert mirror.fresh_until("a") > clock()
    clock.forward(3)
    assert mirror.fresh_until("a") < clock()
    assert [run(mirror.get("a")) for _ in range(3)] == ["OLD"] * 3
    assert ledger.asked == ["a", "a"]
    ledger.pending[0].set_result("new")
    assert run(mirror.get("a")) == "NEW"


def test_what_is_too_old_is_waited_for(ledger: Ledger, clock: Clock) -> None:
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "old"
    run(mirror.get("a"))
    ledger.answers["a"] = "new"
    clock.forward(10)
    assert run(mirror.get("a")) == "NEW"


def test_a_clock_that_is_set_back_makes_nothing_young(ledger: Ledger, clock: Clock) -> None:
    """The entry may be older than it seems, so it is asked for anew."""
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "old"
    run(mirror.get("a"))
    ledger.answers["a"] = "new"
    clock.forward(-3600)
    run(mirror.get("a"))
    assert run(mirror.get("a")) == "NEW"


def test_a_ledger_that_is_down_is_not_asked_by_everyone_who_comes(ledger: Ledger, clock: Clock) -> None:
    """After a refresh that fails, the next one takes its time, as if it had gone well."""
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "old"
    run(mirror.get("a"))
    del ledger.answers["a"]
    clock.forward(3)
    for _ in range(100):
        assert run(mirror.get("a")) == "OLD"
        for question in ledger.pending:
            question.set_exception(LedgerUnavailable("gone"))
        ledger.pending.clear()
    assert ledger.asked == ["a", "a"]


def test_a_refresh_that_fails_leaves_the_last_answer(ledger: Ledger, clock: Clock) -> None:
    """Until it is too old; then the failure is the caller's."""
    mirror = mirror_of(ledger, clock)
    ledger.answers["a"] = "old"
    run(mirror.get("a"))
    del ledger.answers["a"]
    for _ in range(2):
        clock.forward(3)
        assert run(mirror.get("a")) == "OLD"
        ledger.pending.pop().set_exception(LedgerUnavailable("gone"))
    assert len(ledger.asked) == 3
    clock.forward(10)
    steps = mirror.get("a")
    effect = next(steps)
    ledger.pending.pop().set_exception(LedgerUnavailable("gone"))
    with pytest.raises(LedgerUnavailable, match="gone"):
        steps.throw(effect.future.exception())


def test_all_who_ask_at_once_share_one_question(ledger: Ledger, clock: Clock) -> None:
    mirror = mirror_of(ledger, clock)

    async def main() -> list[str]:
        tasks = [asyncio.create_task(arun(mirror.get("a"))) for _ in range(50)]
        await asyncio.sleep(0)
        ledger.pending[0].set_result("x")
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["X"] * 50
    assert ledger.asked == ["a"]


def test_a_silent_ledger_is_not_waited_for_for_ever(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(LedgerUnavailable, match="within 0"):
        run(mirror_of(ledger, clock, wait_s=0.01).get("a"))


def test_questions_under_way_are_bounded(ledger: Ledger, clock: Clock) -> None:
    mirror = mirror_of(ledger, clock, pending_max=2)
    waiting = [mirror.get(key) for key in "ab"]
    assert all(isinstance(next(steps), Within) for steps in waiting)
    with pytest.raises(LedgerBusy):
        run(mirror.get("c"))
    ledger.pending[0].set_result("x")
    ledger.answers["c"] = "y"
    assert run(mirror.get("c")) == "Y"


def test_entries_are_bounded_and_the_least_used_go_first(ledger: Ledger, clock: Clock) -> None:
    mirror = mirror_of(ledger, clock, size_max=2)
    ledger.answers = {"a": "1", "b": "2", "c": "3"}
    run(mirror.get("a"))
    run(mirror.get("b"))
    clock.forward(3)
    run(mirror.get("a"))  # in use, so asked for anew
    run(mirror.get("c"))
    assert [mirror.at_hand(key) is MISSING for key in "abc"] == [False, True, False]


class TestDoubt:
    """Someone has reason to doubt the last answer: an unknown certificate, an allowance used up."""

    def test_the_ledger_is_asked_at_once(self, ledger: Ledger, clock: Clock) -> None:
        mirror = mirror_of(ledger, clock)
        ledger.answers["a"] = "old"
        run(mirror.get("a"))
        ledger.answers["a"] = "new"
        assert run(mirror.again("a")) == "NEW"
        assert run(mirror.get("a")) == "NEW"

    def test_many_doubts_do_not_make_many_questions(self, ledger: Ledger, clock: Clock) -> None:
        """Who comes too soon waits, and shares the next question with the others."""
        mirror = mirror_of(ledger, clock)
        ledger.answers["a"] = "x"
        run(mirror.again("a"))
        run(mirror.again("a"))
        asked = len(ledger.asked)

        async def main() -> list[str]:
            return await asyncio.gather(*(arun(mirror.again("a")) for _ in range(50)))

        assert asyncio.run(main()) == ["X"] * 50
        assert len(ledger.asked) - asked == 1

    def test_an_answer_from_before_the_doubt_does_not_settle_it(self, ledger: Ledger, clock: Clock) -> None:
        """A question under way may have been answered before what is looked for came about."""
        mirror = mirror_of(ledger, clock)
        first, doubting = mirror.get("a"), mirror.again("a")
        next(first)
        effect = next(doubting)
        ledger.pending[0].set_result("old")
        effect = doubting.send(effect.future.result())
        ledger.pending[1].set_result("new")
        with pytest.raises(StopIteration) as stop:
            doubting.send(effect.future.result())
        assert stop.value.value == "NEW"
        assert ASK_AGAIN_S > 0


def test_threads_that_ask_and_answer_at_once(clock: Clock) -> None:
    """Any number of callers, and answers from another thread: everyone gets a right one."""
    questions: list[tuple[str, Future[str]]] = []
    there = threading.Condition()

    def ask(key: str) -> Future[str]:
        future: Future[str] = Future()
        with there:
            questions.append((key, future))
            there.notify()
        return future

    def answer() -> None:
        while True:
            with there:
                while not questions:
                    there.wait()
                key, future = questions.pop()
            if key == "end":
                return
            future.set_result(key)

    ledger = threading.Thread(target=answer)
    ledger.start()
    mirror: Mirror[str] = Mirror(ask, str.upper, clock, believe_s=1, size_max=4, wait_s=30)
    wrong: list[str] = []

    def caller(number: int) -> None:
        for turn in range(300):
            key = "abcdefgh"[(number + turn) % 8]
            if run(mirror.get(key)) != key.upper():
                wrong.append(key)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    ask("end")
    ledger.join()
    assert not wrong

"""Steps: the same generator, driven by blocking and by awaiting."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from tokenmesh.steps import Sleep, Steps, Within, arun, awaited, run, wait

DRIVERS = [run, lambda steps: asyncio.run(arun(steps))]


def later(value: Any = None, error: Exception | None = None) -> Future[Any]:
    """A future that another thread answers, after the driver has begun to wait for it."""
    future: Future[Any] = Future()
    answer = (lambda: future.set_exception(error)) if error else (lambda: future.set_result(value))
    threading.Timer(0.01, answer).start()
    return future


@pytest.mark.parametrize("drive", DRIVERS, ids=["run", "arun"])
class TestDrivers:
    def test_results_of_futures_are_sent_in(self, drive: Any) -> None:
        """A step gets what it waited for, and its own return value comes out."""

        def steps() -> Steps[int]:
            yield Sleep(0)
            return (yield later(20)) + (yield from wait(later(21))) + (yield from wait(1))

        assert drive(steps()) == 42

    def test_errors_of_futures_are_thrown_in(self, drive: Any) -> None:
        """A step can catch what went wrong with what it waited for, and go on."""

        def steps() -> Steps[str]:
            try:
                yield later(error=LookupError("gone"))
            except LookupError as error:
                return str(error)
            raise AssertionError("the error did not arrive")

        assert drive(steps()) == "gone"

    def test_errors_of_steps_come_out(self, drive: Any) -> None:
        def steps() -> Steps[None]:
            yield later()
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            drive(steps())

    def test_a_wait_within_a_time_ends_with_the_answer_or_the_time(self, drive: Any) -> None:
        """Past the time the step gets a TimeoutError; what it waited for is not cancelled."""
        silent: Future[int] = Future()

        def steps() -> Steps[int]:
            try:
                yield Within(silent, 0.01)
            except TimeoutError:
                return (yield Within(later(3), 60))
            raise AssertionError("silence is no answer")

        assert drive(steps()) == 3
        assert silent.set_running_or_notify_cancel()

    def test_an_unknown_effect_is_an_error_of_the_code(self, drive: Any) -> None:
        def steps() -> Steps[None]:
            yield "not an effect"

        with pytest.raises(TypeError, match="not for str"):
            drive(steps())


def test_a_future_that_was_cancelled_is_cancelled_for_who_awaits_it() -> None:
    async def main() -> None:
        future: Future[int] = Future()
        waiting = asyncio.create_task(arun(wait(future)))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


def test_an_answer_after_its_loop_is_closed_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever gives it is a thread that has others to answer."""
    future: Future[int] = Future()

    async def main() -> None:
        awaited(future)

    asyncio.run(main())
    future.set_result(1)
    assert future.result() == 1
    assert caplog.records == []


def test_many_answers_at_once_wake_their_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the loop is busy hundreds are answered; then each task has its own answer."""
    woken = []

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        futures: list[Future[int]] = [Future() for _ in range(300)]
        tasks = [asyncio.create_task(arun(wait(future))) for future in futures]
        await asyncio.sleep(0)
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (woken.append(args), wake(*args)))

        def answer() -> None:
            for number, future in enumerate(futures):
                future.set_result(number)

        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()  # the loop is kept busy meanwhile
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == list(range(300))
    assert len(woken) == 1


def test_answers_by_many_threads_while_the_loop_takes_others_all_arrive() -> None:
    """None is left behind between the loop's last look and its being woken again."""

    async def main() -> int:
        futures: list[Future[int]] = [Future() for _ in range(4_000)]
        threads = [
            threading.Thread(target=lambda some: [future.set_result(1) for future in some], args=(part,))
            for part in (futures[start::4] for start in range(4))
        ]
        tasks = [asyncio.create_task(arun(wait(future))) for future in futures]
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        return sum(await asyncio.wait_for(asyncio.gather(*tasks), 60))

    assert asyncio.run(main()) == 4_000


def test_one_that_cannot_be_told_does_not_hold_up_the_others() -> None:
    """asyncio takes no StopIteration for an error: the loop hears of that, the next in line of its answer."""
    heard = []

    async def main() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        first: Future[int] = Future()
        second: Future[int] = Future()
        waiting = [awaited(first), awaited(second)]
        first.set_exception(StopIteration())
        second.set_result(2)
        answer = await asyncio.wait_for(waiting[1], 60)
        assert not waiting[0].done()
        return answer

    assert asyncio.run(main()) == 2
    assert isinstance(heard[0]["exception"], TypeError)


def test_a_finished_future_is_not_waited_for() -> None:
    """The warm path yields nothing at all: no hop through a driver."""
    done: Future[int] = Future()
    done.set_result(7)
    steps = wait(done)
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == 7


def test_a_cancelled_task_closes_its_steps_and_leaves_the_future_alone() -> None:
    """Others may wait for the same future; the cancelled steps get to clean up."""
    shared: Future[int] = Future()
    closed = []

    def steps() -> Steps[int]:
        try:
            return (yield shared)
        finally:
            closed.append(True)

    async def main() -> None:
        task = asyncio.create_task(arun(steps()))
        other = asyncio.create_task(arun(wait(shared)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        shared.set_result(5)
        assert await other == 5

    asyncio.run(main())
    assert closed == [True]

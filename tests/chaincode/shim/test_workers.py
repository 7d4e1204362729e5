"""Threads for invocations: their limits, and an invocation that waits for another one."""

from __future__ import annotations

import threading

from tokenmesh_chaincode.shim.workers import Workers


def test_so_many_run_so_many_wait_and_no_more() -> None:
    """Two run, three wait, the sixth is refused; all five get done."""
    workers = Workers(2, 3)
    running, go_on = threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def job(number: int) -> None:
        running.release()
        go_on.wait(30)
        done.append(number)

    taken = [workers.submit(lambda number=number: job(number)) for number in range(6)]  # type: ignore[misc]
    assert taken == [True] * 5 + [False]
    assert all(running.acquire(timeout=30) for _ in range(2))
    assert not running.acquire(blocking=False)
    go_on.set()
    assert workers.close(30)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert not workers.submit(go_on.set)


def test_a_job_that_waits_for_another_lends_its_place() -> None:
    """One place, and three jobs that each wait for one more: without a loan none would ever end."""
    workers = Workers(1, 10)
    ended = threading.Semaphore(0)

    def outer() -> None:
        inner = threading.Event()
        workers.submit(inner.set)
        with workers.lent():
            if inner.wait(30):
                ended.release()

    for _ in range(3):
        assert workers.submit(outer)
    assert all(ended.acquire(timeout=30) for _ in range(3))
    assert workers.close(30)


def test_what_does_not_end_in_time_is_given_up() -> None:
    workers = Workers(1, 1)
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(30)

    workers.submit(wait)
    assert not workers.close(0.01)
    go_on.set()


def test_a_thread_survives_a_job_that_fails() -> None:
    workers = Workers(1, 10)
    after = threading.Event()

    def fail() -> None:
        raise RuntimeError

    workers.submit(fail)
    workers.submit(after.set)
    assert after.wait(30)
    assert workers.close(30)

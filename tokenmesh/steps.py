"""Code that waits without knowing how: generators that yield what they wait for.

Provider, consumer and treasury are written once, as *steps*: generators that yield a
:class:`concurrent.futures.Future` (:class:`Within` a time), a :class:`Sleep` or (consumer only) a ``Send``,
and are sent the result.
A driver at the edge decides what waiting means: :func:`run` blocks the thread, :func:`arun` awaits, a
simulator turns a virtual clock. So sync and async code run the very same lines.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

T = TypeVar("T")


class Sleep(NamedTuple):
    """An effect: go on after so many seconds."""

    seconds: float


class Within(NamedTuple):
    """An effect: wait for ``future`` as long as ``seconds``, then raise :class:`TimeoutError`. What was asked
    for goes on, for others that wait for it too."""

    future: Future[Any]
    seconds: float


Steps: TypeAlias = Generator[Any, Any, T]


@overload
def wait(value: Future[T]) -> Steps[T]: ...
@overload
def wait(value: T | Future[T]) -> Steps[T]: ...
def wait(value: T | Future[T]) -> Steps[T]:
    """Give ``value``, waiting for it first if it is a future (``x = yield from wait(journal.find(...))``)."""
    if isinstance(value, Future):
        if value.done():
            return value.result()
        result: T = yield value
        return result
    return value


def run(steps: Steps[T]) -> T:
    """Drive ``steps`` by blocking this thread."""
    advance = steps.__next__
    while True:
        try:
            effect = advance()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            advance = partial(steps.send, _block(effect))
        except Exception as error:
            advance = partial(steps.throw, error)


async def arun(steps: Steps[T]) -> T:
    """Drive ``steps`` by awaiting; the event loop stays free. A cancelled wait closes the steps."""
    advance = steps.__next__
    try:
        while True:
            try:
                effect = advance()
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                advance = partial(steps.send, await _await(effect))
            except Exception as error:
                advance = partial(steps.throw, error)
    finally:
        steps.close()


def _block(effect: Any) -> Any:
    if isinstance(effect, Sleep):
        time.sleep(effect.seconds)
        return None
    if isinstance(effect, Within):
        return effect.future.result(effect.seconds)
    return _future(effect).result()


async def _await(effect: Any) -> Any:
    if isinstance(effect, Sleep):
        await asyncio.sleep(effect.seconds)
        return None
    if isinstance(effect, Within):
        return await asyncio.wait_for(awaited(effect.future), effect.seconds)
    return await awaited(_future(effect))


def awaited(future: Future[T]) -> asyncio.Future[T]:
    """``future`` for the running event loop. To cancel this one leaves ``future`` alone, for others may wait
    for it too; that, and less work, is what sets it apart from :func:`asyncio.wrap_future`."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()
    arrivals = _latest.arrivals
    if arrivals is None or arrivals.loop is not loop:
        arrivals = _latest.arrivals = _Arrivals(loop)
    future.add_done_callback(partial(arrivals.add, waiter))
    return waiter


class _Arrivals:
    """Futures that are done, and the tasks of one event loop that wait for them.

    A ledger answers hundreds at once. To wake the loop takes a system call, in which the thread that answers
    loses Python's lock to the loop; so the loop is woken once for all that arrive before it looks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._arrived: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    def add(self, waiter: asyncio.Future[Any], future: Future[Any]) -> None:
        """``future`` is done: whichever thread has done it says so."""
        self._arrived.append((waiter, future))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._tell_all)

    def _tell_all(self) -> None:
        # Before anything is looked at: what comes from here on is either seen below, or wakes the loop anew.
        self._woken = False
        try:
            while self._arrived:
                _tell(*self._arrived.popleft())
        finally:
            if self._arrived:  # one could not be told: the others can
                self.loop.call_soon(self._tell_all)


def _tell(waiter: asyncio.Future[Any], future: Future[Any]) -> None:
    if waiter.done():  # cancelled
        return
    if future.cancelled():
        waiter.cancel()
        return
    error = future.exception()
    if error is None:
        waiter.set_result(future.result())
    else:
        waiter.set_exception(error)


class _Latest(threading.local):
    """The arrivals of the event loop that has run in this thread lately."""

    arrivals: _Arrivals | None = None


_latest = _Latest()


def _future(effect: Any) -> Future[Any]:
    if not isinstance(effect, Future):
        raise TypeError(f"this driver waits for futures and sleeps, not for {type(effect).__name__}")
    return effect

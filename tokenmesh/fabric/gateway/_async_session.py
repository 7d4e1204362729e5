"""One connection to a peer, for asyncio: carries out what flows ask for, and reads streams."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from inspect import isawaitable
from typing import Any, TypeVar

import grpc

from tokenmesh.fabric.errors import FabricError, GatewayError
from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.events import Feed, goes_on, pauses, stream_error
from tokenmesh.fabric.gateway.explain import failure_of, on_time
from tokenmesh.fabric.gateway.flows import (
    METHODS,
    Call,
    Caller,
    CallFailed,
    Effect,
    Flow,
    Sign,
    Track,
    Verdict,
    Wait,
)
from tokenmesh.fabric.gateway.statuses import (
    DELIVER_FILTERED,
    FINAL_CODES,
    RECONNECT_S_MAX,
    STALL_S,
    StreamRefused,
    Watch,
)

T = TypeVar("T")
Item = TypeVar("Item")


class AsyncSession:
    """Shared by everything that hangs on one gateway, in one event loop."""

    def __init__(
        self, channel: grpc.aio.Channel, caller: Caller, *, owned: bool, commit_stream: bool
    ) -> None:
        self.caller = caller
        self._channel = channel
        self._owned = owned
        self._calls: dict[str, Any] = {method: channel.unary_unary(method) for method in METHODS}
        self._commit_stream = commit_stream and caller.signer is not None
        self._watchers: dict[str, AsyncWatcher] = {}
        self._closed = False

    async def drive(self, flow: Flow[T]) -> T:
        """Carry a flow out."""
        result: Any = None
        failure: Exception | None = None
        while True:
            try:
                effect = flow.throw(failure) if failure is not None else flow.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            result, failure = None, None
            try:
                result = await self._perform(effect)
            except (CallFailed, TimeoutError) as error:
                failure = error

    def events(self, feed: Feed[Item], signature: bytes | None, reconnect_s: float) -> AsyncEvents[Item]:
        return AsyncEvents(self, feed, signature, reconnect_s)

    async def sign(self, message: bytes, made_by: str) -> bytes:
        return await self.drive(self.caller.sign(message, made_by))

    def open_stream(self, method: str, request: bytes, one_request: bool) -> Any:
        self._check_open()
        channel: Any = self._channel
        return (
            channel.unary_stream(method)(request) if one_request else channel.stream_stream(method)([request])
        )

    async def close(self) -> None:
        self._closed = True
        watchers, self._watchers = list(self._watchers.values()), {}
        for watcher in watchers:
            await watcher.close()
        if self._owned:
            await self._channel.close()

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return await self._call(effect)
        if isinstance(effect, Sign):
            assert self.caller.signer is not None
            signature = self.caller.signer(effect.digest)
            return await signature if isawaitable(signature) else signature
        if isinstance(effect, Wait):
            return await _wait(effect)
        if isinstance(effect, Track):
            return await self._track(effect)
        return await asyncio.sleep(effect.seconds)

    async def _call(self, effect: Call) -> bytes:
        self._check_open()
        since = self.caller.clock()
        try:
            response: bytes = await self._calls[effect.method](effect.request, timeout=effect.timeout_s)
        except grpc.RpcError as error:
            spent_s = self.caller.clock() - since
            raise CallFailed(on_time(failure_of(error), spent_s, effect.timeout_s)) from error
        return response

    async def _track(self, effect: Track) -> AsyncWaiter | None:
        if not self._commit_stream:
            return None
        self._check_open()
        watcher = self._watchers.get(effect.channel)
        if watcher is None:
            watcher = self._watchers[effect.channel] = AsyncWatcher(self, effect.channel)
        return await watcher.look_out_for(effect.transaction_id, effect.timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise FabricError("this gateway is closed")


class AsyncWaiter:
    """Somebody's interest in one transaction."""

    __slots__ = ("__weakref__", "answer", "watcher")

    def __init__(self, watcher: AsyncWatcher) -> None:
        self.answer: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        self.watcher = watcher

    def tell(self, verdict: Verdict | None) -> None:
        if not self.answer.done():
            self.answer.set_result(verdict)


class AsyncWatcher:
    """The task that reads one channel's filtered blocks and tells those who wait."""

    def __init__(self, session: AsyncSession, channel: str) -> None:
        self._session = session
        self._watch: Watch[AsyncWaiter] = Watch(channel)
        self._begun = asyncio.Event()
        self._lost = False
        self._stream: Any = None
        self.last_news = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"commits of {channel}")

    async def look_out_for(self, transaction_id: str, timeout_s: float) -> AsyncWaiter | None:
        """A waiter, if the stream is sure to show the transaction."""
        if not self._begun.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._begun.wait(), timeout_s)
        if self._lost or not self._begun.is_set():
            return None
        waiter = AsyncWaiter(self)
        self._watch.add(transaction_id, waiter)
        return waiter

    def restart(self) -> None:
        """Open the stream anew, where it has come to."""
        self.last_news = time.monotonic()
        if self._stream is not None:
            self._stream.cancel()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        try:
            await self._read_on()
        finally:
            self._lost = True
            self._begun.set()
            for waiter in self._watch.waiters():
                waiter.tell(None)

    async def _read_on(self) -> None:
        """Read, and open the stream anew whenever it breaks, until the peer refuses for good."""
        wait_s = 0.02
        while True:
            before = self._watch.next_block
            try:
                await self._read()
            except StreamRefused:
                return
            except grpc.RpcError as error:
                if failure_of(error).code in FINAL_CODES:
                    return
            except asyncio.CancelledError:
                if self._task.cancelling():
                    raise
                # else it was the stream that was cancelled, by restart()
            except Exception:  # whoever waits then asks the peer instead
                return
            wait_s = 0.02 if self._watch.next_block != before else min(RECONNECT_S_MAX, wait_s * 2)
            await asyncio.sleep(wait_s)

    async def _read(self) -> None:
        request = self._watch.request(self._session.caller)
        signed = messages.envelope(request, await self._session.sign(request, "connect(signer=)"))
        self._stream = self._session.open_stream(DELIVER_FILTERED, signed, one_request=False)
        try:
            async for response in self._stream:
                for waiter, verdict in self._watch.take(response):
                    waiter.tell(verdict)
                self.last_news = time.monotonic()
                self._begun.set()
        finally:
            self._stream.cancel()


class AsyncEvents(AsyncIterator[Item]):
    """A stream of events: iterate over it, and close it (or use it with ``async with``)."""

    def __init__(
        self, session: AsyncSession, feed: Feed[Item], signature: bytes | None, reconnect_s: float
    ) -> None:
        self._session = session
        self._feed = feed
        self._signature = signature
        self._reconnect_s = reconnect_s
        self._stream: Any = None
        self._closed = asyncio.Event()
        self._items = self._read()

    def __aiter__(self) -> AsyncEvents[Item]:
        return self

    async def __anext__(self) -> Item:
        return await anext(self._items)

    async def __aenter__(self) -> AsyncEvents[Item]:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; an iteration in another task ends too."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    async def _read(self) -> AsyncIterator[Item]:
        whole_since, pause = time.monotonic(), pauses()
        while not self._closed.is_set():
            try:
                async for response in await self._open():
                    whole_since, pause = time.monotonic(), pauses()
                    for item in self._feed.read(response):
                        yield item
            except grpc.RpcError as error:
                found = stream_error(self._session.caller, failure_of(error))
                found.__cause__ = error
            except GatewayError as error:
                found = error
                for doubt in self._session.caller.doubts():
                    found.add(doubt)
            except asyncio.CancelledError:
                if not self._closed.is_set():
                    raise
                return  # the stream was cancelled by close(), not this task
            else:
                return  # the peer has given all that was asked for
            if self._closed.is_set():
                return
            if not goes_on(found, self._feed, time.monotonic() - whole_since, self._reconnect_s):
                raise found
            await asyncio.sleep(pause())

    async def _open(self) -> Any:
        request = self._feed.request(self._session.caller)
        signature = self._signature or await self._session.sign(request, "a new_signed_…_request")
        message = self._feed.signed(request, signature)
        self._stream = self._session.open_stream(self._feed.method, message, self._feed.one_request)
        if self._closed.is_set():  # meanwhile
            self._stream.cancel()
        return self._stream


async def _wait(effect: Wait) -> Verdict | None:
    """Wait for the answer; while nothing at all comes, have the stream opened anew now and then."""
    waiter: AsyncWaiter = effect.waiter
    until = time.monotonic() + effect.timeout_s
    while not waiter.answer.done():
        left_s = until - time.monotonic()
        done, _ = await asyncio.wait((waiter.answer,), timeout=max(0.0, min(left_s, STALL_S)))
        if done:
            break
        if left_s <= STALL_S:
            raise TimeoutError
        if time.monotonic() - waiter.watcher.last_news >= STALL_S:
            waiter.watcher.restart()
    return waiter.answer.result()

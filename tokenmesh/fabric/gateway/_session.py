"""One connection to a peer, for threads: carries out what flows ask for, and reads streams."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
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
Answer = Future[Verdict | None]


class Session:
    """Shared by everything that hangs on one gateway. Safe to use from many threads."""

    def __init__(self, channel: grpc.Channel, caller: Caller, *, owned: bool, commit_stream: bool) -> None:
        self.caller = caller
        self._channel = channel
        self._owned = owned
        self._calls: dict[str, Any] = {method: channel.unary_unary(method) for method in METHODS}
        self._commit_stream = commit_stream and caller.signer is not None
        self._lock = threading.Lock()
        self._watchers: dict[str, Watcher] = {}
        self._closed = False

    def drive(self, flow: Flow[T]) -> T:
        """Carry a flow out, in this thread."""
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
                result = self._perform(effect)
            except (CallFailed, TimeoutError) as error:
                failure = error

    def events(self, feed: Feed[Item], signature: bytes | None, reconnect_s: float) -> Events[Item]:
        return Events(self, feed, signature, reconnect_s)

    def sign(self, message: bytes, made_by: str) -> bytes:
        return self.drive(self.caller.sign(message, made_by))

    def open_stream(self, method: str, request: bytes, one_request: bool) -> Any:
        self._check_open()
        channel: Any = self._channel
        return (
            channel.unary_stream(method)(request)
            if one_request
            else channel.stream_stream(method)(iter([request]))
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            watchers, self._watchers = list(self._watchers.values()), {}
        for watcher in watchers:
            watcher.close()
        if self._owned:
            self._channel.close()

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Call):
            return self._call(effect)
        if isinstance(effect, Sign):
            assert self.caller.signer is not None
            return self.caller.signer(effect.digest)
        if isinstance(effect, Wait):
            return _wait(effect)
        if isinstance(effect, Track):
            return self._track(effect)
        time.sleep(effect.seconds)
        return None

    def _call(self, effect: Call) -> bytes:
        self._check_open()
        since = self.caller.clock()
        try:
            response: bytes = self._calls[effect.method](effect.request, timeout=effect.timeout_s)
        except grpc.RpcError as error:
            spent_s = self.caller.clock() - since
            raise CallFailed(on_time(failure_of(error), spent_s, effect.timeout_s)) from error
        return response

    def _track(self, effect: Track) -> Waiter | None:
        if not self._commit_stream:
            return None
        watcher = self._watchers.get(effect.channel)
        if watcher is None:
            with self._lock:
                self._check_open()
                watcher = self._watchers.get(effect.channel)
                if watcher is None:
                    watcher = self._watchers[effect.channel] = Watcher(self, effect.channel)
        return watcher.look_out_for(effect.transaction_id, effect.timeout_s)

    def _check_open(self) -> None:
        if self._closed:
            raise FabricError("this gateway is closed")


class Waiter:
    """Somebody's interest in one transaction."""

    __slots__ = ("__weakref__", "answer", "watcher")

    def __init__(self, watcher: Watcher) -> None:
        self.answer: Answer = Future()
        self.watcher = watcher


class Watcher:
    """The thread that reads one channel's filtered blocks and tells those who wait."""

    def __init__(self, session: Session, channel: str) -> None:
        self._session = session
        self._watch: Watch[Waiter] = Watch(channel)
        self._begun = threading.Event()
        self._closing = threading.Event()
        self._lost = False
        self._stream: Any = None
        self.last_news = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"commits of {channel}", daemon=True)
        self._thread.start()

    def look_out_for(self, transaction_id: str, timeout_s: float) -> Waiter | None:
        """A waiter, if the stream is sure to show the transaction."""
        if not self._begun.wait(timeout_s) or self._lost:
            return None
        waiter = Waiter(self)
        self._watch.add(transaction_id, waiter)
        return None if self._lost else waiter  # it may have been lost meanwhile, and tell nobody any more

    def restart(self) -> None:
        """Open the stream anew, where it has come to."""
        self.last_news = time.monotonic()
        if self._stream is not None:
            self._stream.cancel()

    def close(self) -> None:
        self._closing.set()
        self.restart()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        wait_s = 0.02
        while not self._closing.is_set():
            before = self._watch.next_block
            try:
                self._read()
            except StreamRefused:
                break
            except grpc.RpcError as error:
                if failure_of(error).code in FINAL_CODES:
                    break
            except Exception:  # whoever waits then asks the peer instead
                break
            wait_s = 0.02 if self._watch.next_block != before else min(RECONNECT_S_MAX, wait_s * 2)
            self._closing.wait(wait_s)
        self._lost = True
        self._begun.set()
        for waiter in self._watch.waiters():
            with contextlib.suppress(Exception):
                waiter.answer.set_result(None)

    def _read(self) -> None:
        request = self._watch.request(self._session.caller)
        signed = messages.envelope(request, self._session.sign(request, "connect(signer=)"))
        self._stream = self._session.open_stream(DELIVER_FILTERED, signed, one_request=False)
        for response in self._stream:
            for waiter, verdict in self._watch.take(response):
                waiter.answer.set_result(verdict)
            self.last_news = time.monotonic()
            self._begun.set()
            if self._closing.is_set():
                self._stream.cancel()
                return


class Events(Iterator[Item]):
    """A stream of events: iterate over it, and close it (or use it with ``with``)."""

    def __init__(
        self, session: Session, feed: Feed[Item], signature: bytes | None, reconnect_s: float
    ) -> None:
        self._session = session
        self._feed = feed
        self._signature = signature
        self._reconnect_s = reconnect_s
        self._stream: Any = None
        self._closed = threading.Event()
        self._items = self._read()

    def __iter__(self) -> Events[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._items)

    def __enter__(self) -> Events[Item]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; an iteration in another thread ends too."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def _read(self) -> Iterator[Item]:
        whole_since, pause = time.monotonic(), pauses()
        while not self._closed.is_set():
            try:
                for response in self._open():
                    whole_since, pause = time.monotonic(), pauses()
                    yield from self._feed.read(response)
            except grpc.RpcError as error:
                found = stream_error(self._session.caller, failure_of(error))
                found.__cause__ = error
            except GatewayError as error:
                found = error
                for doubt in self._session.caller.doubts():
                    found.add(doubt)
            else:
                return  # the peer has given all that was asked for
            if self._closed.is_set():
                return
            if not goes_on(found, self._feed, time.monotonic() - whole_since, self._reconnect_s):
                raise found
            self._closed.wait(pause())

    def _open(self) -> Any:
        request = self._feed.request(self._session.caller)
        signature = self._signature or self._session.sign(request, "a new_signed_…_request")
        message = self._feed.signed(request, signature)
        self._stream = self._session.open_stream(self._feed.method, message, self._feed.one_request)
        if self._closed.is_set():  # meanwhile
            self._stream.cancel()
        return self._stream


def _wait(effect: Wait) -> Verdict | None:
    """Wait for the answer; while nothing at all comes, have the stream opened anew now and then."""
    waiter: Waiter = effect.waiter
    until = time.monotonic() + effect.timeout_s
    while True:
        left_s = until - time.monotonic()
        try:
            return waiter.answer.result(max(0.0, min(left_s, STALL_S)))
        except TimeoutError:
            if left_s <= STALL_S:
                raise
            if time.monotonic() - waiter.watcher.last_news >= STALL_S:
                waiter.watcher.restart()

"""What every client shares: steps are carried out, and closed, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from tokenmesh.clients import base
from tokenmesh.clients.base import adrive, drive
from tokenmesh.clients.options import belongs, key_of
from tokenmesh.consumer import Ask, InResponse, ReadBody, Send
from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.steps import Sleep, Steps

RESPONSE = InResponse(200, {}, b"", None)


class Recorder:
    """Steps that yield what they are told to, and note what they get."""

    def __init__(self, *effects: Any) -> None:
        self.effects = effects
        self.got: list[Any] = []
        self.closed = False

    def steps(self) -> Steps[str]:
        try:
            for effect in self.effects:
                try:
                    self.got.append((yield effect))
                except Exception as error:
                    self.got.append(error)
            return "done"
        finally:
            self.closed = True


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def carry_out(recorder: Recorder, is_async: bool, send: Any = lambda effect: RESPONSE) -> str:
    """Drive steps in one of the two ways."""
    if not is_async:
        return drive(recorder.steps(), send, lambda: b"body")

    async def asend(effect: Any) -> InResponse:
        response: InResponse = send(effect)
        return response

    async def read_body() -> bytes:
        return b"body"

    return asyncio.run(adrive(recorder.steps(), asend, read_body))


@pytest.mark.parametrize("is_async", [False, True])
def test_every_effect_is_carried_out(is_async: bool) -> None:
    """Requests, the mesh's own questions, the body, futures and sleeps."""
    recorder = Recorder(Send(None), Ask("http://x"), ReadBody(), done(7), Sleep(0))
    assert carry_out(recorder, is_async) == "done"
    assert recorder.got == [RESPONSE, RESPONSE, b"body", 7, None]
    assert recorder.closed


@pytest.mark.parametrize("is_async", [False, True])
def test_errors_go_into_the_steps(is_async: bool) -> None:
    """They decide what an error means; the driver does not."""

    def send(effect: Any) -> InResponse:
        raise ConnectionError("reset")

    failed: Future[Any] = Future()
    failed.set_exception(KeyError("no"))
    recorder = Recorder(Send(None), failed)
    assert carry_out(recorder, is_async, send) == "done"
    assert [type(error) for error in recorder.got] == [ConnectionError, KeyError]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_silent_ledger_is_not_waited_for_for_ever(is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its limit the answer is unknown."""
    monkeypatch.setattr(base, "WAIT_S_MAX", 0.01)
    recorder = Recorder(Future())
    assert carry_out(recorder, is_async) == "done"
    assert isinstance(recorder.got[0], LedgerOutcomeUnknown)


def test_an_interrupted_call_closes_its_steps() -> None:
    """Ctrl-C while a request is under way: what was out is given back."""

    def send(effect: Any) -> InResponse:
        raise KeyboardInterrupt

    recorder = Recorder(Send(None))
    with pytest.raises(KeyboardInterrupt):
        carry_out(recorder, False, send)
    assert recorder.closed
    assert recorder.got == []


def test_a_cancelled_task_closes_its_steps_and_leaves_shared_futures_alone() -> None:
    """Others wait for the same future: it is not cancelled with the task."""
    recorder, shared = Recorder(Future()), Future[Any]()
    recorder.effects = (shared,)

    async def main() -> None:
        async def never(effect: Any) -> InResponse:
            raise AssertionError

        async def read_body() -> bytes:
            return b""

        task = asyncio.create_task(adrive(recorder.steps(), never, read_body))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert recorder.closed
    assert not shared.cancelled()
    shared.set_result(1)


@pytest.mark.parametrize(
    ("url", "base_url", "ours"),
    [
        ("http://a:8000/x", "http://a:8000", True),
        ("http://a:8000", "http://a:8000", True),
        ("http://a:8000?x=1", "http://a:8000", True),
        ("http://A:8000/x", "http://a:8000", True),
        ("http://a/x", "http://a:80", True),
        ("https://a:443/x", "https://a", True),
        ("http://a:8000/b/x", "http://a:8000/b", True),
        ("http://a:8000/bc/x", "http://a:8000/b", False),
        ("http://a:8001/x", "http://a:8000", False),
        ("http://a:8000@evil/x", "http://a:8000", False),
        ("http://a.evil/x", "http://a", False),
        ("https://a:8000/x", "http://a:8000", False),
        ("http://b:8000/x", "http://a:8000", False),
    ],
)
def test_contracts_go_to_their_service_only(url: str, base_url: str, ours: bool) -> None:
    """Whatever looks like it: another port, host, scheme, prefix or user name."""
    assert belongs(url, base_url) is ours


def test_a_redirect_has_a_key_of_its_own() -> None:
    """The same each time, and another one than that of the request it came from."""
    first = ("GET", "http://a/x")
    assert key_of("k", first, *first) == "k"
    hop = key_of("k", first, "GET", "http://a/y")
    assert hop not in (None, "k")
    assert hop == key_of("k", first, "GET", "http://a/y")
    assert key_of(None, first, "GET", "http://a/y") is None

"""What every client shares: carrying out what a call's steps ask for, blocking or awaiting.

A client brings two functions: ``send`` carries out a :class:`Send` and raises :class:`TransportFailed` if no
response came; ``read_body`` gives the whole body of the caller's request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tokenmesh.consumer import InResponse, ReadBody, Send
from tokenmesh.errors import LedgerOutcomeUnknown
from tokenmesh.steps import Steps, Within, arun, run

T = TypeVar("T")

WAIT_S_MAX = 60.0
"""The longest wait of one call for an answer of the ledger, whatever else may be wrong with it."""


def drive(steps: Steps[T], send: Callable[[Send], InResponse], read_body: Callable[[], bytes]) -> T:
    """Carry ``steps`` out on this thread. Whatever happens, they are closed: they give back what is out."""

    def carry_out(effect: Any) -> Any:
        if isinstance(effect, Send):
            return send(effect)
        if isinstance(effect, ReadBody):
            return read_body()
        return run(waiting(effect))

    try:
        effect = next(steps)
        while True:
            try:
                result = carry_out(effect)
            except Exception as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


async def adrive(
    steps: Steps[T],
    send: Callable[[Send], Awaitable[InResponse]],
    read_body: Callable[[], Awaitable[bytes]],
) -> T:
    """Carry ``steps`` out on this event loop; a cancelled task closes them too."""

    async def carry_out(effect: Any) -> Any:
        if isinstance(effect, Send):
            return await send(effect)
        if isinstance(effect, ReadBody):
            return await read_body()
        return await arun(waiting(effect))

    try:
        effect = next(steps)
        while True:
            try:
                result = await carry_out(effect)
            except Exception as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


def waiting(effect: Any) -> Steps[Any]:
    """One wait, within its limit. A ledger that is silent for so long has an unknown answer."""
    if isinstance(effect, Future):
        if effect.done():
            return effect.result()
        effect = Within(effect, WAIT_S_MAX)
    try:
        return (yield effect)
    except TimeoutError as error:
        raise LedgerOutcomeUnknown(f"the ledger gave no answer within {WAIT_S_MAX:g} s") from error

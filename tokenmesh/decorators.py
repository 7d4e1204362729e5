"""``@priced``: a handler that costs tokens; with :func:`charge` and :func:`current_contract` for its inside.

``@calls``, for those who call one, is in :mod:`tokenmesh.calling`.

Thin on purpose. The decorated function asks the framework's adapter for the exchange of the request that it
serves, has it begin (check, claim), and runs the handler. Everything else is the adapter's and the
provider's. Adapters are entry points of ``tokenmesh.frameworks``, named as the framework's package is; they
are installed when both that package and the first ``priced(...)`` are there.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import wrapt

from tokenmesh.calling import calls
from tokenmesh.errors import JournalError, LedgerError, ServingError
from tokenmesh.provider.exchange import Exchange, current
from tokenmesh.provider.problems import Answered, Problem, Refused
from tokenmesh.provider.terms import Request, Terms, Via
from tokenmesh.provider.views import MARK, VIEWS
from tokenmesh.steps import arun, run
from tokenmesh.telemetry import FulfilWatch
from tokenmesh_chaincode.documents import Contract

if TYPE_CHECKING:
    from tokenmesh.provider import AnyProvider

__all__ = ["Handler", "HasProvider", "calls", "charge", "current_contract", "priced"]

F = TypeVar("F", bound=Callable[..., Any])

FRAMEWORKS = "tokenmesh.frameworks"


class HasProvider(Protocol):
    """What ``mesh=`` must be: a :class:`tokenmesh.Mesh`, or anything with its ``provider``."""

    @property
    def provider(self) -> AnyProvider: ...


class Handler:
    """One priced function: its terms, and whose provider takes its contracts."""

    def __init__(self, name: str, terms: Terms, mesh: HasProvider | None) -> None:
        self.name = name
        self.terms = terms
        self.mesh = mesh
        self.served = False

    def provider(self) -> AnyProvider:
        """The provider of its mesh, opened now if it must be; ``Answered`` (503) if it cannot be now."""
        try:
            if self.mesh is not None:
                return self.mesh.provider
            from tokenmesh.mesh import default_mesh

            return default_mesh().provider
        except LedgerError as error:
            raise Refused(Problem("ledger_unavailable", f"{error}.")) from error
        except JournalError as error:
            raise Refused(Problem("journal_unavailable", f"{error}.")) from error


def priced(
    tokens: int | Callable[[Request], int] | None = None,
    *,
    up_to: int | None = None,
    operation: str | None = None,
    via: Via = "allowance",
    fulfilled_when: Callable[[Any], object] | None = None,
    exempt_when: Callable[[Request], object] | None = None,
    private: bool = False,
    mesh: HasProvider | None = None,
) -> Callable[[F], F]:
    """Make a handler cost tokens. Stands directly above it, below the route's decorator::

        @app.get("/quote/{symbol}")
        @priced(tokens=5)
        def quote(symbol: str): ...

    ``tokens``: the price, or a function that gives it for a :class:`tokenmesh.provider.Request`; 0 is free.
    ``up_to``: the most that :func:`charge` may say; without ``tokens`` it is also what is charged if the
    handler says nothing. ``operation``: its name in offers, contracts and policy, instead of method and path.
    ``via="hold"``: each call is paid by a hold of its own; an allowance is not accepted.
    ``fulfilled_when``: given the framework's response, whether the work counts as done; a status of 400 and
    over never does. ``exempt_when``: given the request, whether it is free. ``private``: its contracts
    say in public who pays how much, and not for what. ``mesh``: whose wallet earns; left out, that of the
    environment (``TOKENMESH_SERVICE``).

    Sync and async functions, generators, methods, and the functions of class-based views. Raises
    :class:`ServingError` for terms that cannot be right, and for a function that is a route already.
    """
    terms = Terms(tokens, up_to, operation, via, fulfilled_when, exempt_when, private).check()
    _activate()
    since = VIEWS.now()

    def decorate(function: F) -> F:
        if isinstance(function, (staticmethod, classmethod)):
            return cast("F", type(function)(decorate(function.__func__)))
        if inspect.isclass(function) or not callable(function):
            raise ServingError(f"priced() stands above a handler, not above {function!r}: above its methods")
        if getattr(function, MARK, None) is not None:
            raise ServingError(f"{function!r} is priced twice")
        handler = Handler(getattr(function, "__qualname__", repr(function)), terms, mesh)
        VIEWS.price(function, handler, since)
        return cast("F", _wrapped(function, handler))

    return decorate


def charge(tokens: int) -> None:
    """Say, inside a priced handler, what is really owed: from 0 to ``up_to`` (or ``tokens``). The last word
    counts. Nothing happens in a call that is free.

    Raises :class:`ServingError` for any other number, and outside of a priced handler.
    """
    _current().charge(tokens)


def current_contract() -> Contract | None:
    """The contract that pays for the running handler; None in a call that is free.

    Raises :class:`ServingError` outside of a priced handler.
    """
    call = _current().call
    return None if call is None else call.contract


def _current() -> Exchange:
    exchange = current.get()
    if exchange is None:
        raise ServingError(
            "there is no priced call here: charge() and current_contract() belong into its handler"
        )
    return exchange


# Frameworks

_openers: list[Callable[[Handler], Exchange | None]] = []
_activation = threading.Lock()
_activated = False


def _activate() -> None:
    """Have every framework's adapter installed as soon as the framework is imported; once."""
    global _activated  # noqa: PLW0603 - hooks into imports are the process's, and so is this
    with _activation:
        if _activated:
            return
        _activated = True
    for entry in entry_points(group=FRAMEWORKS):
        wrapt.register_post_import_hook(functools.partial(_install, entry), entry.name)


def _install(entry: EntryPoint, _module: object) -> None:
    framework = entry.load()()
    framework.install()
    if framework.exchange is not None:
        _openers.append(framework.exchange)


def _enter(handler: Handler) -> Exchange:
    """The exchange of the request that this handler serves just now."""
    exchange = current.get()
    if exchange is not None and exchange.handler is handler:
        return exchange
    for opener in _openers:
        opened = opener(handler)
        if opened is not None:
            return opened
    raise ServingError(
        f"{handler.name} is priced, and no request to it is being served here. Call it through a route of "
        "Flask or FastAPI; what is to be free as well goes into a function of its own"
    )


# The decorated function, in its four kinds

# Whatever ``leave`` gives has what was answered as its context. It is not raised *from* that: an adapter that
# needs no exception of its own gives back the very same, and one that is its own cause is a ring, which stays
# in memory, with every frame that it came through, until the garbage collector comes by.


def _begin(exchange: Exchange) -> None:
    try:
        rest = exchange.begin()
        if rest is not None:
            run(rest)
    except Answered as answered:
        raise exchange.leave(answered)  # noqa: B904


async def _abegin(exchange: Exchange) -> None:
    try:
        rest = exchange.begin()
        if rest is not None:
            await arun(rest)
    except Answered as answered:
        raise exchange.leave(answered)  # noqa: B904


def _wrapped(function: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    call = getattr(function, "__call__", None)  # noqa: B004 - its kind matters, not whether it is there
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        wrapper = _coroutine(function, handler)
    elif inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(call):
        wrapper = _async_generator(function, handler)
    elif inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(call):
        wrapper = _generator(function, handler)
    else:
        wrapper = _function(function, handler)
    # With the handler's globals: whoever reads annotations that are text (FastAPI before 0.120) looks for
    # the names in the globals of the function it was given. So wrappers use no globals of their own.
    names = getattr(inspect.unwrap(function), "__globals__", None)
    if names is not None:
        plain = cast("FunctionType", wrapper)
        wrapper = FunctionType(plain.__code__, names, plain.__name__, plain.__defaults__, plain.__closure__)
    functools.update_wrapper(wrapper, function)
    setattr(wrapper, MARK, handler)
    return wrapper


def _function(function: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    enter, begin, var, awaited, coroutine = _enter, _begin, current, _awaited, CoroutineType

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        exchange = enter(handler)
        token = var.set(exchange)
        watch = None
        try:
            begin(exchange)
            watch = exchange.watch
            if watch is not None:
                watch.enter()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                exchange.fail(error)
                raise
        finally:
            var.reset(token)
            if watch is not None:
                watch.leave()
        return awaited(exchange, result) if type(result) is coroutine else result

    return wrapper


async def _awaited(exchange: Exchange, result: Awaitable[Any]) -> Any:
    """A coroutine that a plain function gave: it is still the handler."""
    watch = exchange.watch
    if watch is not None:
        watch.enter()
    try:
        return await result
    except BaseException as error:
        exchange.fail(error)
        raise
    finally:
        if watch is not None:
            watch.leave()


def _coroutine(function: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    enter, begin, var = _enter, _abegin, current

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        exchange = enter(handler)
        token = var.set(exchange)
        watch = None
        try:
            await begin(exchange)
            watch = exchange.watch
            if watch is not None:
                watch.enter()
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                exchange.fail(error)
                raise
        finally:
            var.reset(token)
            if watch is not None:
                watch.leave()

    return wrapper


def _generator(function: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    enter, begin, late = _enter, _begin, _late

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        exchange = enter(handler)
        if exchange.deferred:
            return late(exchange, function(*args, **kwargs))
        begin(exchange)
        return function(*args, **kwargs)

    return wrapper


def _late(exchange: Exchange, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """A generator that begins with its first item: the adapter holds the response back until then."""
    with contextlib.closing(generator):
        _begin(exchange)
        try:
            if exchange.watch is None:
                return (yield from generator)
            yield from _watched(exchange.watch, generator)
        except Exception as error:
            exchange.fail(error)
            raise


def _watched(watch: FulfilWatch, generator: Generator[Any, Any, Any]) -> Iterator[Any]:
    """A generator's items, its span the current one while it makes one, and no longer: between two of them
    other code runs here, and the next may be asked for in another context."""
    while True:
        watch.enter()
        try:
            item = next(generator)
        except StopIteration:
            return
        finally:
            watch.leave()
        yield item


def _async_generator(function: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    enter, late = _enter, _alate

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return late(enter(handler), function(*args, **kwargs))

    return wrapper


async def _alate(exchange: Exchange, generator: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with contextlib.aclosing(generator):
        await _abegin(exchange)
        try:
            if exchange.watch is None:
                async for item in generator:
                    yield item
            else:
                async for item in _awatched(exchange.watch, generator):
                    yield item
        except Exception as error:
            exchange.fail(error)
            raise


async def _awatched(watch: FulfilWatch, generator: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The same for an async one."""
    while True:
        watch.enter()
        try:
            item = await anext(generator)
        except StopAsyncIteration:
            return
        finally:
            watch.leave()
        yield item

"""``@calls``: a function that gets a paying client for a service, and whose callers need not know.

Clients are made when they are first needed, kept by mesh, service and options, and closed with the mesh. An
``AsyncClient`` belongs to the event loop it is used in: there is one for each, closed when its loop shuts
down.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

import wrapt

from tokenmesh.retry import Policy
from tokenmesh.steps import arun

if TYPE_CHECKING:
    import httpx
    import tenacity

    from tokenmesh.mesh import Mesh

    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper[..., Any]
    _CallableProxy = wrapt.CallableObjectProxy[Any]
else:
    _FunctionWrapper = wrapt.FunctionWrapper
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper
    _CallableProxy = wrapt.CallableObjectProxy

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

CLOSE_S_MAX = 5.0
"""How long closing a mesh waits for the async clients of one event loop in another thread."""


class Decorator(Protocol):
    """What :func:`calls` gives: it takes the service's client away from a function's signature."""

    @overload
    def __call__(self, function: Callable[Concatenate[httpx.Client, P], R], /) -> Callable[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[httpx.AsyncClient, P], R], /) -> Callable[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, httpx.Client, P], R], /
    ) -> Callable[Concatenate[S, P], R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, httpx.AsyncClient, P], R], /
    ) -> Callable[Concatenate[S, P], R]: ...


class Options(NamedTuple):
    """What one ``calls(...)`` asks of its client. Two that ask for the same share it."""

    service: str
    max_tokens: int | None
    via: Literal["allowance", "hold"] | None
    retry: Policy | tenacity.BaseRetrying | None
    timeout: Any
    url: str | None
    private: bool

    @property
    def key(self) -> tuple[Any, ...]:
        return (*self[:3], id(self.retry), repr(self.timeout), self.url, self.private)

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``mesh.client``."""
        given: dict[str, Any] = {"max_tokens": self.max_tokens, "via": self.via, "retry": self.retry}
        given |= {"url": self.url, "private": self.private}
        if self.timeout is not None:
            given["timeout"] = self.timeout
        return given


def calls(
    service: str,
    *,
    max_tokens: int | None = None,
    via: Literal["allowance", "hold"] | None = None,
    retry: Policy | tenacity.BaseRetrying | None = None,
    timeout: Any = None,
    private: bool = False,
    mesh: Mesh | None = None,
    url: str | None = None,
) -> Decorator:
    """Give a function a client for ``service`` that signs, pays and retries, as its first argument::

        @calls("service-b", max_tokens=10)
        def get_quote(service, symbol: str) -> dict:
            return service.get(f"/quote/{symbol}").json()

        get_quote("ACME")

    The client is an ``httpx.Client``; an ``async def`` gets an ``httpx.AsyncClient``, a method gets it after
    ``self``. Callers, ``inspect.signature`` and type checkers see the function without it.

    ``max_tokens``: the most that one call may cost. ``via``: pay by ``"allowance"`` or ``"hold"`` where the
    offer leaves it open. ``retry``: a tenacity policy or a :class:`tokenmesh.retry.Policy`; left out, tries
    are bounded in number and time, with jitter, and repeat only what is safe. ``timeout``: of one try, as
    httpx takes it. ``private``: keep what is paid for between payer, payee and those who endorse, even where
    the offer does not ask for it. ``mesh``: who pays; left out, the service of the environment
    (``TOKENMESH_SERVICE``). ``url``: where the service is; left out, ``TOKENMESH_URL_…``, else what its
    wallet says on the ledger.

    The client's requests raise :class:`tokenmesh.errors.CallError`: ``NotSpent``, ``Spent`` or
    ``OutcomeUnknown``.
    """
    options = Options(service, max_tokens, via, retry, timeout, url, private)

    def decorate(function: Callable[..., Any]) -> Any:
        return CallingFunction(function, _wrapper(function, options, mesh))

    return decorate


def _wrapper(function: Callable[..., Any], options: Options, mesh: Mesh | None) -> Callable[..., Any]:
    kind = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    after_first = next(iter(inspect.signature(kind).parameters), "") in ("self", "cls")

    def call(wrapped: Any, instance: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if instance is None and after_first and wrapped is kind:
            # Bound by something that wrapt does not see (a classmethod above, from Python 3.13 on).
            return wrapped(args[0], client, *args[1:], **kwargs)
        return wrapped(client, *args, **kwargs)

    def clients() -> Clients:
        if mesh is not None:
            return clients_of(mesh)
        from tokenmesh.mesh import default_mesh

        return clients_of(default_mesh())

    def sync(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(wrapped, instance, clients().sync(options), args, kwargs)

    async def coroutine(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await call(wrapped, instance, await clients().awaited(options), args, kwargs)

    async def generator(
        wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        client = await clients().awaited(options)
        async with contextlib.aclosing(call(wrapped, instance, client, args, kwargs)) as items:
            async for item in items:
                yield item

    if inspect.isasyncgenfunction(kind):
        return generator
    return coroutine if inspect.iscoroutinefunction(kind) else sync


def _without(signature: inspect.Signature, index: int) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[:index] + parameters[index + 1 :])


class _VisibleFunction(_CallableProxy):
    """The function of a method as callers see it. ``inspect`` takes a bound method's signature from its
    ``__func__``, without the first parameter."""

    @property
    def __signature__(self) -> inspect.Signature:
        return _without(inspect.signature(self.__wrapped__), 1)


class BoundCallingFunction(_BoundFunctionWrapper):
    """A :class:`CallingFunction` reached through a class or an object."""

    @property
    def __func__(self) -> Any:
        bound: Any = self.__wrapped__
        return _VisibleFunction(bound.__func__)

    @property
    def __signature__(self) -> inspect.Signature:
        of_class = self._self_instance is None and self._self_binding != "staticmethod"
        return _without(inspect.signature(self.__wrapped__), 1 if of_class else 0)


class CallingFunction(_FunctionWrapper):
    """A function under ``@calls``."""

    __bound_function_wrapper__ = BoundCallingFunction

    @property
    def __signature__(self) -> inspect.Signature:
        # Of a method, whoever binds it takes its first parameter away as well, and two are gone.
        return _without(inspect.signature(self.__wrapped__), 0)


class Clients:
    """The clients of one mesh, in one process."""

    def __init__(self, mesh: Mesh) -> None:
        self.process = os.getpid()
        # Weakly: the mesh keeps these clients, as what it closes.
        self._mesh = weakref.ref(mesh)
        self._lock = threading.Lock()
        self._sync: dict[tuple[Any, ...], tuple[httpx.Client, Options]] = {}
        self._loops: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[tuple[Any, ...], tuple[httpx.AsyncClient, Any, Options]]
        ] = weakref.WeakKeyDictionary()
        mesh.on_close(self.close)

    def sync(self, options: Options) -> httpx.Client:
        """The client for ``options``."""
        known = self._sync.get(options.key)
        if known is None:
            with self._lock:
                known = self._sync.get(options.key)
                if known is None:
                    client: httpx.Client = self._the_mesh().client(options.service, **options.arguments())
                    known = self._sync[options.key] = client, options
        return known[0]

    async def awaited(self, options: Options) -> httpx.AsyncClient:
        """The client for ``options`` in this event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            mine = self._loops.setdefault(loop, {})
        known = mine.get(options.key)
        if known is None:
            mesh = self._the_mesh()
            consumer = mesh.domain(options.service).consumer
            url = await arun(consumer.url_of(options.service, options.url))
            known = mine.get(options.key)  # another task may have been faster
        if known is None:
            client: httpx.AsyncClient = mesh.async_client(
                options.service, **options.arguments() | {"url": url}
            )
            closer = _closed_with_loop(client)
            known = mine[options.key] = client, closer, options
            await anext(closer)
        return known[0]

    def close(self) -> None:
        """Close all clients."""
        for client, _ in self._sync.values():
            client.close()
        self._sync.clear()
        for loop, clients in list(self._loops.items()):
            _close_in(loop, [closer for _, closer, _ in clients.values()])
            clients.clear()

    def _the_mesh(self) -> Mesh:
        mesh = self._mesh()
        assert mesh is not None
        return mesh


async def _closed_with_loop(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Closes the client when its loop shuts its asynchronous generators down, as ``asyncio.run`` does."""
    try:
        yield
    finally:
        await client.aclose()


def _close_in(loop: asyncio.AbstractEventLoop, closers: list[Any]) -> None:
    async def close() -> None:
        for closer in closers:
            await closer.aclose()

    if loop.is_closed() or not closers:
        return
    try:
        current = asyncio.get_running_loop()
    except RuntimeError:
        current = None
    if loop is current:
        _closing.add(task := loop.create_task(close()))
        task.add_done_callback(_closing.discard)
    elif loop.is_running():
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(close(), loop).result(CLOSE_S_MAX)
    elif current is None:
        loop.run_until_complete(close())


_closing: set[asyncio.Task[None]] = set()
"""Closing under way in a loop that runs: it keeps tasks weakly."""
_clients: weakref.WeakKeyDictionary[Mesh, Clients] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def clients_of(mesh: Mesh) -> Clients:
    """The clients of ``mesh``. A forked process has its own: connections are not shared."""
    clients = _clients.get(mesh)
    if clients is None or clients.process != os.getpid():
        with _lock:
            clients = _clients.get(mesh)
            if clients is None or clients.process != os.getpid():
                clients = _clients[mesh] = Clients(mesh)
    return clients


def _forked() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it when the parent forked
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)

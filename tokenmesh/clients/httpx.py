"""httpx clients bound to a service: normal in all else, they sign, pay and retry. httpx2 works as well.

``client`` and ``async_client`` give an ``httpx.Client`` or ``httpx.AsyncClient`` whose ``base_url`` is the
service's url; ``auth`` gives an ``httpx.Auth`` for a client of your own.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from tokenmesh.clients.httpx_auth import auth
from tokenmesh.clients.httpx_transport import FIRST, KEY, STREAMED, Link, async_paying, paying
from tokenmesh.clients.options import Retry, Via, call_options
from tokenmesh.errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from tokenmesh.mesh import Mesh

    _Client = httpx.Client
    _AsyncClient = httpx.AsyncClient
else:
    _Client = _AsyncClient = object

__all__ = ["async_client", "auth", "client"]

LIBRARIES = ("httpx", "httpx2")
Library = Literal["httpx", "httpx2"]


def client(
    mesh: Mesh,
    service: str,
    *,
    url: str | None = None,
    max_tokens: int | None = None,
    via: Via | None = None,
    retry: Retry | None = None,
    private: bool = False,
    library: Library | None = None,
    **options: Any,
) -> httpx.Client:
    """An ``httpx.Client`` for ``service``.

    ``max_tokens``: the most that one call may cost. ``via``: pay by ``"allowance"`` or ``"hold"`` where the
    offer leaves it open. ``retry``: a tenacity policy or a :class:`tokenmesh.retry.Policy`. ``private``:
    let the ledger's readers see who pays how much, and not for what, even if the offer does not ask for it.
    ``library``: ``"httpx2"`` for a client of that library, which a transport of its own implies. ``url``:
    where the service is, else ``TOKENMESH_URL_…``, else its wallet's url. All other ``options`` are the
    library's.

    Requests take ``idempotency_key="order-17"``: the same key is the same contract, also after a restart.
    ``response.extensions["tokenmesh"]`` is the :class:`tokenmesh.consumer.CallInfo`. Raises
    :class:`ConfigError`, :class:`Unreachable`; requests raise :class:`CallError`.
    """
    name = _library(library, options.get("transport"))
    link = _link(mesh, service, name, options, url, max_tokens, via, retry, private)
    made: httpx.Client = _classes(name)[0](link, **options)
    return made


def async_client(
    mesh: Mesh,
    service: str,
    *,
    url: str | None = None,
    max_tokens: int | None = None,
    via: Via | None = None,
    retry: Retry | None = None,
    private: bool = False,
    library: Library | None = None,
    **options: Any,
) -> httpx.AsyncClient:
    """An ``httpx.AsyncClient`` for ``service``; see :func:`client`."""
    name = _library(library, options.get("transport"))
    link = _link(mesh, service, name, options, url, max_tokens, via, retry, private)
    made: httpx.AsyncClient = _classes(name)[1](link, **options)
    return made


def _link(
    mesh: Mesh,
    service: str,
    library: str,
    options: dict[str, Any],
    url: str | None,
    max_tokens: int | None,
    via: Via | None,
    retry: Retry | None,
    private: bool,
) -> Link:
    """What the client shares with its requests; ``options`` get what the library should be told."""
    if "base_url" in options:
        raise ConfigError("give url='http://...' rather than base_url: contracts go to that service only")
    call = call_options(mesh, service, url, max_tokens, via, retry, private)
    options["base_url"] = call.url
    options.setdefault("timeout", mesh.settings.timeout_s)
    if "cert" not in options and "transport" not in options and options.get("trust_env", True):
        options.setdefault("verify", _ssl_context(library))
    return Link(import_module(library), mesh.domain(service).consumer, service, call)


def _library(wanted: Library | None, transport: Any) -> str:
    if wanted is not None:
        if wanted not in LIBRARIES:
            raise ConfigError(f"library is {wanted!r}: it must be one of {', '.join(LIBRARIES)}")
        return wanted
    roots = {kind.__module__.partition(".")[0] for kind in type(transport).__mro__}
    return "httpx2" if "httpx2" in roots else "httpx"


@cache
def _ssl_context(library: str) -> ssl.SSLContext:
    """The library's own default, made once: it takes longer than many calls."""
    context: ssl.SSLContext = import_module(library).create_ssl_context()
    return context


def _with_key(options: dict[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        return options
    return {**options, "extensions": {**(options.get("extensions") or {}), KEY: key}}


def _note(request: httpx.Request, *, stream: bool) -> None:
    """Tell the transport what it cannot see: how the response will be read, and what the request was before
    any redirect."""
    request.extensions = {FIRST: (request.method, request.url), **request.extensions, STREAMED: stream}


class BoundClient(_Client):
    """The additions to ``httpx.Client``."""

    def __init__(self, link: Link, **options: Any) -> None:
        super().__init__(**options)
        # The library's own transports, with its proxies and options, each with contracts around it.
        self._transport = paying(self._transport, link)
        self._mounts = {
            pattern: None if inner is None else paying(inner, link) for pattern, inner in self._mounts.items()
        }

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        _note(request, stream=stream)
        return super().send(request, stream=stream, **options)

    def request(
        self, method: str, url: Any, *, idempotency_key: str | None = None, **options: Any
    ) -> httpx.Response:
        return super().request(method, url, **_with_key(options, idempotency_key))

    @contextmanager
    def stream(
        self, method: str, url: Any, *, idempotency_key: str | None = None, **options: Any
    ) -> Iterator[httpx.Response]:
        with super().stream(method, url, **_with_key(options, idempotency_key)) as response:
            yield response

    def get(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def options(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("OPTIONS", url, **options)

    def head(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("HEAD", url, **options)

    def post(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def put(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("PUT", url, **options)

    def patch(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("PATCH", url, **options)

    def delete(self, url: Any, **options: Any) -> httpx.Response:
        return self.request("DELETE", url, **options)


class BoundAsyncClient(_AsyncClient):
    """The additions to ``httpx.AsyncClient``."""

    def __init__(self, link: Link, **options: Any) -> None:
        super().__init__(**options)
        self._transport = async_paying(self._transport, link)
        self._mounts = {
            pattern: None if inner is None else async_paying(inner, link)
            for pattern, inner in self._mounts.items()
        }

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        _note(request, stream=stream)
        return await super().send(request, stream=stream, **options)

    async def request(
        self, method: str, url: Any, *, idempotency_key: str | None = None, **options: Any
    ) -> httpx.Response:
        return await super().request(method, url, **_with_key(options, idempotency_key))

    @asynccontextmanager
    async def stream(
        self, method: str, url: Any, *, idempotency_key: str | None = None, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        async with super().stream(method, url, **_with_key(options, idempotency_key)) as response:
            yield response

    async def get(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("GET", url, **options)

    async def options(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("OPTIONS", url, **options)

    async def head(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("HEAD", url, **options)

    async def post(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("POST", url, **options)

    async def put(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("PUT", url, **options)

    async def patch(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("PATCH", url, **options)

    async def delete(self, url: Any, **options: Any) -> httpx.Response:
        return await self.request("DELETE", url, **options)


@cache
def _classes(name: str) -> tuple[Any, Any]:
    """The client classes as subclasses of one library's."""
    library = import_module(name)
    return (
        type("BoundClient", (BoundClient, library.Client), {}),
        type("BoundAsyncClient", (BoundAsyncClient, library.AsyncClient), {}),
    )

"""An ``httpx.Auth`` that signs and pays, for clients that are made elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from tokenmesh.clients.base import REQUESTS, waiting
from tokenmesh.clients.httpx_transport import INFO, Exchange, Link
from tokenmesh.clients.options import Retry, Via, belongs, call_options
from tokenmesh.consumer import CONTRACT_HEADER, Ask, InResponse, ReadBody, Send
from tokenmesh.errors import ConfigError
from tokenmesh.steps import Steps, arun, run
from tokenmesh.telemetry import inject

if TYPE_CHECKING:
    import httpx

    from tokenmesh.mesh import Mesh

    _Auth = httpx.Auth
else:
    _Auth = object

READ_BYTES_MAX = 2**20
"""The longest response that is held against its receipt's digest: what may be a stream is left to its
caller, unread, and it cannot be seen here which responses are."""


class PayingAuth(_Auth):
    """Signs requests to one service, and answers 402, 409 and 503 as the protocol asks, with the same
    contract.

    It sees responses only: when no response comes (a timeout, a reset connection) httpx raises its own error
    past it, and the contract stays unknown. Bound clients (``mesh.client``) try again by themselves; here,
    call again with the same ``extensions={"idempotency_key": ...}`` or ``Idempotency-Key`` header. It cannot
    follow a streamed response to its receipt either, or a redirect with a contract of its own.
    """

    link: Link
    url: str | None

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._ours(request):
            yield request
            return
        request.read()
        exchange, steps = self._begin(request)
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, REQUESTS):
                    response = yield self._native(exchange, effect)
                    body = response.read() if self._whole(effect, response) else None
                    effect = steps.send(InResponse(response.status_code, response.headers, body, response))
                    continue
                try:
                    result = request.content if isinstance(effect, ReadBody) else run(waiting(effect))
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            self._end(stop.value)
        finally:
            steps.close()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if not self._ours(request):
            yield request
            return
        await request.aread()
        exchange, steps = self._begin(request)
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, REQUESTS):
                    response = yield self._native(exchange, effect)
                    body = await response.aread() if self._whole(effect, response) else None
                    effect = steps.send(InResponse(response.status_code, response.headers, body, response))
                    continue
                try:
                    result = request.content if isinstance(effect, ReadBody) else await arun(waiting(effect))
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            self._end(stop.value)
        finally:
            steps.close()

    def _ours(self, request: httpx.Request) -> bool:
        return self.url is None or belongs(str(request.url), self.url)

    def _begin(self, request: httpx.Request) -> tuple[Exchange, Steps[InResponse]]:
        exchange, link = Exchange(self.link, request, str(request.url)), self.link
        base = self.url or str(request.url.copy_with(raw_path=b"/")).rstrip("/")
        options = link.options._replace(url=base)
        return exchange, link.consumer.call(link.service, exchange.out(), options, follow_up=False)

    def _native(self, exchange: Exchange, effect: Send | Ask) -> httpx.Request:
        if isinstance(effect, Ask):
            return exchange.native(effect)
        # The caller's own request, as every httpx.Auth sends it.
        request = exchange.request
        request.headers.pop(CONTRACT_HEADER, None)
        if effect.contract is not None:
            request.headers[CONTRACT_HEADER] = effect.contract
        inject(request.headers)
        return request

    def _whole(self, effect: Send | Ask, response: httpx.Response) -> bool:
        if isinstance(effect, Ask) or response.status_code >= 400:
            return True
        length = response.headers.get("Content-Length", "")
        coded = "Content-Encoding" in response.headers  # read, it would be decoded already
        return length.isdecimal() and int(length) <= READ_BYTES_MAX and not coded

    def _end(self, answer: InResponse) -> None:
        if answer.pending is not None:
            self.link.consumer.abandon(answer.pending)
        answer.native.extensions[INFO] = answer.info


def auth(
    mesh: Mesh,
    service: str,
    *,
    url: str | None = None,
    max_tokens: int | None = None,
    via: Via | None = None,
    retry: Retry | None = None,
    private: bool = False,
    library: Literal["httpx", "httpx2"] = "httpx",
) -> httpx.Auth:
    """An ``httpx.Auth`` that signs and pays requests to ``service``: see :class:`PayingAuth` for what it can
    and cannot do.

    ``url``: requests to anywhere else go out as they are. Left out, every request that it is used for counts
    as one to ``service``. All else as for :func:`tokenmesh.clients.httpx.client`.
    """
    if library not in ("httpx", "httpx2"):
        raise ConfigError(f"library is {library!r}: it must be httpx or httpx2")
    options = call_options(mesh, service, url or "http://request.invalid", max_tokens, via, retry, private)
    made: Any = _class(library)()
    made.link = Link(import_module(library), mesh.domain(service).consumer, service, options)
    made.url = options.url if url else None
    result: httpx.Auth = made
    return result


@cache
def _class(name: str) -> Any:
    return type("PayingAuth", (PayingAuth, import_module(name).Auth), {})

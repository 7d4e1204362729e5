"""A requests session bound to a service: normal in all else, it signs, pays and retries.

The work is done in an adapter mounted on the service's url, around the library's own.
"""

from __future__ import annotations

import io
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from tokenmesh.clients.base import drive
from tokenmesh.clients.options import Retry, Via, belongs, call_options, key_of
from tokenmesh.consumer import (
    CONTRACT_HEADER,
    IDEMPOTENCY_HEADER,
    OWN_BYTES_MAX,
    Ask,
    CallOptions,
    Consumer,
    InResponse,
    OutRequest,
    Pending,
    Send,
    TransportFailed,
    own_headers,
)
from tokenmesh.telemetry import inject

if TYPE_CHECKING:
    from tokenmesh.mesh import Mesh

PIECE_BYTES = 2**16


class _Job:
    """What one call of the session is about, redirects included: its key, and the request it began with."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.first: tuple[str, str] | None = None


_job: ContextVar[_Job | None] = ContextVar("tokenmesh_job", default=None)


def session(
    mesh: Mesh,
    service: str,
    *,
    url: str | None = None,
    max_tokens: int | None = None,
    via: Via | None = None,
    retry: Retry | None = None,
    private: bool = False,
    timeout: float | None = None,
    adapter: dict[str, Any] | None = None,
) -> requests.Session:
    """A ``requests.Session`` for ``service``. Paths such as ``/quote/ACME`` are taken from its url.

    ``timeout``: seconds that one try may take, where a request does not say. ``adapter``: arguments of
    ``requests.adapters.HTTPAdapter``. All else as for :func:`tokenmesh.clients.httpx.client`.

    Requests take ``idempotency_key="order-17"``; ``response.tokenmesh`` is the
    :class:`tokenmesh.consumer.CallInfo`.
    """
    options = call_options(mesh, service, url, max_tokens, via, retry, private)
    made = BoundSession(options.url)
    paying = PayingAdapter(
        mesh.domain(service).consumer, service, options, timeout or mesh.settings.timeout_s, **(adapter or {})
    )
    made.mount(options.url, paying)
    return made


class BoundSession(requests.Session):
    """A session that knows its service's url, and takes ``idempotency_key``."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url

    def request(  # type: ignore[override]
        self, method: str, url: str | bytes, *args: Any, idempotency_key: str | None = None, **options: Any
    ) -> requests.Response:
        text = url.decode() if isinstance(url, bytes) else url
        if text.startswith("/") or "://" not in text.partition("?")[0]:
            text = f"{self.base_url}/{text.lstrip('/')}"
        token = _job.set(_Job(None if idempotency_key is None else str(idempotency_key)))
        try:
            return super().request(method, text, *args, **options)
        finally:
            _job.reset(token)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if _job.get() is not None:
            return super().send(request, **options)
        token = _job.set(_Job(None))
        try:
            return super().send(request, **options)
        finally:
            _job.reset(token)


class Headers:
    """Response headers in the consumer's terms."""

    def __init__(self, headers: CaseInsensitiveDict[str]) -> None:
        self._headers = headers

    def get(self, name: str, /) -> str | None:
        return self._headers.get(name)


class PayingAdapter(HTTPAdapter):
    """Sends requests to one service with a contract."""

    def __init__(
        self, consumer: Consumer, service: str, options: CallOptions, timeout_s: float, **adapter: Any
    ) -> None:
        super().__init__(**adapter)
        self.consumer = consumer
        self.service = service
        self.call_options = options
        self.timeout_s = timeout_s

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Make the call; raises :class:`tokenmesh.errors.CallError`."""
        options = {
            "timeout": timeout or self.timeout_s,
            "verify": verify,
            "cert": cert,
            "proxies": proxies,
        }
        if not belongs(str(request.url), self.call_options.url):
            # Mounted by prefix: the same host at another port may begin alike.
            return super().send(request, stream, **options)
        exchange = _Exchange(self, request, stream, options)
        answer = exchange.drive(self.consumer.call(self.service, exchange.out(), self.call_options))
        response: requests.Response = answer.native
        response.tokenmesh = answer.info  # type: ignore[attr-defined]
        response.request = request
        if answer.pending is not None:
            _replace_body(response, _Checked(exchange, response, answer.pending))
        return response

    def send_plain(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send as the library does, leaving the body to be read."""
        return super().send(request, stream=True, **options)


class _Exchange:
    """One call's requests and responses."""

    def __init__(
        self,
        adapter: PayingAdapter,
        request: requests.PreparedRequest,
        streamed: bool,
        options: dict[str, Any],
    ) -> None:
        self.adapter = adapter
        self.request = request
        self.streamed = streamed
        self.options = options
        self.open: requests.Response | None = None

    def out(self) -> OutRequest:
        request = self.request
        given: Any = request.body
        body = self.read_body() if given is None or isinstance(given, bytes | str) else None
        method, url = str(request.method), str(request.url)
        return OutRequest(method, url, request.path_url, body, self._key(method, url))

    def _key(self, method: str, url: str) -> str | None:
        job = _job.get() or _Job(None)
        if job.first is None:
            job.first = (method, url)
        return key_of(job.key or self.request.headers.get(IDEMPOTENCY_HEADER), job.first, method, url)

    def drive(self, steps: Any) -> Any:
        try:
            return drive(steps, self.send, self.read_body)
        except BaseException:
            if self.open is not None:
                self.open.close()
            raise

    def read_body(self) -> bytes:
        """The whole body; what was a stream is replaced by it, so that it can be sent again."""
        request = self.request
        body: Any = request.body
        if body is None:
            return b""
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = body.read() if hasattr(body, "read") else b"".join(body)
            body = body.encode() if isinstance(body, str) else body
            request.headers.pop("Transfer-Encoding", None)
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return bytes(body)

    def send(self, effect: Send | Ask) -> InResponse:
        if self.open is not None:
            self.open.close()
            self.open = None
        try:
            response = self.adapter.send_plain(self._prepared(effect), **self.options)
            self.open = response
            whole = isinstance(effect, Ask) or not self.streamed or response.status_code >= 400
            body = self._read(response, effect) if whole else None
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise _failure(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:  # while the body was read
            raise TransportFailed(f"{type(error).__name__} {error}", sent=True) from error
        return InResponse(response.status_code, Headers(response.headers), body, response)

    def _prepared(self, effect: Send | Ask) -> requests.PreparedRequest:
        if isinstance(effect, Ask):
            asked = requests.PreparedRequest()
            asked.prepare(
                method="GET", url=effect.url, headers=dict(own_headers(self.request.headers.items()))
            )
            inject(asked.headers)
            return asked
        prepared = self.request.copy()
        prepared.headers.pop(CONTRACT_HEADER, None)
        if effect.contract is not None:
            prepared.headers[CONTRACT_HEADER] = effect.contract
        # Over what an instrumentation of requests has written, whose span is around this call.
        inject(prepared.headers)
        return prepared

    def _read(self, response: requests.Response, effect: Send | Ask) -> bytes:
        if isinstance(effect, Ask):
            body: bytes = response.raw.read(OWN_BYTES_MAX + 1, decode_content=False)
            response.close()
            if len(body) > OWN_BYTES_MAX:
                raise TransportFailed(f"an answer of more than {OWN_BYTES_MAX} bytes", sent=True)
            return body
        if "Content-Encoding" not in response.headers:
            return response.content
        body = response.raw.read(decode_content=False)
        response.raw.release_conn()
        _replace_body(response, io.BytesIO(body))
        return body


def _failure(error: requests.RequestException) -> TransportFailed:
    """What the library's error means for the contract that the request carried."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    not_sent = isinstance(
        error, (requests.ConnectTimeout, requests.exceptions.ProxyError, requests.exceptions.SSLError)
    ) or isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))
    return TransportFailed(f"{type(error).__name__} {error}", sent=not not_sent)


def _replace_body(response: requests.Response, body: Any) -> None:
    """Have the response read its (still encoded) body from a file instead of the connection."""
    raw = response.raw
    response.raw = urllib3.HTTPResponse(
        body=body,
        headers=raw.headers,
        status=raw.status,
        version=raw.version,
        reason=raw.reason,
        preload_content=False,
        original_response=raw._original_response,
        request_method=response.request.method,
    )


class _Checked(io.RawIOBase):
    """A response's body on its way to the caller; at its end it is held against the receipt."""

    def __init__(self, exchange: _Exchange, response: requests.Response, pending: Pending) -> None:
        self._exchange = exchange
        self._raw = response.raw
        self._pending: Pending | None = pending

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        amount = None if size is None or size < 0 else size
        piece: bytes = self._raw.read(amount, decode_content=False)
        pending = self._pending
        if pending is None:
            return piece
        pending.digests.update(piece)
        if amount is None or (not piece and amount):
            self._pending = None
            self._raw.release_conn()
            self._exchange.open = None
            self._exchange.drive(self._exchange.adapter.consumer.conclude(pending))
        return piece

    def close(self) -> None:
        pending, self._pending = self._pending, None
        self._raw.close()
        self._raw.release_conn()
        if pending is not None:
            self._exchange.adapter.consumer.abandon(pending)
        super().close()

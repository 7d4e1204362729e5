"""Transports for httpx and httpx2 that sign, pay and retry, around the transport that does the sending.

The two libraries have the same interface and classes of their own, so the classes here are written once and
made for a library when it is first used (:func:`classes`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenmesh.clients.base import adrive, drive
from tokenmesh.clients.options import belongs, key_of
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
    import httpx

    _SyncTransport = httpx.BaseTransport
    _AsyncTransport = httpx.AsyncBaseTransport
    _SyncStream = httpx.SyncByteStream
    _AsyncStream = httpx.AsyncByteStream
else:
    _SyncTransport = _AsyncTransport = _SyncStream = _AsyncStream = object

INFO = "tokenmesh"
"""Where a response's ``extensions`` have its :class:`CallInfo`."""
KEY = "idempotency_key"
STREAMED = "tokenmesh.streamed"
FIRST = "tokenmesh.first"


class Link:
    """What all requests of one client share."""

    def __init__(self, library: Any, consumer: Consumer, service: str, options: CallOptions) -> None:
        self.library = library
        self.consumer = consumer
        self.service = service
        self.options = options
        self._not_sent = (
            library.ConnectError,
            library.ConnectTimeout,
            library.PoolTimeout,
            library.ProxyError,
        )

    def failure(self, error: httpx.TransportError) -> TransportFailed:
        """What a transport's error means for the contract that it was to carry."""
        sent = not isinstance(error, self._not_sent)
        failed = TransportFailed(f"{type(error).__name__} {error}".strip(), sent=sent)
        failed.__cause__ = error
        return failed

    def is_transport_error(self, error: Exception) -> bool:
        """Whether ``error`` is the network's doing; a request that cannot be sent at all is its caller's."""
        return isinstance(error, self.library.TransportError) and not isinstance(
            error, (self.library.UnsupportedProtocol, self.library.LocalProtocolError)
        )


class Exchange:
    """One call's requests and responses, for the sync and the async transport alike."""

    def __init__(self, link: Link, request: httpx.Request, url: str) -> None:
        self.link = link
        self.request = request
        self.url = url
        self.streamed = bool(request.extensions.get(STREAMED))
        self.open: httpx.Response | None = None
        """The last response, if it is still to be read; closed before the next request goes out."""

    def out(self) -> OutRequest:
        """The request in the consumer's terms."""
        request, key = self.request, None
        try:
            body: bytes | None = request.content
        except self.link.library.RequestNotRead:
            body = None
        given = request.extensions.get(KEY) or request.headers.get(IDEMPOTENCY_HEADER)
        if given is not None:
            first = request.extensions.get(FIRST)
            began = None if first is None else (first[0], str(first[1]))
            key = key_of(str(given), began, request.method, self.url)
        return OutRequest(request.method, self.url, request.url.raw_path.decode("ascii"), body, key)

    def native(self, effect: Send | Ask) -> httpx.Request:
        """The library's request for an effect."""
        library, request = self.link.library, self.request
        native: httpx.Request
        if isinstance(effect, Ask):
            headers = own_headers(request.headers.multi_items())
            extensions = {k: v for k, v in request.extensions.items() if k == "timeout"}
            native = library.Request("GET", effect.url, headers=headers, extensions=extensions)
            inject(native.headers)
            return native
        # A copy: the caller's own request must not carry a contract on to where it is redirected.
        native = library.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        if effect.contract is not None:
            native.headers[CONTRACT_HEADER] = effect.contract
        inject(native.headers)
        return native

    def whole(self, effect: Send | Ask, response: httpx.Response) -> bool:
        """Whether a response is to be read now: all but what the caller wants to read as a stream."""
        return isinstance(effect, Ask) or not self.streamed or response.status_code >= 400

    def answer(self, response: httpx.Response, body: bytes | None) -> InResponse:
        """A response in the consumer's terms, and as the caller will read it."""
        if body is None:
            self.open = response
        else:
            self.open = None
            response.stream = self.link.library.ByteStream(body)
        return InResponse(response.status_code, response.headers, body, response)

    def finished(self, answer: InResponse) -> httpx.Response:
        """The response for the caller."""
        response: httpx.Response = answer.native
        response.extensions[INFO] = answer.info
        return response


def _too_long(length: int) -> TransportFailed:
    return TransportFailed(f"an answer of more than {OWN_BYTES_MAX} bytes, {length} so far", sent=True)


class PayingTransport(_SyncTransport):
    """Sends requests to one service with a contract, and requests to anywhere else as they are."""

    link: Link
    inner: httpx.BaseTransport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        link, url = self.link, str(request.url)
        if not belongs(url, link.options.url):
            return self.inner.handle_request(request)
        exchange = Exchange(link, request, url)
        call = link.consumer.call(link.service, exchange.out(), link.options)
        try:
            answer = drive(call, lambda effect: self._send(exchange, effect), request.read)
        except BaseException:
            if exchange.open is not None:
                exchange.open.close()
            raise
        response = exchange.finished(answer)
        if answer.pending is not None:
            response.stream = classes(link.library.__name__).sync_stream(self, exchange, answer.pending)
        return response

    def _send(self, exchange: Exchange, effect: Send | Ask) -> InResponse:
        if exchange.open is not None:
            exchange.open.close()
        try:
            response = self.inner.handle_request(exchange.native(effect))
            body = self._read(response, effect) if exchange.whole(effect, response) else None
        except Exception as error:
            if self.link.is_transport_error(error):
                raise self.link.failure(error) from error  # type: ignore[arg-type]
            raise
        return exchange.answer(response, body)

    def _read(self, response: httpx.Response, effect: Send | Ask) -> bytes:
        if response.is_stream_consumed:  # by a transport beneath
            return response.content
        stream = response.stream
        assert isinstance(stream, self.link.library.SyncByteStream)
        pieces, length = [], 0
        try:
            for piece in stream:
                pieces.append(piece)
                length += len(piece)
                if length > OWN_BYTES_MAX and isinstance(effect, Ask):
                    raise _too_long(length)
        finally:
            stream.close()
        return b"".join(pieces)

    def conclude(self, exchange: Exchange, pending: Pending) -> None:
        """Check a stream that has been read to its end."""
        exchange.open = None
        drive(self.link.consumer.conclude(pending), lambda effect: self._send(exchange, effect), bytes)

    def close(self) -> None:
        self.inner.close()


class CheckedStream(_SyncStream):
    """A response's body on its way to the caller; at its end it is held against the receipt."""

    def __init__(self, transport: PayingTransport, exchange: Exchange, pending: Pending) -> None:
        assert exchange.open is not None
        self._stream: Any = exchange.open.stream
        self._transport = transport
        self._exchange = exchange
        self._pending: Pending | None = pending

    def __iter__(self) -> Iterator[bytes]:
        pending = self._pending
        if pending is None:
            return
        for piece in self._stream:
            pending.digests.update(piece)
            yield piece
        self._stream.close()  # its connection may be the only one, and is needed for the receipt
        self._pending = None
        self._transport.conclude(self._exchange, pending)

    def close(self) -> None:
        pending, self._pending = self._pending, None
        self._stream.close()
        if pending is not None:
            self._transport.link.consumer.abandon(pending)


class AsyncPayingTransport(_AsyncTransport):
    """Sends requests to one service with a contract, and requests to anywhere else as they are."""

    link: Link
    inner: httpx.AsyncBaseTransport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        link, url = self.link, str(request.url)
        if not belongs(url, link.options.url):
            return await self.inner.handle_async_request(request)
        exchange = Exchange(link, request, url)
        call = link.consumer.call(link.service, exchange.out(), link.options)
        try:
            answer = await adrive(call, lambda effect: self._send(exchange, effect), request.aread)
        except BaseException:
            if exchange.open is not None:
                await exchange.open.aclose()
            raise
        response = exchange.finished(answer)
        if answer.pending is not None:
            response.stream = classes(link.library.__name__).async_stream(self, exchange, answer.pending)
        return response

    async def _send(self, exchange: Exchange, effect: Send | Ask) -> InResponse:
        if exchange.open is not None:
            await exchange.open.aclose()
        try:
            response = await self.inner.handle_async_request(exchange.native(effect))
            body = await self._read(response, effect) if exchange.whole(effect, response) else None
        except Exception as error:
            if self.link.is_transport_error(error):
                raise self.link.failure(error) from error  # type: ignore[arg-type]
            raise
        return exchange.answer(response, body)

    async def _read(self, response: httpx.Response, effect: Send | Ask) -> bytes:
        if response.is_stream_consumed:  # by a transport beneath
            return response.content
        stream = response.stream
        assert isinstance(stream, self.link.library.AsyncByteStream)
        pieces, length = [], 0
        try:
            async for piece in stream:
                pieces.append(piece)
                length += len(piece)
                if length > OWN_BYTES_MAX and isinstance(effect, Ask):
                    raise _too_long(length)
        finally:
            await stream.aclose()
        return b"".join(pieces)

    async def conclude(self, exchange: Exchange, pending: Pending) -> None:
        """Check a stream that has been read to its end."""
        exchange.open = None
        await adrive(
            self.link.consumer.conclude(pending),
            lambda effect: self._send(exchange, effect),
            exchange.request.aread,
        )

    async def aclose(self) -> None:
        await self.inner.aclose()


class AsyncCheckedStream(_AsyncStream):
    """A response's body on its way to the caller; at its end it is held against the receipt."""

    def __init__(self, transport: AsyncPayingTransport, exchange: Exchange, pending: Pending) -> None:
        assert exchange.open is not None
        self._stream: Any = exchange.open.stream
        self._transport = transport
        self._exchange = exchange
        self._pending: Pending | None = pending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pending = self._pending
        if pending is None:
            return
        async for piece in self._stream:
            pending.digests.update(piece)
            yield piece
        await self._stream.aclose()
        self._pending = None
        await self._transport.conclude(self._exchange, pending)

    async def aclose(self) -> None:
        pending, self._pending = self._pending, None
        await self._stream.aclose()
        if pending is not None:
            self._transport.link.consumer.abandon(pending)


class Classes(NamedTuple):
    """The classes of this module as subclasses of one library's."""

    library: ModuleType
    sync_transport: Any
    sync_stream: Any
    async_transport: Any
    async_stream: Any


@cache
def classes(name: str) -> Classes:
    """The classes for the library called ``name``, ``httpx`` or ``httpx2``."""
    library = import_module(name)
    return Classes(
        library,
        type("PayingTransport", (PayingTransport, library.BaseTransport), {}),
        type("CheckedStream", (CheckedStream, library.SyncByteStream), {}),
        type("AsyncPayingTransport", (AsyncPayingTransport, library.AsyncBaseTransport), {}),
        type("AsyncCheckedStream", (AsyncCheckedStream, library.AsyncByteStream), {}),
    )


def paying(inner: httpx.BaseTransport, link: Link) -> Any:
    """``inner`` with contracts."""
    transport = classes(link.library.__name__).sync_transport()
    transport.link, transport.inner = link, inner
    return transport


def async_paying(inner: httpx.AsyncBaseTransport, link: Link) -> Any:
    """``inner`` with contracts."""
    transport = classes(link.library.__name__).async_transport()
    transport.link, transport.inner = link, inner
    return transport

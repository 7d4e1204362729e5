"""A priced request as ASGI messages: for adapters of frameworks that speak ASGI.

The request is checked before the framework sees it, and claimed by the priced handler itself. The response
is watched as it goes out: a complete one is held until its contract has ended, so that nobody has it without
its receipt; a streamed one goes out as it comes, and ends its contract before its last message.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote

import anyio

from tokenmesh.decorators import Handler
from tokenmesh.frameworks.asgi_body import ClientGone, Message, Receive, Scope, read_body, replay
from tokenmesh.frameworks.base import Recorder
from tokenmesh.journal import StoredResponse
from tokenmesh.provider import (
    RECEIPT_HEADER,
    Answer,
    Answered,
    AnyProvider,
    Exchange,
    Request,
)
from tokenmesh.provider.exchange import current
from tokenmesh.provider.receipts import EMPTY_DIGEST
from tokenmesh.provider.terms import Terms
from tokenmesh.steps import arun
from tokenmesh_chaincode import documents

Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

EXCHANGE = "tokenmesh.exchange"
"""Where a request keeps its exchange: in its scope, while it is being served."""
_CRASH = "tokenmesh.crash"
_CONTRACT = b"token-contract"
_RECEIPT = RECEIPT_HEADER.lower().encode()
_PATHSEND = "http.response.pathsend"
_SEGMENT = re.compile(r"[^/]+")


class ASGIExchange(Exchange):
    """An exchange over ASGI. A generator may begin with its first item: the response is held until then."""

    __slots__ = ("_scope",)
    deferred: ClassVar[bool] = True

    def __init__(
        self, provider: AnyProvider, terms: Terms, request: Request, handler: object, scope: Scope
    ) -> None:
        self._scope = scope
        super().__init__(provider, terms, request, handler)

    def headers(self, names: tuple[str, ...]) -> dict[str, str]:
        wanted = _encoded(names)
        found: dict[str, str] = {}
        for key, value in self._scope["headers"]:
            name = wanted.get(key)
            if name is not None:
                text = value.decode("latin-1")
                # Several count as one, with commas between them (RFC 9110, section 5.3).
                found[name] = f"{found[name]},{text}" if name in found else text
        return found


@lru_cache(maxsize=64)
def _encoded(headers: tuple[str, ...]) -> dict[bytes, str]:
    """Headers by their names as ASGI has them."""
    return {name.lower().encode("latin-1"): name for name in headers}


class Conversation:
    """What a framework's own request and response are made of."""

    def request(self, scope: Scope, receive: Receive) -> Any:
        """The framework's request, for functions of the price; None if they need none."""
        raise NotImplementedError

    def response(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        """The framework's response, for ``fulfilled_when``."""
        raise NotImplementedError


async def serve(
    handler: Handler,
    path: str,
    conversation: Conversation,
    app: App,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Serve one request to a priced route, whose template is ``path`` and which ``app`` runs."""
    try:
        provider = handler.provider()
        exchange, receive = await _admitted(handler, provider, path, conversation, scope, receive)
    except Answered as answered:
        await send_answer(answered.answer, send)
        return
    except ClientGone:
        return
    scope[EXCHANGE] = exchange
    token = current.set(exchange)
    try:
        if exchange.free:
            await app(scope, receive, send)
        else:
            _forbid_pathsend(scope)
            await _run(exchange, conversation, app, scope, receive, send)
    finally:
        current.reset(token)
        scope.pop(EXCHANGE, None)


class _Crash:
    """Where a handler that raised leaves its exchange to the outermost part of its application: ``gate`` is
    for the response that is made of it there, and stands before ``send``."""

    __slots__ = ("gate", "receive", "send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.send = send
        self.gate: _Gate | None = None


async def serve_crashes(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application to its outermost part, where responses are made of exceptions that nobody handles.
    Such a response ends its contract, as any other does, and has a receipt."""
    crash = scope[_CRASH] = _Crash(receive, send)

    async def sending(message: Message) -> None:
        gate = crash.gate
        if gate is None:
            await send(message)
            return
        if any(name.lower() == b"content-encoding" for name, _ in message.get("headers", ())):
            # Made further inside, and encoded since: a receipt is for a body as it was before that.
            await gate.give_up()
        await gate.send(message)

    try:
        await app(scope, receive, sending)
    finally:
        if crash.gate is not None:
            await crash.gate.give_up()


async def send_answer(answer: Answer, send: Send) -> None:
    """Send a whole response."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _admitted(
    handler: Handler,
    provider: AnyProvider,
    path: str,
    conversation: Conversation,
    scope: Scope,
    receive: Receive,
) -> tuple[ASGIExchange, Receive]:
    """The exchange, with everything checked that can be; and the body to be read once more."""
    body: bytes | None = None
    most = provider.settings.request_bytes_max
    terms = handler.terms

    def whole() -> bytes:
        assert body is not None, "the body is read before anything asks for it"
        return body

    again = receive
    native = None
    if terms.asks:
        # A price may depend on anything, the body too.
        body = await read_body(scope, receive, most)
        again = replay(body, receive)
        native = conversation.request(scope, replay(body, receive))
    exchange = ASGIExchange(provider, terms, _request(handler, path, scope, whole, native), handler, scope)
    try:
        rest = exchange.check()
        if rest is not None:
            await arun(rest)
        if not exchange.free:
            if body is None:
                body = await read_body(scope, receive, most)
                again = replay(body, receive)
            rest = exchange.admit()
            if rest is not None:
                await arun(rest)
    except Answered as answered:
        exchange.leave(answered)
        raise
    return exchange, again


def _request(handler: Handler, path: str, scope: Scope, body: Callable[[], bytes], native: Any) -> Request:
    method = scope["method"]
    raw = scope.get("raw_path")
    if raw is None:
        raw = quote(scope["path"]).encode("ascii")
    query = scope["query_string"]
    # A proxy that takes a prefix away leaves it in root_path; the client has signed with it.
    root = scope.get("app_root_path", scope.get("root_path", ""))
    alias = None
    if root and not scope["path"].startswith(root):
        alias = documents.target(quote(root).encode("ascii") + raw, query)
    return Request(
        method,
        documents.target(raw, query),
        handler.terms.operation or f"{method} {path}",
        path,
        [value for name, value in scope["headers"] if name == _CONTRACT],
        body,
        native,
        scope.get("path_params") or {},
        alias,
    )


def _forbid_pathsend(scope: Scope) -> None:
    """A file that the server sends by itself would never pass by here."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if _PATHSEND in extensions:
        scope["extensions"] = {name: value for name, value in extensions.items() if name != _PATHSEND}


async def _run(
    exchange: ASGIExchange, conversation: Conversation, app: App, scope: Scope, receive: Receive, send: Send
) -> None:
    gate = _Gate(exchange, conversation, receive, send)
    try:
        await app(scope, receive, gate.send)
    except BaseException as error:
        if exchange.answer is None:
            crash: _Crash | None = scope.get(_CRASH)
            if exchange.open and crash is not None and gate.holds and isinstance(error, Exception):
                exchange.fail(error)
                crash.gate = _Gate(exchange, conversation, crash.receive, crash.send)
            elif exchange.open:
                with anyio.CancelScope(shield=True):
                    await arun(exchange.abort(f"the handler raised {type(error).__name__}"))
            raise
        await gate.answer()
        if not isinstance(error, Answered):
            raise
    else:
        await gate.close()


class _Gate:
    """What stands between a priced route and the server, for the messages of its response."""

    def __init__(
        self, exchange: ASGIExchange, conversation: Conversation, receive: Receive, send: Send
    ) -> None:
        self._exchange = exchange
        self._conversation = conversation
        self._receive = receive
        self._send = send
        self._held: list[Message] | None = []
        self._start: Message = {}
        self._recorder: Recorder | None = None
        self._answered = False

    @property
    def holds(self) -> bool:
        """Whether nothing has gone out yet."""
        return self._held is not None

    async def send(self, message: Message) -> None:
        """Take a message from the route, and let it pass when it is time."""
        exchange = self._exchange
        if exchange.answer is not None:
            # Whatever the framework has made of the way the handler was left.
            await self.answer()
            return
        kind = message["type"]
        if self._held is None:
            if kind == "http.response.body" and self._recorder is not None:
                await self._stream(message, self._recorder)
            await self._send(message)
            return
        if kind == "http.response.start":
            self._start = message
        if kind != "http.response.body":
            self._held.append(message)
            return
        if not exchange.open:
            await self._release()
        elif message.get("more_body", False):
            await self._release()
            self._recorder = Recorder(exchange.provider.settings.response_bytes_max)
            await self._stream(message, self._recorder)
        else:
            try:
                receipt = await self._end(message.get("body", b""))
            except Answered as answered:
                exchange.leave(answered)
                await self.answer()
                return
            await self._release(receipt)
        await self._send(message)

    async def answer(self) -> None:
        """Send the answer that stands for the handler's response; once."""
        if not self._answered and self._exchange.answer is not None and self._held is not None:
            self._answered = True
            await send_answer(self._exchange.answer, self._send)

    async def close(self) -> None:
        """The route is done."""
        await self.answer()
        if self._exchange.open:
            # No last message: a stream that was cut off because nobody reads it any more.
            with anyio.CancelScope(shield=True):
                await arun(self._exchange.abort("the client went away", self._stored(complete=False)))
        if not self._answered:
            await self._release()

    async def give_up(self) -> None:
        """There will be no response, if there has been none."""
        if self._exchange.open:
            with anyio.CancelScope(shield=True):
                await arun(self._exchange.abort("there was no response"))

    async def _release(self, receipt: str | None = None) -> None:
        """Send what was held back."""
        held, self._held = self._held or [], None
        for message in held:
            if receipt is not None and message["type"] == "http.response.start":
                # A new list: this one is the response's own.
                headers = [*message.get("headers", ()), (_RECEIPT, receipt.encode("ascii"))]
                message = {**message, "headers": headers}  # noqa: PLW2901
            await self._send(message)

    async def _end(self, body: bytes) -> str | None:
        """End the contract with a complete response."""
        exchange, status = self._exchange, self._start["status"]
        headers = list(self._start.get("headers", ()))
        bodiless = exchange.request.method == "HEAD" or status in (204, 304)
        stored = StoredResponse(
            status, _texts(headers), body, EMPTY_DIGEST if bodiless else documents.digest(body)
        )
        receipt = exchange.end_at_once(stored)
        if receipt is not None:
            return receipt
        return await arun(exchange.end(stored, lambda: self._conversation.response(status, headers, body)))

    async def _stream(self, message: Message, recorder: Recorder) -> None:
        """A piece of a streamed response, before it goes out; with the last one the contract ends."""
        recorder.add(message.get("body", b""))
        if message.get("more_body", False) or not self._exchange.open:
            return
        status, headers = self._start["status"], list(self._start.get("headers", ()))
        if await self._is_gone():
            await arun(self._exchange.abort("the client went away", self._stored(complete=False)))
            return
        # Raised further: without its last message the client knows that the response is not complete.
        await arun(
            self._exchange.end(
                self._stored(complete=True), lambda: self._conversation.response(status, headers, b"")
            )
        )

    def _stored(self, *, complete: bool) -> StoredResponse:
        recorder = self._recorder or Recorder(0)
        status = self._start.get("status", 500)
        return recorder.response(status, _texts(self._start.get("headers", ())), complete=complete)

    async def _is_gone(self) -> bool:
        """Whether the client has gone away, without waiting for it to."""
        message: Message = {}
        with anyio.CancelScope() as scope:
            scope.cancel()
            message = await self._receive()
        return message.get("type") == "http.disconnect"


def _texts(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]

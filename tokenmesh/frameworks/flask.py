"""Flask: priced views, blueprints and class-based views, sync and async, streamed or not.

Hooks, all on methods that Flask documents as made for calling or overriding: ``add_url_rule`` (of
applications and blueprints) sees what becomes a route; ``preprocess_request``, which runs before the user's
``before_request`` functions, keeps the body readable; ``process_response``, before the user's
``after_request`` functions, sees the response that the handler, or an error handler, has made;
``handle_http_exception`` hands over the responses that we leave a handler with. So what a payer gets again on
a retry is what its handler gave, and the application's own functions run on it anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

import flask
from flask import Flask
from flask.blueprints import Blueprint
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from tokenmesh.decorators import Handler
from tokenmesh.errors import ServingError
from tokenmesh.frameworks.base import OFFERS_PATH, RECEIPTS_PATH, Framework, Recorder, Route, Site, put
from tokenmesh.journal import StoredResponse
from tokenmesh.provider import RECEIPT_HEADER, Answer, Answered, Exchange, Problem, Refused, Request
from tokenmesh.provider.exchange import current
from tokenmesh.provider.receipts import EMPTY_DIGEST
from tokenmesh.provider.views import VIEWS, marked
from tokenmesh.steps import run
from tokenmesh_chaincode import documents

EXTENSION = "tokenmesh"
"""Where an application keeps its :class:`Application`: in ``app.extensions``, as Flask asks."""
# Where a request keeps its exchange, and its body once that was read: in its WSGI environment.
_EXCHANGE = "tokenmesh.exchange"
_BODY = "tokenmesh.body"
_CONTRACT = "HTTP_TOKEN_CONTRACT"
_RECEIPT = RECEIPT_HEADER.lower()
LIST = "_list"
"""Where werkzeug's ``Headers`` keep what they hold."""

# A named tuple's own constructor is a Python function around this.
_new: Any = tuple.__new__
# What is behind Flask's proxies, which look it up anew for every attribute.
_request: Callable[[], Any] = cast("Any", flask.request)._get_current_object
_app: Callable[[], Any] = cast("Any", flask.current_app)._get_current_object
# A rule's variable parts, as werkzeug writes them: <name>, <converter:name>, <converter(args):name>.
_PART = re.compile(r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\(.*?\))?:)?(?P<name>[a-zA-Z_]\w*)>")


class FlaskFramework(Framework):
    """The adapter for Flask, 3.0 and newer."""

    name = "flask"

    def install(self) -> None:
        _hook_routes(Flask, address=True)
        _hook_routes(Blueprint, address=False)
        _hook_requests()

    @staticmethod
    def exchange(handler: Handler) -> Exchange | None:
        """The exchange of the request that Flask serves in this context."""
        try:
            request = _request()
        except RuntimeError:
            # No request is being served here.
            return None
        environ = request.environ
        if _EXCHANGE in environ:
            raise ServingError(
                f"{handler.name} is priced, and called from another priced handler. One request pays for "
                "one: call a function that is not priced, or the other service through its client"
            )
        exchange = environ[_EXCHANGE] = _application(_app()).exchange(handler, request)
        return exchange


class Application:
    """What is kept of one Flask application."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._paths: dict[str, str] = {}
        self.site = Site(self._routes)
        self.addressed = False
        self.checked = False

    def handler(self, rule: Rule | None, method: str) -> Handler | None:
        """What is priced at a rule, for one method."""
        if rule is None or (method == "OPTIONS" and getattr(rule, "provide_automatic_options", False)):
            return None
        return _handler(self._app.view_functions.get(rule.endpoint), method)

    def address(self) -> None:
        """Serve the two well-known addresses."""
        if self.addressed:
            return
        self.addressed = True

        def offers() -> Any:
            return _respond(self._app, self.site.offers())

        def receipt(jti: str) -> Any:
            return _respond(self._app, run(self.site.receipt(jti, flask.request.args.get("payer"))))

        self._app.add_url_rule(OFFERS_PATH, "tokenmesh_offers", offers)
        self._app.add_url_rule(RECEIPTS_PATH + "<jti>", "tokenmesh_receipt", receipt)

    def exchange(self, handler: Handler, request: Any) -> FlaskExchange:
        """The exchange of the current request, which ``handler`` serves."""
        try:
            provider = handler.provider()
        except Answered as answered:
            raise _Left(response=_respond(self._app, answered.answer)) from answered
        environ, method, rule = request.environ, request.method, request.url_rule
        path = self._paths.get(rule.rule) or self._path(rule)
        raw = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        contract = environ.get(_CONTRACT)
        exchange = FlaskExchange(
            provider,
            handler.terms,
            _new(
                Request,
                (
                    method,
                    documents.target(raw, environ.get("QUERY_STRING", ""), decoded=True),
                    handler.terms.operation or f"{method} {path}",
                    path,
                    () if contract is None else (contract.encode("latin-1"),),
                    (lambda: self.keep_body(handler)) if _may_have_body(environ) else _no_body,
                    request,
                    request.view_args or {},
                    None,
                ),
            ),
            handler,
        )
        exchange.app = self._app
        return exchange

    def keep_body(self, handler: Handler) -> bytes:
        """The current request's body, which stays readable for everyone after us, in every way.

        Leaves the request (400) if it is larger than ``request_bytes_max``.
        """
        request = _request()
        environ = request.environ
        kept: bytes | None = environ.get(_BODY)
        if kept is not None:
            return kept
        if "form" in request.__dict__:
            raise ServingError(
                f"{handler.name} is priced, but the request's form was parsed before anyone could see that: "
                "a decorator above @priced has to use functools.wraps"
            )
        try:
            most = handler.provider().settings.request_bytes_max
            if (request.content_length or 0) > most:
                raise _too_large(most)
            body: bytes = request.stream.read(most + 1)
            if len(body) > most:
                raise _too_large(most)
        except Answered as answered:
            raise _Left(response=_respond(self._app, answered.answer)) from answered
        environ[_BODY] = body
        environ["wsgi.input"] = BytesIO(body)
        environ["wsgi.input_terminated"] = True
        request.__dict__.pop("stream", None)
        return body

    def check(self) -> None:
        """At an application's first request, whatever it asks for: raise :class:`ServingError` if a view is
        served free that should not be, and begin to settle."""
        for view in self._app.view_functions.values():
            VIEWS.check(view)
        self.checked = True
        self.site.open_soon()

    def _path(self, rule: Rule) -> str:
        """The template of a rule, with ``{x}`` and ``{x:path}``."""
        path = self._paths[rule.rule] = _PART.sub(self._part, rule.rule)
        return path

    def _part(self, match: re.Match[str]) -> str:
        converter = self._app.url_map.converters.get(match["converter"] or "default")
        # What is not isolating may contain slashes, as <path:x> does.
        return (
            f"{{{match['name']}}}"
            if getattr(converter, "part_isolating", True)
            else f"{{{match['name']}:path}}"
        )

    def _routes(self) -> Iterator[Route]:
        for rule in self._app.url_map.iter_rules():
            for method in sorted(rule.methods or ()):
                handler = self.handler(rule, method)
                if handler is not None:
                    yield Route(handler, method, self._path(rule))


class _Left(HTTPException):
    """Raised to leave a view with a response. One that carries a response passes by all error handlers."""


class FlaskExchange(Exchange):
    """An exchange in Flask's request context, of the application ``app``. ``left`` is the response that its
    handler was left with: there as soon as ``answer`` is."""

    __slots__ = ("app", "left")
    app: Flask
    left: Any

    def headers(self, names: tuple[str, ...]) -> dict[str, str]:
        environ = self.request.native.environ
        found: dict[str, str] = {}
        for name, variable in _variables(names):
            if variable in environ:
                found[name] = environ[variable]
        return found

    def leave(self, answered: Answered) -> BaseException:
        super().leave(answered)
        self.left = _respond(self.app, answered.answer, type(answered) is Refused)
        return _Left(response=self.left)

    def finish(self, response: Any) -> Any:
        """End with the response that was made, by whomever; gives the one to send."""
        if self.answer is not None:
            return response if response is self.left else _respond(self.app, self.answer)
        if self.call is None or self.ended or self.streams:
            return response
        status = response.status_code
        bodiless = self.request.method == "HEAD" or status in (204, 304) or status < 200
        body = _in_one_piece(response)
        flowing = body is None and (response.is_streamed or response.direct_passthrough)
        if flowing and (self.failed or status >= 400):
            # An error page, which werkzeug hands over as a stream. Nothing is owed for it, so its end need
            # not be waited for; but a retry is to see it too.
            length = response.content_length
            if length is not None and length <= self.provider.settings.response_bytes_max:
                response.direct_passthrough = False
                response.make_sequence()
                flowing = False
        if flowing and not bodiless:
            self.streams = True
            response.response = _Stream(self, response)
            return response
        if body is None:
            body = b"" if flowing else response.get_data()
        digest = EMPTY_DIGEST if bodiless or not body else documents.digest(body)
        stored = _new(StoredResponse, (status, list(response.headers), body, digest))
        try:
            receipt = self.end_at_once(stored)
            if receipt is None:
                receipt = run(self.end(stored, lambda: response))
        except Answered as answered:
            self.leave(answered)
            return self.left
        if receipt is not None:
            _add_receipt(response.headers, stored.headers, receipt)
        return response


class _Stream:
    """The body of a streamed response on its way: fulfilled at its end, void if it is closed before."""

    def __init__(self, exchange: FlaskExchange, response: Any) -> None:
        self._exchange = exchange
        self._response = response
        self._source = response.response
        self._chunks = iter(self._source)
        self._recorder = Recorder(exchange.provider.settings.response_bytes_max)
        self._status, self._headers = response.status_code, list(response.headers)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        watch = self._exchange.watch
        token = current.set(self._exchange)
        if watch is not None:
            watch.enter()
        try:
            chunk = next(self._chunks)
        except StopIteration:
            # Before the server hears of the end: if it cannot be fulfilled, the response stays incomplete.
            stored = self._recorder.response(self._status, self._headers)
            run(self._exchange.end(stored, lambda: self._response))
            raise
        except BaseException as error:
            self._exchange.fail(error)
            self._abort("the stream broke off")
            raise
        finally:
            current.reset(token)
            if watch is not None:
                watch.leave()
        self._recorder.add(chunk.encode() if isinstance(chunk, str) else chunk)
        return chunk

    def close(self) -> None:
        try:
            if hasattr(self._source, "close"):
                self._source.close()
        finally:
            self._abort("the client went away")

    def _abort(self, reason: str) -> None:
        stored = self._recorder.response(self._status, self._headers, complete=False)
        run(self._exchange.abort(reason, stored))


def _hook_routes(owner: Any, *, address: bool) -> None:
    """See what becomes a route of an application (which gets its well-known addresses) or a blueprint."""
    add = owner.add_url_rule

    def add_url_rule(
        self: Any, rule: str, endpoint: Any = None, view_func: Any = None, *args: Any, **options: Any
    ) -> None:
        add(self, rule, endpoint, view_func, *args, **options)
        if view_func is not None:
            VIEWS.route(view_func)
            if address and _is_priced(view_func):
                _application(self).address()

    put(owner, "add_url_rule", add_url_rule)


def _hook_requests() -> None:
    preprocess, process, tear_down = (
        Flask.preprocess_request,
        Flask.process_response,
        Flask.do_teardown_request,
    )
    handle = Flask.handle_http_exception

    def preprocess_request(app: Flask) -> Any:
        application = app.extensions.get(EXTENSION)
        if application is None or not application.checked:
            application = _application(app)
            application.check()
        request = _request()
        if _CONTRACT in request.environ and _may_have_body(request.environ):
            handler = application.handler(request.url_rule, request.method)
            if handler is not None:
                application.keep_body(handler)
        return preprocess(app)

    def handle_http_exception(app: Flask, error: HTTPException) -> Any:
        # Flask would give back the exception, and then call it as if it were an application of its own.
        return error.response if type(error) is _Left else handle(app, error)

    def process_response(app: Flask, response: Any) -> Any:
        exchange = _request().environ.get(_EXCHANGE)
        return process(app, response if exchange is None else exchange.finish(response))

    def do_teardown_request(app: Flask, *args: Any, **options: Any) -> None:
        # Taken out of the environment: the exchange knows the request, which knows its environment, and a
        # ring of objects stays in memory until the garbage collector comes by.
        exchange = _request().environ.pop(_EXCHANGE, None)
        if exchange is not None and exchange.open and not exchange.streams:
            # Its exception went through to the server.
            run(exchange.abort("no response came of it"))
        tear_down(app, *args, **options)

    put(Flask, "preprocess_request", preprocess_request)
    put(Flask, "handle_http_exception", handle_http_exception)
    put(Flask, "process_response", process_response)
    put(Flask, "do_teardown_request", do_teardown_request)


def _application(app: Flask) -> Application:
    application: Application | None = app.extensions.get(EXTENSION)
    if application is None:
        application = app.extensions[EXTENSION] = Application(app)
    return application


def _handler(view: Any, method: str) -> Handler | None:
    """What is priced of a view for one method: the view, or that method of its class."""
    handler: Handler | None = marked(view)
    view_class = getattr(view, "view_class", None)
    if handler is not None or view_class is None:
        return handler
    names = [method.lower(), "get"] if method == "HEAD" else [method.lower()]
    function = next((found for name in names if (found := getattr(view_class, name, None)) is not None), None)
    handler = marked(function)
    return handler or marked(view_class.dispatch_request)


def _is_priced(view: Any) -> bool:
    methods = {"GET", *(getattr(view, "methods", None) or ())}
    return any(_handler(view, method) is not None for method in methods)


@lru_cache(maxsize=64)
def _variables(headers: tuple[str, ...]) -> list[tuple[str, str]]:
    """Where WSGI has a request's headers (PEP 3333)."""
    return [(name, "HTTP_" + name.upper().replace("-", "_")) for name in headers]


def _no_body() -> bytes:
    return b""


def _in_one_piece(response: Any) -> bytes | None:
    """The body of a response, if it is there as one piece: the usual case, which werkzeug's own ways to ask
    take five times as long to see."""
    pieces = response.response
    if type(pieces) is list and len(pieces) == 1 and not response.direct_passthrough:
        whole = pieces[0]
        if type(whole) is bytes:
            return whole
    return None


def _add_receipt(headers: Any, there: Iterable[tuple[str, str]], receipt: str) -> None:
    """As ``headers[RECEIPT_HEADER] = receipt``, where ``there`` is what is in them.

    Werkzeug searches every value for line breaks, which takes longer than all the rest and finds none in
    base64url. So the receipt is put straight into the list that it keeps, as long as it keeps one.
    """
    entries = getattr(headers, LIST, None)
    if type(entries) is list and not any(name.lower() == _RECEIPT for name, _ in there):
        entries.append((RECEIPT_HEADER, receipt))
    else:
        headers[RECEIPT_HEADER] = receipt


def _may_have_body(environ: Mapping[str, Any]) -> bool:
    """Whether there is anything to read; where the server ends the input by itself, it need not be said."""
    return (
        environ.get("CONTENT_LENGTH") not in (None, "", "0")
        or "HTTP_TRANSFER_ENCODING" in environ
        or ("wsgi.input_terminated" in environ and environ["REQUEST_METHOD"] not in ("GET", "HEAD"))
    )


def _too_large(most: int) -> Refused:
    return Refused(Problem("request_too_large", f"At most {most} bytes are taken."))


def _respond(app: Flask, answer: Answer, ours: bool = False) -> Any:
    """A response with exactly these headers; in ``ours`` no value has a line break."""
    headers = Headers()
    entries = getattr(headers, LIST, None)
    if ours and type(entries) is list:  # as in _add_receipt
        entries.extend(answer.headers)
    else:
        headers.extend(answer.headers)
    # A list, as werkzeug would make of the body itself, after it had measured it for a header of its own.
    response = app.response_class([answer.body], answer.status, headers)
    if response.headers is not headers or len(headers) != len(answer.headers):
        # The class has added some, such as the Content-Type that it has by default.
        response.headers.clear()
        response.headers.extend(answer.headers)
    return response

"""FastAPI (and Starlette's own routes in it): priced endpoints, routers, methods, streams.

Hooks: ``handle`` of routes, which every router calls for the one it has chosen, beneath all middlewares,
puts the exchange around a priced route; ``__init__`` of routes sees what becomes one, and writes the price
into its OpenAPI; ``build_middleware_stack``, which runs once when an application starts, adds the two
well-known addresses and looks for routes that are served free by mistake. So does ``__call__``, the first
time: an instrumentation may have put another ``build_middleware_stack`` in place for that one application,
before anything was priced.

Dependencies and validation come before the claim, which the endpoint makes itself: what they turn away (422)
costs nothing.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import fastapi.routing
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute

from tokenmesh.decorators import Handler
from tokenmesh.errors import ServingError
from tokenmesh.frameworks import base
from tokenmesh.frameworks.asgi import EXCHANGE, Conversation, Send, serve, serve_crashes
from tokenmesh.frameworks.asgi_body import Receive, Scope
from tokenmesh.frameworks.base import OFFERS_PATH, RECEIPTS_PATH, Framework, Site, put
from tokenmesh.provider import Answer
from tokenmesh.provider.terms import Terms
from tokenmesh.provider.views import VIEWS, marked
from tokenmesh.steps import arun

OPENAPI_PRICE = "x-tokens"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")
_CONVERTER = re.compile(r"{(\w+):(?!path})\w+}")
_DEPTH_MAX = 20
"""Applications mounted inside one another, and middlewares around one, that are looked through."""
_paths: dict[str, str] = {}
_sites: weakref.WeakKeyDictionary[Any, Site] = weakref.WeakKeyDictionary()
_mounted: weakref.WeakSet[Any] = weakref.WeakSet()
_called: weakref.WeakSet[Any] = weakref.WeakSet()


class FastAPIFramework(Framework):
    """The adapter for FastAPI, 0.115 and newer."""

    name = "fastapi"

    def install(self) -> None:
        routes: tuple[type, ...] = (fastapi.routing.APIRoute, Route)
        for route in routes:
            _hook_init(route)
            if "handle" in vars(route):
                _hook_handle(route)
        websockets: tuple[type, ...] = (fastapi.routing.APIWebSocketRoute, WebSocketRoute)
        for websocket in websockets:
            _hook_websocket(websocket)
        for application in (FastAPI, Starlette):
            if "build_middleware_stack" in vars(application):
                _hook_start(application)
        _hook_call(Starlette)


class _Conversation(Conversation):
    def request(self, scope: Scope, receive: Receive) -> Any:
        return StarletteRequest(scope, receive)

    def response(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        response = Response(body, status)
        response.raw_headers = headers
        return response


_CONVERSATION = _Conversation()


def _hook_handle(owner: Any) -> None:
    original = owner.handle

    async def handle(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None if EXCHANGE in scope else _handler(self, scope["method"])
        if handler is None:
            await original(self, scope, receive, send)
            return

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await original(self, scope, receive, send)

        await serve(handler, _template(self, scope), _CONVERSATION, app, scope, receive, send)

    put(owner, "handle", handle)


def _hook_init(owner: Any) -> None:
    original = owner.__init__

    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807 - it takes this one's place
        original(self, *args, **options)
        VIEWS.route(self.endpoint)
        handler = marked(self.endpoint)
        if handler is not None and hasattr(self, "openapi_extra"):
            self.openapi_extra = {OPENAPI_PRICE: _price(handler.terms), **(self.openapi_extra or {})}

    put(owner, "__init__", __init__)


def _hook_websocket(owner: Any) -> None:
    original = owner.__init__

    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807
        original(self, *args, **options)
        if marked(self.endpoint) is not None:
            raise ServingError(
                f"{marked(self.endpoint).name} is priced, and {self.path} is a WebSocket: a contract pays "
                "for one request and its response. Price the request that leads to it instead"
            )

    put(owner, "__init__", __init__)


class _ErrorPages(ServerErrorMiddleware):
    """The outermost middleware of an application with priced routes: what it answers has its receipt."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await serve_crashes(super().__call__, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _hook_start(owner: Any) -> None:
    original = owner.build_middleware_stack

    def build_middleware_stack(self: Any) -> Any:
        _start(self)
        return _guarded(self, original(self))

    put(owner, "build_middleware_stack", build_middleware_stack)


def _hook_call(owner: Any) -> None:
    original = owner.__call__

    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        if self not in _called:
            _start(self)
            self.middleware_stack = _guarded(self, self.middleware_stack or self.build_middleware_stack())
            _called.add(self)
        await original(self, scope, receive, send)

    put(owner, "__call__", __call__)


def _guarded(app: Any, stack: Any) -> Any:
    """The outermost middleware of ``app``, such that what it answers for a crash has its receipt."""
    if type(stack) is ServerErrorMiddleware and next(_priced(app), None) is not None:
        return _ErrorPages(stack.app, stack.handler, stack.debug)
    return stack


def _start(app: Any) -> None:
    """Look through an application that starts: what is priced, what is wrong, what it has to serve for us."""
    for _, endpoint, _, _ in _walk(app.routes):
        VIEWS.check(endpoint)
    if app in _sites or app in _mounted or next(_priced(app), None) is None:
        return
    site = _sites[app] = Site(lambda: _priced(app))

    async def offers(_: StarletteRequest) -> Response:
        return _respond(site.offers())

    async def receipt(request: StarletteRequest) -> Response:
        jti, payer = request.path_params["jti"], request.query_params.get("payer")
        return _respond(await arun(site.receipt(jti, payer)))

    # In front: a route for every path would hide them.
    app.router.routes[:0] = [
        Route(OFFERS_PATH, offers, include_in_schema=False),
        Route(RECEIPTS_PATH + "{jti}", receipt, include_in_schema=False),
    ]
    site.open_soon()


def _respond(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers
    ]
    return response


def _price(terms: Terms) -> Any:
    """As it stands in OpenAPI."""
    if terms.up_to is not None:
        return {"up_to": terms.up_to}
    return terms.tokens if isinstance(terms.tokens, int) else "by request"


# Routes


def _handler(route: Any, method: str) -> Handler | None:
    """What is priced of a route for one method: its endpoint, or that method of its class."""
    endpoint = route.endpoint
    handler: Handler | None = marked(endpoint)
    if handler is None:
        handler = _of_class(endpoint, method)
        if handler is None:
            return None
    # Another method than the route's: the route says 405.
    return handler if not route.methods or method in route.methods else None


def _of_class(endpoint: Any, method: str) -> Handler | None:
    if inspect.isclass(endpoint):
        found = getattr(endpoint, method.lower(), None)
        if found is None and method == "HEAD":
            found = getattr(endpoint, "get", None)
        handler: Handler | None = marked(found)
        return handler
    called: Handler | None = marked(getattr(endpoint, "__call__", None))  # noqa: B004
    return called


def _template(route: Any, scope: Scope) -> str:
    """The whole template of a route: as it stands in the router that included it, behind what is mounted."""
    # FastAPI joins included routers lazily (0.120 and newer); then the effective path stands in the scope.
    context = scope.get("fastapi", _NOTHING).get("effective_route_context")
    effective = route if context is None or context.original_route is not route else context
    path = _path(effective.path)
    before = scope.get("app_root_path")
    if before is None:
        return path
    prefix = scope["root_path"][len(before) :]
    values = {str(value): name for name, value in scope["path_params"].items()}
    for name in effective.param_convertors:
        values = {value: other for value, other in values.items() if other != name}
    segments = (f"{{{values[part]}}}" if part in values else part for part in prefix.split("/"))
    return "/".join(segments) + path


_NOTHING: dict[str, Any] = {}


def _path(path: str) -> str:
    """A template without converters, other than ``path``."""
    known = _paths.get(path)
    if known is None:
        known = _paths[path] = _CONVERTER.sub(r"{\1}", path)
    return known


def _walk(routes: Iterable[Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any, Any, Any]]:
    """All routes with an endpoint, in what is included and mounted too: path, endpoint, methods, route."""
    contexts = getattr(fastapi.routing, "iter_route_contexts", iter)
    for route in contexts(list(routes)):
        original = getattr(route, "original_route", route)
        path = prefix + (getattr(route, "path", "") or "")
        if isinstance(original, (Mount, Host)):
            inner = _application(original.app)
            if inner is not None and depth < _DEPTH_MAX:
                if isinstance(inner, Starlette):
                    _mounted.add(inner)
                yield from _walk(inner.routes, path if isinstance(original, Mount) else prefix, depth + 1)
        elif getattr(route, "endpoint", None) is not None:
            yield path, route.endpoint, getattr(route, "methods", None), original


def _application(app: Any) -> Any:
    """What has the routes of a mounted application, inside its middlewares."""
    for _ in range(_DEPTH_MAX):
        if app is None or hasattr(app, "routes"):
            return app
        app = getattr(app, "app", None)
    return None


def _priced(app: Any) -> Iterator[base.Route]:
    for path, endpoint, methods, _ in _walk(app.routes):
        for method in sorted(methods) if methods else _METHODS:
            handler: Handler | None = marked(endpoint) or _of_class(endpoint, method)
            if handler is not None:
                yield base.Route(handler, method, _path(path))

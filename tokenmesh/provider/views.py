"""Which functions are routes, and which lie beneath a priced handler: so that none is served free by mistake.

A decorator returns a new function, and a route serves the function that it was given. With ``@priced`` above
the route's decorator the route has the bare function, and would serve it free. Frameworks' adapters tell
here what becomes a route, :func:`tokenmesh.priced` what lies beneath it; both are told when that is wrong.

Everything is remembered weakly.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tokenmesh.errors import ServingError

MARK = "__tokenmesh__"
"""The attribute of a priced function that holds its handler. ``functools.wraps`` copies it upwards."""
_DEPTH_MAX = 100


class Marked(Protocol):
    """A priced handler. ``served`` is set once a route has it."""

    served: bool

    @property
    def name(self) -> str: ...


class Views:
    """What is known of functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = itertools.count(1)
        self._routes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._beneath: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()

    def now(self) -> int:
        """A moment, to be compared with those of routes."""
        return next(self._count)

    def route(self, view: Any) -> None:
        """``view`` has become a route."""
        handler = marked(view)
        if handler is not None:
            handler.served = True
            return
        with self._lock:
            for function in _chain(view):
                _note(self._routes, function, next(self._count))

    def price(self, function: Any, handler: Marked, since: int) -> None:
        """``function`` lies beneath ``handler``, whose decorator was made at the moment ``since``.

        Raises :class:`ServingError` if it became a route in between: that is what decorators in the wrong
        order do. A route from before is let be, for it may be meant: the same function, free elsewhere.
        """
        with self._lock:
            for one in _chain(function):
                if _look(self._routes, one, 0) > since:
                    raise ServingError(_wrong_order(one))
                handlers = _look(self._beneath, one, None)
                if handlers is None:
                    handlers = weakref.WeakSet()
                    _note(self._beneath, one, handlers)
                handlers.add(handler)

    def check(self, view: Any) -> None:
        """Raise :class:`ServingError` if this route serves free what no route serves priced."""
        if marked(view) is not None:
            return
        for function in _chain(view):
            handlers = list(_look(self._beneath, function, ()))
            if handlers and not any(handler.served for handler in handlers):
                raise ServingError(_wrong_order(function))


VIEWS = Views()


def marked(view: Any) -> Any:
    """The priced handler of a view, if it is priced as a whole."""
    handler = getattr(view, MARK, None)
    if handler is None and isinstance(view, functools.partial):
        return marked(view.func)
    return handler


def _chain(view: Any) -> Iterator[Any]:
    """A function and those that it wraps, as far as they say so."""
    for _ in range(_DEPTH_MAX):
        if isinstance(view, functools.partial):
            view = view.func
            continue
        if inspect.ismethod(view):
            view = view.__func__
        yield view
        view = getattr(view, "__wrapped__", None)
        if view is None:
            return


def _note(store: weakref.WeakKeyDictionary[Any, Any], key: Any, value: Any) -> None:
    try:
        store[key] = value
    except TypeError:
        # An object that cannot be a weak key: the check cannot cover it.
        return


def _look(store: weakref.WeakKeyDictionary[Any, Any], key: Any, default: Any) -> Any:
    try:
        return store.get(key, default)
    except TypeError:
        return default


def _wrong_order(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return (
        f"{name} would be served free: the route was given the function itself, not the priced one. Put "
        "@priced below the route's decorator, next to the function:\n\n"
        '    @app.get("/...")\n'
        "    @priced(...)\n"
        f"    def {name.rpartition('.')[2]}(...): ..."
    )

"""What every framework's adapter is made of.

An adapter hooks into its framework once, when that is imported (:meth:`Framework.install`). For each request
to a priced handler it makes an :class:`~tokenmesh.provider.Exchange` and drives it; for each application
with priced routes it serves the two well-known addresses from a :class:`Site`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from tokenmesh.decorators import Handler
from tokenmesh.errors import TokenmeshError
from tokenmesh.journal import StoredResponse
from tokenmesh.provider import Answer, Answered, AnyProvider, Exchange, Offer, Problem, Refused
from tokenmesh.provider.problems import Headers
from tokenmesh.steps import Steps
from tokenmesh.telemetry import log

OFFERS_PATH = "/.well-known/tokenmesh/offers"
RECEIPTS_PATH = "/.well-known/tokenmesh/receipts/"

_log = log("tokenmesh.frameworks")


class Framework(ABC):
    """An adapter for one web framework."""

    name: ClassVar[str]
    """The framework's package."""

    @abstractmethod
    def install(self) -> None:
        """Hook into the framework. Called once, when its package has been imported."""

    exchange: Callable[[Handler], Exchange | None] | None = None
    """Gives the exchange of the request that is being served in this context, if it is this framework's. Left
    out by adapters that put it into ``provider.exchange.current`` before they call the handler."""


class Route(NamedTuple):
    """A route that a handler serves; ``path`` is its template, with ``{x}`` and ``{x:path}``."""

    handler: Handler
    method: str
    path: str


class Site:
    """What one application serves for tokens: its offers, and the receipts of those who took them.

    ``routes`` gives the application's priced routes as they are now. One application is one payee: routes of
    another mesh than the first one's work, but are not offered here.
    """

    def __init__(self, routes: Callable[[], Iterable[Route]]) -> None:
        self._routes = routes
        self._first: Handler | None = None

    def _provider(self) -> AnyProvider:
        if self._first is None:
            self._first = next((route.handler for route in self._routes()), None)
        if self._first is None:
            raise Refused(Problem("receipt_unknown", "Nothing here costs tokens."))
        return self._first.provider()

    def open_soon(self) -> None:
        """Open the payees' meshes, in the background: what an earlier run of this service has left to settle
        is settled from now on, whether or not somebody calls."""
        handlers = {id(route.handler.mesh): route.handler for route in self._routes()}
        if not handlers:
            return
        opening = threading.Thread(
            target=_open, args=(list(handlers.values()),), name="tokenmesh-open", daemon=True
        )
        opening.start()

    def offers(self) -> Answer:
        """What stands at ``OFFERS_PATH``. Opens the payee's mesh if nothing has yet."""
        try:
            provider = self._provider()
            offers = [
                Offer.of(handler.terms, method, path)
                for handler, method, path in self._routes()
                if handler.terms.tokens != 0 and handler.provider() is provider
            ]
        except Answered as answered:
            return answered.answer
        body = json.dumps(provider.offers(offers), separators=(",", ":")).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return Answer(200, headers, body)

    def receipt(self, jti: str, payer: str | None) -> Steps[Answer]:
        """What stands at ``RECEIPTS_PATH`` for a contract id."""
        try:
            provider = self._provider()
        except Answered as answered:
            return answered.answer
        return (yield from provider.receipt(payer, jti))


def _open(handlers: list[Handler]) -> None:
    for handler in handlers:
        try:
            handler.provider()
        except Refused as refused:
            _log.warning("no calls of %s can be taken yet: %s", handler.name, refused.problem.detail)
        except TokenmeshError as error:
            _log.warning("no calls of %s can be taken: %s", handler.name, error)


class Recorder:
    """A response as it streams by: its digest, and its body as far as it is kept."""

    def __init__(self, kept_bytes_max: int) -> None:
        self._hash = hashlib.sha256()
        self._parts: list[bytes] | None = []
        self._room = kept_bytes_max

    def add(self, data: bytes) -> None:
        """The next piece."""
        self._hash.update(data)
        if self._parts is not None:
            self._room -= len(data)
            if self._room < 0:
                self._parts = None
            else:
                self._parts.append(data)

    def response(self, status: int, headers: Headers, *, complete: bool = True) -> StoredResponse:
        """What is stored of it; without its body if that was too large, or did not come to its end."""
        body = b"".join(self._parts) if complete and self._parts is not None else None
        digest = b64encode(self._hash.digest()).decode("ascii")
        return StoredResponse(status, headers, body, f"sha-256=:{digest}:")


def put(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Put ``function`` in the place of the method ``name``, of which it takes name and doc."""
    original = getattr(owner, name)
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(function, attribute, getattr(original, attribute))
    function.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(owner, name, function)

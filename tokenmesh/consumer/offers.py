"""What a payee offers, as its consumers know it: read once, kept for a while, put right by every 402."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, Protocol

from tokenmesh_chaincode.documents import is_form, target
from tokenmesh_chaincode.limits import TOKENS_MAX

OFFERS_PATH = "/.well-known/tokenmesh/offers"
DOMAINS_MAX = 1_000
"""Domains that a service can name; one that names more is taken to have named none."""
OFFERS_MAX = 10_000
"""Offers of one service that are read."""
TEMPLATE_LENGTH_MAX = 4096
PARAMETERS_MAX = 32
"""Parameters of one template; an offer whose path has more makes no sense."""

_PART = re.compile(r"\{([^{}:/]*)(:path)?\}")
_SEGMENT, _REST = "[^/]+", "(?:.+)"
"""Expressions, and marks: no part of a canonical path has a bracket or a question mark in it."""


class Pattern(Protocol):
    """A template, made ready: whether a path is one of its."""

    def fullmatch(self, path: str, /) -> object: ...


class Offer(NamedTuple):
    """What one operation costs. ``tokens`` is None if that depends on the request. With ``private`` its
    contracts have to be private."""

    operation: str
    method: str
    path: str
    tokens: int | None
    via: Literal["allowance", "hold"]
    private: bool = False


class Offers:
    """The offers of one service, looked up by method and path. Immutable.

    ``domains`` are the ids of those in which it is paid; None if it does not say.
    """

    def __init__(self, offers: Iterable[Offer], domains: Sequence[str] | None = None) -> None:
        self.domains = domains
        self._literal: dict[tuple[str, str], Offer] = {}
        patterns: list[tuple[tuple[int, ...], str, Pattern, Offer]] = []
        for offer in offers:
            if "{" in offer.path:
                patterns.append((_rank(offer.path), offer.method, _compile(offer.path), offer))
            else:
                self._literal[offer.method, _literal(offer.path)] = offer
        # A literal segment beats a parameter, from the left; a parameter beats the rest of the path.
        patterns.sort(key=lambda pattern: pattern[0])
        self._patterns = patterns

    def match(self, method: str, path: str) -> Offer | None:
        """The offer for a request; ``path`` is canonical (``documents.target``) and without query."""
        literal = self._literal.get((method, path))
        if literal is not None:
            return literal
        for _, its_method, pattern, offer in self._patterns:
            if its_method == method and pattern.fullmatch(path):
                return offer
        return None

    def with_these(self, offers: Iterable[Offer]) -> Offers:
        """These offers, with ``offers`` in the place of those for the same method and path."""
        mine = {(offer.method, offer.path): offer for offer in self}
        mine.update({(offer.method, offer.path): offer for offer in offers})
        return Offers(list(mine.values())[-OFFERS_MAX:], self.domains)

    def __iter__(self) -> Any:
        yield from self._literal.values()
        yield from (offer for *_, offer in self._patterns)


NO_OFFERS = Offers(())


def _rank(path: str) -> tuple[int, ...]:
    ranks = []
    for segment in path.split("/"):
        found = _PART.search(segment)
        ranks.append(0 if found is None else 2 if found[2] else 1)
    # Of two templates alike so far, the longer one says more.
    return (*ranks, 3)


def _compile(path: str) -> Pattern:
    parts, end = [], 0
    for part in _PART.finditer(path):
        parts += [_literal(path[end : part.start()]), _REST if part[2] else _SEGMENT]
        end = part.end()
    parts.append(_literal(path[end:]))
    *before, last = path.split("/")
    usual = all(sum(1 for _ in _PART.finditer(segment)) <= 1 for segment in (*before, last))
    if not usual or any(_rank(segment)[0] > 1 for segment in before):
        return _Divided(parts)
    return re.compile("".join(part if part in (_SEGMENT, _REST) else re.escape(part) for part in parts))


class _Divided:
    """A template with parameters that may divide the path among them in many ways: two in one segment, or
    something behind a ``:path``.

    An expression would try all of those ways, and the time that takes grows without a bound; templates come
    from the payee, and the time is the payer's. Here it is at most the path's length times the template's.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = [part for part in parts if part]

    def fullmatch(self, path: str) -> bool:
        ends = {0}
        for part in self._parts:
            if part == _REST:
                ends = set(range(min(ends) + 1, len(path) + 1))
            elif part == _SEGMENT:
                ends = _within_segments(path, ends)
            else:
                ends = {end + len(part) for end in ends if path.startswith(part, end)}
            if not ends:
                return False
        return len(path) in ends


def _within_segments(path: str, starts: set[int]) -> set[int]:
    """Where one or more characters other than a slash may end, that begin at one of ``starts``."""
    ends: set[int] = set()
    done = 0
    for start in sorted(starts):
        slash = path.find("/", start)
        stop = len(path) if slash < 0 else slash
        ends.update(range(max(start + 1, done), stop + 1))
        done = max(done, stop + 1)
    return ends


def _literal(text: str) -> str:
    """A part of a template as it stands in a canonical path."""
    return target(text.encode("utf-8", "surrogatepass")) if text else ""


def read_offers(data: Any) -> list[Offer]:
    """The offers in a list as JSON has it; ``ValueError`` if it is none. What makes no sense is left out."""
    if not isinstance(data, list):
        raise ValueError("offers are a list")  # noqa: TRY004 - the caller asks whether the JSON makes sense
    return [offer for offer in map(_read, data[:OFFERS_MAX]) if offer is not None]


def parse_offers(body: bytes) -> Offers:
    """The offers that a service publishes; ``ValueError`` if ``body`` is nothing of the kind."""
    try:
        document = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004
    return Offers(read_offers(document.get("offers")), _read_domains(document))


def _read_domains(document: dict[str, Any]) -> list[str] | None:
    data = document["domains"] if "domains" in document else [document.get("domain")]
    if not isinstance(data, list) or not 0 < len(data) <= DOMAINS_MAX:
        return None
    return data if all(is_form("dom", one) for one in data) else None


def _read(item: Any) -> Offer | None:
    if not isinstance(item, dict):
        return None
    operation, method, path, via = (item.get(name) for name in ("operation", "method", "path", "via"))
    tokens = item.get("up_to", item.get("tokens"))
    if tokens is not None and (type(tokens) is not int or not 0 <= tokens <= TOKENS_MAX):
        return None
    if not isinstance(path, str) or not path.startswith("/") or len(path) > TEMPLATE_LENGTH_MAX:
        return None
    if path.count("{") > PARAMETERS_MAX:
        return None
    if not isinstance(operation, str) or not isinstance(method, str):
        return None
    if not (is_form("op", operation) and is_form("htm", method) and via in ("allowance", "hold")):
        return None
    return Offer(operation, method, path, tokens, via, item.get("private") is True)


class Shelf:
    """What is known of one service: its offers, since when, and whether someone is asking for them now."""

    __slots__ = ("asking", "elsewhere", "offers", "read_at", "skew_s")

    def __init__(self) -> None:
        self.offers: Offers | None = None
        self.read_at = 0.0
        self.asking: Future[Any] | None = None
        self.elsewhere = ""
        """Where the service is paid, if that is not where this payer's calls of it are."""
        self.skew_s = 0.0
        """By how much the payee's clock is ahead of ours, as far as it has told."""


class OfferBook:
    """The shelves of all services; the least recently used goes when there are too many."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._shelves: OrderedDict[tuple[str, str], Shelf] = OrderedDict()

    def shelf(self, service: str, url: str) -> Shelf:
        """The shelf of ``service`` as found at ``url``."""
        key = (service, url)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves.setdefault(key, Shelf())
            while len(self._shelves) > self._size_max:
                self._shelves.popitem(last=False)
        return shelf

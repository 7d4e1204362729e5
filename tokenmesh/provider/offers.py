"""Offers: what a payee asks for its operations, as consumers read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tokenmesh.provider.terms import Terms, Via

OFFERS_MAX = 10_000
"""Operations that one service can offer."""


class Offer(NamedTuple):
    """What one operation costs. ``path`` is a template: ``{x}`` stands for one segment, ``{x:path}`` for any
    number of them. Without ``up_to``, ``tokens`` is None when the price depends on the request. With
    ``private`` a contract for it has to be private."""

    operation: str
    method: str
    path: str
    tokens: int | None
    up_to: int | None
    via: Via
    private: bool = False

    @classmethod
    def of(cls, terms: Terms, method: str, path: str) -> Offer:
        """The offer that ``terms`` make for one route."""
        tokens = terms.tokens if isinstance(terms.tokens, int) else None
        operation = terms.operation or f"{method} {path}"
        return cls(operation, method, path, tokens, terms.up_to, terms.via, terms.private)

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``offers``: ``up_to`` if there is one, else ``tokens``."""
        price = {"tokens": self.tokens} if self.up_to is None else {"up_to": self.up_to}
        return {
            "operation": self.operation,
            "method": self.method,
            "path": self.path,
            **price,
            "via": self.via,
            **({"private": True} if self.private else {}),
        }


def offers_document(
    service: str, domains: Sequence[str], offers: Iterable[Offer], contract_ttl_s: float
) -> dict[str, Any]:
    """What stands at ``/.well-known/tokenmesh/offers``.

    ``domains``: all in which the service is paid, its own first; empty while they are not all known, so that
    nobody concludes that one is not served.
    """
    document: dict[str, Any] = {"service": service}
    if domains:
        document["domain"] = domains[0]
    if len(domains) > 1:
        document["domains"] = list(domains)
    document["offers"] = [offer.to_json() for offer in itertools.islice(offers, OFFERS_MAX)]
    document["contract_ttl_s"] = int(contract_ttl_s)
    return document

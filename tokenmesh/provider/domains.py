"""The payee's side in several domains: each contract goes to the provider of the ledger that it is for.

A ledger that cannot be reached keeps nobody waiting but its own payers. As long as its domain's id is not
known, a contract for an unknown domain may be for it: that is answered 503, not 401.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from tokenmesh.config import Settings
from tokenmesh.provider.call import Call, parse
from tokenmesh.provider.offers import Offer, offers_document
from tokenmesh.provider.problems import Answer, Problem, Refused
from tokenmesh.provider.provider import Provider
from tokenmesh.provider.terms import Request, Terms
from tokenmesh.steps import Steps
from tokenmesh_chaincode.documents import Contract, DocumentError, Signed

Opening: TypeAlias = Callable[[], tuple[str, Provider] | BaseException]
"""Gives a domain's id and its provider at once, or the error for which they are not there (yet)."""


class Providers:
    """Takes contracts for the payee ``service`` in the domains of ``openings``, its own first."""

    def __init__(self, service: str, openings: Sequence[Opening], settings: Settings) -> None:
        self._service = service
        self.settings = settings
        self._openings = list(openings)
        self._open: dict[Opening, tuple[str, Provider]] = {}
        self._by_domain: dict[str, Provider] = {}
        self._failure: BaseException | None = None
        self._look()

    # Offers and receipts, as anyone may read them

    def offers(self, offers: Iterable[Offer]) -> dict[str, Any]:
        """What stands at ``/.well-known/tokenmesh/offers``; no ledger need be there for it."""
        self._look()
        domains = [] if self._failure is not None else list(self._by_domain)
        return offers_document(self._service, domains, offers, self.settings.contract_ttl_s)

    def receipt(self, payer: str | None, jti: str) -> Steps[Answer]:
        """What stands at ``/.well-known/tokenmesh/receipts/{jti}``, from whichever domain has it."""
        self._look()
        answer = None
        for provider in list(self._by_domain.values()):
            answer = yield from provider.receipt(payer, jti)
            if answer.status != 404:
                return answer
        if answer is None or self._failure is not None:
            return Problem("ledger_unavailable", self._unreached(), jti).answer()
        return answer

    # Contracts

    def check_at_once(self, request: Request, terms: Terms) -> Call | None:
        """Have a request's contract checked in its domain, and say who takes it: all further steps are those
        of ``call.provider``. See :meth:`Provider.check_at_once`."""
        if self._failure is not None:
            self._look()  # whoever comes is an occasion to try again
        signed = _read(request)
        domain = None if signed is None else signed.body.dom
        provider = self._any() if domain is None else self._by_domain.get(domain)
        if provider is not None:
            return provider.check_at_once(request, terms, signed)
        if terms.price(request).needed == 0:
            return None
        raise self._elsewhere(domain)

    # Which provider

    def _any(self) -> Provider | None:
        return next(iter(self._by_domain.values()), None)

    def _look(self) -> None:
        """Take up the domains that are there now, in their order."""
        failure = None
        for opening in self._openings:
            if opening not in self._open:
                opened = opening()
                if isinstance(opened, BaseException):
                    failure = failure or opened
                else:
                    self._open[opening] = opened
        found: dict[str, Provider] = {}
        for opening in self._openings:
            if opening in self._open:
                domain, provider = self._open[opening]
                found.setdefault(domain, provider)  # one ledger under two urls is one domain
        self._by_domain, self._failure = found, failure

    def _elsewhere(self, domain: str | None) -> Refused:
        if self._failure is not None or domain is None:
            wanted = "" if domain is None else f"It is for {domain}. "
            return Refused(Problem("ledger_unavailable", wanted + self._unreached()))
        served = " and ".join(self._by_domain)
        return Refused(Problem("other_domain", f"It is for {domain}, and this payee settles on {served}."))

    def _unreached(self) -> str:
        return f"Not all ledgers of this payee can be reached: {self._failure}."


def _read(request: Request) -> Signed[Contract] | None:
    """A request's contract; None if it has none, or one that any provider refuses unread."""
    if len(request.contracts) != 1:
        return None
    try:
        return parse(request.contracts[0])
    except DocumentError:
        return None


AnyProvider: TypeAlias = Provider | Providers
"""Who takes a payee's contracts, in one domain or in several."""

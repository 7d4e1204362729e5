"""A contract that came with a request: read, and carried through the provider until it has ended."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tokenmesh.journal import ClaimResult, NewClaim
from tokenmesh.provider.checks import NO_FUNDS, Fault
from tokenmesh.provider.offers import Offer
from tokenmesh.provider.problems import CATALOGUE, Problem, Refused
from tokenmesh.provider.terms import Price, Request, Terms
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Contract, DocumentError, Signed

if TYPE_CHECKING:
    from tokenmesh.provider.provider import Provider


class Call:
    """A contract that holds for a request; once it is claimed, the call while its handler runs.

    ``fault`` is why it would be refused if it were new: one that has ended earlier still gets its answer.
    ``holds`` is set once its payer was found to have signed it, ``checked`` once everything but the body has
    been looked at. ``charged`` is what will be owed, at most ``price.needed``. ``left`` is what the allowance
    has left. ``by`` is the journal's number for who has claimed it, ``result`` what the journal has said in
    place of a claim. ``provider`` is who takes it.
    """

    __slots__ = (
        "by",
        "charged",
        "checked",
        "contract",
        "fault",
        "funds",
        "holds",
        "left",
        "price",
        "provider",
        "request",
        "result",
        "signed",
        "terms",
    )

    def __init__(
        self, signed: Signed[Contract], request: Request, terms: Terms, price: Price, provider: Provider
    ) -> None:
        self.provider = provider
        self.signed = signed
        self.contract = signed.body
        self.request = request
        self.terms = terms
        self.price = price
        self.charged = price.default
        self.checked = False
        self.holds = False
        self.fault: Fault | None = None
        self.funds = NO_FUNDS
        self.left: int | None = None
        self.by: int | None = None
        self.result: ClaimResult | None = None

    def entry(self) -> NewClaim:
        """What the journal is to claim."""
        contract, funds = self.contract, self.funds
        # A named tuple's own constructor is a Python function around this.
        return tuple.__new__(
            NewClaim,
            (
                contract.iss,
                contract.jti,
                self.signed.text,
                contract.htm,
                contract.htu,
                contract.dig,
                contract.op,
                contract.tok,
                contract.via,
                contract.lane,
                contract.seq,
                contract.exp,
                funds.settle_by,
                funds.tokens,
            ),
        )


def read(request: Request, terms: Terms, price: Price) -> Signed[Contract]:
    """The contract of a request; raises :class:`Refused` unless there is exactly one, and it can be read."""
    if not request.contracts:
        detail = f"{request.operation} costs {price.needed} tokens."
        raise Refused(Problem("contract_required", detail, offers=offers(request, terms, price)))
    if len(request.contracts) > 1:
        raise Refused(Problem("not_a_contract", "There is more than one Token-Contract header."))
    try:
        return parse(request.contracts[0])
    except DocumentError as error:
        code = error.code if error.code in CATALOGUE else "not_a_contract"
        raise Refused(Problem(code, f"It was refused unread: {error}.")) from error


def parse(text: bytes) -> Signed[Contract]:
    """A contract as it was sent, a private one with its disclosure. Raises :class:`DocumentError`."""
    return documents.parse_presented(text) if b"~" in text else documents.parse_contract(text)


def offers(request: Request, terms: Terms, price: Price) -> str:
    """What the request could have been paid with, as JSON."""
    return _offers(
        request.operation, request.method, request.path, price.needed, terms.up_to, terms.via, terms.private
    )


@lru_cache(maxsize=1_024)
def _offers(*offered: Any) -> str:
    return json.dumps([Offer(*offered).to_json()], separators=(",", ":"), ensure_ascii=False)

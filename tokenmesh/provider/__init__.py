"""The payee's side of a call, free of any framework: what requests are checked against and answered with."""

from tokenmesh.provider.call import Call
from tokenmesh.provider.checks import Fault
from tokenmesh.provider.domains import AnyProvider, Providers
from tokenmesh.provider.exchange import Exchange
from tokenmesh.provider.offers import Offer
from tokenmesh.provider.problems import (
    CATALOGUE,
    CONTRACT_HEADER,
    RECEIPT_HEADER,
    Answer,
    Answered,
    Problem,
    Refused,
    Replayed,
)
from tokenmesh.provider.provider import Provider
from tokenmesh.provider.terms import Price, Request, Terms

__all__ = [
    "CATALOGUE",
    "CONTRACT_HEADER",
    "RECEIPT_HEADER",
    "Answer",
    "Answered",
    "AnyProvider",
    "Call",
    "Exchange",
    "Fault",
    "Offer",
    "Price",
    "Problem",
    "Provider",
    "Providers",
    "Refused",
    "Replayed",
    "Request",
    "Terms",
]

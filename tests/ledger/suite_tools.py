"""What the tests of ledgers have in common: names, and the steps that many of them take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from support.ledgers import Domain
from support.wallets import Clock
from tokenmesh_chaincode.documents import Operation, new_id, parse_contract, sign

PAYER, PAYEE, THIRD = "service-a", "service-b", "service-c"
NewDomain = Callable[..., Domain]
LIFE_S = 600


def id_of(text: str) -> str:
    return parse_contract(text).body.jti


def open_allowance(domain: Domain, tokens: int = 500, *, payer: str = PAYER, payee: str = PAYEE) -> str:
    allowance = new_id()
    terms = {"id": allowance, "payee": payee, "tokens": tokens, "exp": domain.now + LIFE_S}
    domain.do(payer, "open", terms)
    return allowance


def place_hold(domain: Domain, tokens: int = 5, *, payer: str = PAYER, payee: str = PAYEE) -> str:
    hold = new_id()
    domain.do(payer, "hold", {"id": hold, "payee": payee, "tokens": tokens, "exp": domain.now + LIFE_S})
    return hold


def contracts(domain: Domain, allowance: str, count: int, *, first: int = 0, tok: int = 5) -> list[str]:
    return [
        domain.contract(PAYER, PAYEE, via=allowance, lane="lane", seq=seq, tok=tok)
        for seq in range(first, first + count)
    ]


def settle(domain: Domain, *items: tuple[str, int], by: str = PAYEE) -> dict[str, Any]:
    return domain.do(by, "settle", {"items": [list(item) for item in items]})


def transfer(domain: Domain, by: Any = PAYER, **claims: Any) -> str:
    return domain.operation(by, "transfer", {"to": PAYEE, "tokens": 1}, **claims)


def imposter(domain: Domain) -> Any:
    """Somebody with a certificate for the payer's name, of the right authority, but not registered."""
    return domain.wallets.authority.new_identity(PAYER)


def resigned(domain: Domain) -> str:
    """The payer's operation with another amount, under the old signature."""
    honest = transfer(domain)
    signer = domain[PAYER]
    arg: Mapping[str, Any] = {"to": PAYEE, "tokens": 999}
    now = domain.now
    other = sign(
        Operation(domain.ledger.domain, signer.name, new_id(), now, now + 60, "transfer", dict(arg)), signer
    )
    return f"{other.rpartition('.')[0]}.{honest.rpartition('.')[2]}"


class Suite:
    """The fixtures of :class:`~ledger.ledger_suite.LedgerSuite`, which its parts share."""

    @pytest.fixture
    def new_domain(self) -> NewDomain:
        """``(tokens, policy) -> Domain``: a new ledger with these wallets and what differs in its policy."""
        raise NotImplementedError("a class that inherits LedgerSuite gives the fixture new_domain")

    @pytest.fixture
    def domain(self, new_domain: NewDomain) -> Domain:
        return new_domain({PAYER: 1_000, PAYEE: 0})

    @pytest.fixture
    def forward(self, domain: Domain) -> Callable[[float], None]:
        if not isinstance(domain.clock, Clock):
            pytest.skip("this ledger's clock cannot be held")
        return domain.clock.forward

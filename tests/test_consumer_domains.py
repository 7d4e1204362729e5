"""A payee of other domains than its payer pays in: found out from its offers, before it costs anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.market import PAYEE, PAYER, Market
from support.scripted import BODY, OFFER, Answer, Wire, problem, wire
from support.wallets import Clock
from tokenmesh.consumer.consumer import OFFERS_AGAIN_S
from tokenmesh.consumer.offers import DOMAINS_MAX
from tokenmesh.errors import OtherDomain, Refused
from tokenmesh_chaincode.documents import new_id

ELSEWHERE = "E59nLOi-9uu9_kWasoGbI2natuGJSRKRJ5WRIL5dsyk"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(tmp_path: Path, clock: Clock) -> Iterator[Wire]:
    market = Market(tmp_path, {PAYER: 1_000, PAYEE: 0}, clock=clock)
    yield wire(market, clock)
    market.close()


def offers(domains: Any) -> Any:
    """The payee's offers, which say where it is paid."""
    document = {"service": PAYEE, "offers": [OFFER], "domains": domains}
    return named(document)


def named(document: dict[str, Any]) -> Any:
    return lambda payee, contract: Answer(200, {}, json.dumps(document).encode())


def test_nothing_is_signed_or_set_aside_for_a_payee_of_another_domain(shop: Wire) -> None:
    """The error names the payee's domains, ours and its ledger, and how to map the service; it is final."""
    shop.payee.asks.append(offers([ELSEWHERE, ELSEWHERE[::-1]]))
    with pytest.raises(OtherDomain, match=r"ledger\.db.*TOKENMESH_DOMAINS") as caught:
        shop.call()
    for domain in (ELSEWHERE, ELSEWHERE[::-1], shop.payer.consumer.domain):
        assert domain in str(caught.value)
    assert (caught.value.spent, caught.value.service, caught.value.retryable) == ("no", PAYEE, False)
    assert (shop.sent, shop.slept) == ([], [])
    assert shop.payee.market.domain.balance(PAYER).allowed == 0


def test_a_payee_of_one_domain_names_it_alone(shop: Wire) -> None:
    """As every payee does that has one ledger, and did before there were several."""
    shop.payee.asks.append(named({"offers": [OFFER], "domain": ELSEWHERE}))
    with pytest.raises(OtherDomain, match=ELSEWHERE):
        shop.call()
    other = wire(shop.payee.market, shop.clock)
    other.payee.asks.append(named({"offers": [OFFER], "domain": other.payer.consumer.domain}))
    assert other.call().body == BODY


def test_what_is_not_priced_is_called_whatever_the_domain(shop: Wire) -> None:
    shop.payee.asks.append(offers([ELSEWHERE]))
    assert shop.call("/plain").body == BODY
    assert shop.sent == [None]


def test_a_payee_that_takes_our_domain_too_is_found_out_about_soon(shop: Wire, clock: Clock) -> None:
    """It may have begun to: its offers are not believed for as long as others."""
    shop.payee.asks.extend([offers([ELSEWHERE]), offers([ELSEWHERE, shop.payer.consumer.domain])])
    for _ in range(2):
        with pytest.raises(OtherDomain):
            shop.call()
    assert len(shop.asked) == 1
    clock.forward(OFFERS_AGAIN_S)
    assert shop.call().body == BODY
    assert len(shop.asked) == 2
    clock.forward(OFFERS_AGAIN_S)
    shop.call()
    assert len(shop.asked) == 2


@pytest.mark.parametrize(
    "domains",
    [None, [], "x", ["short"], [7], [ELSEWHERE, None], {ELSEWHERE: 1}, [ELSEWHERE] * (DOMAINS_MAX + 1)],
)
def test_a_payee_that_does_not_say_is_called_and_may_refuse(shop: Wire, domains: Any) -> None:
    """As one does that cannot reach all its ledgers, and one that knows nothing of ``domains``."""
    shop.payee.asks.append(offers(domains))
    shop.payee.script.append(problem(401, "other_domain"))
    with pytest.raises(Refused, match="other_domain"):
        shop.call()
    assert shop.call(key=new_id()).body == BODY

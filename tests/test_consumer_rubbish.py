"""What a payee, or whoever sits in its place, may answer: the call ends, and with an error of ours.

Each of these was found by ``make fuzz``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.market import PAYEE, PAYER, Market
from support.scripted import OFFER, URL, Answer, Wire, plain, wire
from support.wallets import Clock
from tokenmesh.consumer import CallOptions, OutRequest
from tokenmesh.consumer.offers import PARAMETERS_MAX, Offer, Offers, parse_offers, read_offers
from tokenmesh.errors import OutcomeUnknown
from tokenmesh.retry import Policy, never

ONCE = Policy(retry=never)
DEEP = b'{"code":' + b"[" * 100_000


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Wire]:
    clock = Clock()
    market = Market(tmp_path, {PAYER: 1_000_000, PAYEE: 0}, clock=clock)
    yield wire(market, clock)
    market.close()


def test_a_problem_nested_too_deeply_is_none(shop: Wire) -> None:
    """It is a failure without a receipt, like any that does not speak of contracts."""
    shop.payee.script.append(plain(500, DEEP, Content_Type="application/problem+json"))
    with pytest.raises(OutcomeUnknown, match="without a receipt"):
        shop.call(retry=ONCE)


def test_offers_nested_too_deeply_are_none(shop: Wire) -> None:
    """Without offers a call is tried without a contract, as if the payee had none."""
    shop.payee.asks.append(lambda *_: Answer(200, {}, DEEP))
    assert shop.call().status == 200
    assert shop.sent == [None]
    with pytest.raises(ValueError, match="nested"):
        parse_offers(DEEP)


@pytest.mark.parametrize("header", ["Retry-After", "Date"])
@pytest.mark.parametrize(
    "moment",
    ["Fri, 15 Jan 99999999999999999999 08:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 15 Jan 2027"],
)
def test_a_moment_that_is_none_is_not_waited_for(shop: Wire, header: str, moment: str) -> None:
    problem = b'{"code":"expired","title":"Late."}'
    headers = {"Content_Type": "application/problem+json", header.replace("-", "_"): moment}
    shop.payee.script.append(plain(401, problem, **headers))
    assert shop.call().status == 200
    assert shop.slept == []


def test_a_template_that_divides_a_path_in_many_ways_is_matched_at_once() -> None:
    """An expression would try more ways than there are atoms; templates are the payee's to choose."""
    path = "/" + "{a}" * PARAMETERS_MAX + "x"
    offers = Offers(read_offers([{**OFFER, "path": path}]))
    assert offers.match("GET", "/" + "a" * 2_000) is None
    assert offers.match("GET", "/" + "a" * 2_000 + "x") is not None
    more = "/" + "{a}" * (PARAMETERS_MAX + 1)
    assert read_offers([{**OFFER, "path": more}]) == []


def test_a_call_with_such_an_offer_goes_on(shop: Wire) -> None:
    shop.payee.offers = [{**OFFER, "path": "/quote/" + "{a}" * 30 + "x"}]
    request = OutRequest("GET", URL + "/quote/" + "a" * 500, "/quote/" + "a" * 500, b"")
    assert shop.run(shop.payer.consumer.call(PAYEE, request, CallOptions(URL))).status == 200


@given(
    st.lists(st.sampled_from(["{a}", "{b:path}", "a", "/", ".+", "{c}"]), max_size=6),
    st.text(alphabet="a/.+", max_size=8),
)
def test_every_template_matches_what_its_expression_would(parts: list[str], rest: str) -> None:
    """However its parameters lie; short paths, for which an expression has the time."""
    template, path = "/" + "".join(parts), "/" + rest
    pattern = "/"
    for part in parts:
        pattern += {"{b:path}": ".+"}.get(part, "[^/]+" if part.startswith("{") else re.escape(part))
    offer = Offer("GET /x", "GET", template, 5, "allowance")
    assert (Offers([offer]).match("GET", path) is not None) == (re.fullmatch(pattern, path) is not None)

"""Calls that got no answer: the next one for the same carries on their contract (script, held clock)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.market import Market
from support.scripted import BODY, OFFER, Wire, lost, no_connection, not_arrived, problem, voided, wire
from support.wallets import Clock
from tokenmesh.errors import NotSpent, OutcomeUnknown, Refused, Unreachable
from tokenmesh.retry import Policy, never

ONCE = Policy(retry=never)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    market = Market(tmp_path, clock=clock)
    yield market
    market.close()


@pytest.fixture
def shop(market: Market, clock: Clock) -> Wire:
    return wire(market, clock)


def ids(shop: Wire) -> list[str]:
    """The id of each contract that went out."""
    return [contract.jti for contract in shop.sent if contract]


def unanswered(shop: Wire, trouble: Any = lost, **request: Any) -> str:
    """Make a call that gets no answer; the id of its contract."""
    shop.payee.script.append(trouble)
    with pytest.raises(OutcomeUnknown):
        shop.call(retry=ONCE, **request)
    return ids(shop)[-1]


@pytest.mark.parametrize("trouble", [lost, not_arrived])
@pytest.mark.parametrize("via", ["allowance", "hold"])
def test_a_loop_around_a_call_pays_once(shop: Wire, trouble: Any, via: str) -> None:
    """No key, no retries of the client's own: the work is done once, and its response comes in the end."""
    for _ in range(3):
        unanswered(shop, trouble, via=via)
    assert shop.call(via=via).body == BODY
    assert len(set(ids(shop))) == 1
    assert list(shop.payee.ran.values()) == [1]


def test_what_may_be_meant_twice_is_another_contract(shop: Wire) -> None:
    """Two orders are two orders, unless their caller says that they are one."""
    shop.payee.offers = [{**OFFER, "method": "POST"}]
    first = unanswered(shop, method="POST")
    shop.call(method="POST")
    assert ids(shop)[-1] != first


def test_another_request_is_another_contract(shop: Wire) -> None:
    """Whatever a contract binds: target, method, body."""
    first = unanswered(shop)
    shop.call("/quote/ACME?currency=EUR")
    shop.call(body=b"{}")
    assert first not in ids(shop)[1:]
    shop.call()
    assert ids(shop)[-1] == first


def test_a_key_has_its_own_contract(shop: Wire) -> None:
    """It does not carry on what was called without one, nor the other way round."""
    first = unanswered(shop)
    keyed = unanswered(shop, key="report")
    shop.call()
    assert ids(shop)[-1] == first
    shop.call()
    assert ids(shop)[-1] not in (first, keyed)


def test_one_call_carries_a_contract_on(shop: Wire) -> None:
    """Two callers who ask for the same are two calls, each with a contract of its own."""
    first = unanswered(shop)
    shop.call()
    shop.call()
    assert ids(shop)[1] == first
    assert ids(shop)[2] != first


def test_two_calls_in_doubt_are_carried_on_by_two(shop: Wire) -> None:
    """Both were under way at once, and both were lost."""
    steps = [shop.steps(retry=ONCE) for _ in range(2)]
    for each in steps:
        shop.kill_after_sending(each)
    for each in steps:
        each.close()
    left = ids(shop)
    shop.call()
    shop.call()
    assert ids(shop)[2:] == left
    assert sorted(shop.payee.ran.values()) == [1, 1]


def test_a_call_that_was_cancelled_is_carried_on(shop: Wire) -> None:
    """The caller's own time-out is one more way to get no answer."""
    steps = shop.steps()
    shop.kill_after_sending(steps)
    steps.close()
    shop.call()
    assert len(set(ids(shop))) == 1
    assert list(shop.payee.ran.values()) == [1]


def test_what_never_went_out_is_not_carried_on(shop: Wire) -> None:
    shop.call()
    shop.payee.script.append(no_connection)
    with pytest.raises(NotSpent):
        shop.call(retry=ONCE)
    first = ids(shop)[-1]
    shop.call()
    assert ids(shop)[-1] != first


@pytest.mark.parametrize("refusal", [problem(401, "signature_invalid"), problem(403, "wallet_frozen")])
def test_a_refusal_does_not_make_it_certain(shop: Wire, refusal: Any) -> None:
    """The call that carries on is told no; what the earlier one did is as unknown as before. 403 is said only
    when no copy was taken, and one may be on its way still."""
    first = unanswered(shop, not_arrived)
    unanswered(shop, refusal)
    shop.call()
    assert set(ids(shop)) == {first}


def test_a_contract_that_ended_void_is_followed_by_a_new_one(shop: Wire) -> None:
    """As in any other call."""
    first = unanswered(shop, not_arrived)
    shop.payee.script.append(voided(503))
    assert shop.call().status == 200
    assert ids(shop)[1] == first
    assert ids(shop)[2] != first


def test_a_process_that_stood_still_asks_for_what_it_paid(shop: Wire, clock: Clock) -> None:
    """For longer than a contract is good; its life as one to carry on begins when the call ends."""

    def stand_still(payee: Any, contract: Any) -> Any:
        clock.forward(100)
        return lost(payee, contract)

    unanswered(shop, stand_still)
    shop.call()
    assert len(set(ids(shop))) == 1
    assert list(shop.payee.ran.values()) == [1]


def test_it_is_not_carried_on_for_ever(shop: Wire, clock: Clock) -> None:
    """Who asks for the same much later wants to know how it is now."""
    first = unanswered(shop)
    clock.forward(120)
    shop.call()
    assert ids(shop)[-1] != first


def test_who_cannot_send_it_again_does_not_prolong_its_life(shop: Wire, clock: Clock) -> None:
    """Nobody says that nothing was spent while that is open; but it is not open for ever."""
    first = unanswered(shop, not_arrived)
    for _ in range(2):
        clock.forward(50)
        unanswered(shop, no_connection)
    assert set(ids(shop)) == {first}
    clock.forward(50)
    shop.payee.script.append(no_connection)
    with pytest.raises(Unreachable):
        shop.call(retry=ONCE)


def test_a_hold_that_expired_is_not_carried_on_for_ever(shop: Wire) -> None:
    """The payee says that it is too late, which is certain; the next call begins anew."""
    first = unanswered(shop, not_arrived, via="hold")
    shop.payee.script.append(problem(402, "hold_ended"))
    with pytest.raises(Refused) as caught:
        shop.call(via="hold")
    assert caught.value.spent == "no"
    assert shop.call(via="hold").status == 200
    assert ids(shop)[:2] == [first, first]
    assert ids(shop)[-1] != first


def test_a_life_of_nothing_keeps_none(market: Market, clock: Clock) -> None:
    shop = wire(market, clock, unanswered_s=0)
    first = unanswered(shop)
    shop.call()
    assert ids(shop)[-1] != first


def test_they_are_bounded_in_number(market: Market, clock: Clock) -> None:
    """The oldest is forgotten: its call is then made anew."""
    shop = wire(market, clock, unanswered_max=2)
    first, second, third = (unanswered(shop, target=f"/quote/{name}") for name in ("A", "B", "C"))
    for name in ("A", "B", "C"):
        shop.call(f"/quote/{name}")
    again = ids(shop)[3:]
    assert again[0] != first
    assert again[1:] == [second, third]

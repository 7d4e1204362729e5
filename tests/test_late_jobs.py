"""A job by hold that is tried again under its key when its hold is long over: done once, charged once.

A real payee on a real socket, with a clock that the test holds. The payer is killed between its two tries, or
was away for longer than a hold lasts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import tenacity

from support.market import PAYEE, PAYER, Market, Seller
from support.serving import Cut, serve_wsgi
from tokenmesh.decorators import current_contract, priced
from tokenmesh.errors import OutcomeUnknown, ResponseNotKept
from tokenmesh.steps import run
from tokenmesh_chaincode.documents import derived_id

PRICE = 7
KEY = "order-17"
LATER_S = 400
"""A hold lasts 300 s, and can still be settled for another 300."""
RETENTION_S = 86_400
"""How long a payee keeps what it has answered."""
ONCE = tenacity.Retrying(stop=tenacity.stop_after_attempt(1))


class Time:
    """The real clock, put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Shop:
    """A payee that takes holds; the wire before it loses responses while ``loses``."""

    def __init__(self, market: Market, clock: Time, seller: Seller) -> None:
        self.market = market
        self.clock = clock
        self.seller = seller
        self.loses = False
        self.ran: Counter[str] = Counter()
        self.app = flask.Flask("late")
        self.app.post("/orders")(priced(tokens=PRICE, via="hold", mesh=seller)(self._order))

    def _order(self) -> dict[str, int]:
        contract = current_contract()
        assert contract is not None
        self.ran[contract.jti] += 1
        return {"ran": self.ran.total()}

    def order(self, url: str, key: str = KEY, **options: Any) -> Any:
        """What a payer gets that has just been started."""
        with self.market.payer().client(PAYEE, url=url, **options) as client:
            return client.post("/orders", json={"number": 17}, idempotency_key=key)

    def earned(self) -> int:
        self.seller.settle()
        return self.market.domain.total(PAYEE)

    def first_id(self) -> str:
        return derived_id(self.market.domain.ledger.domain, PAYER, PAYEE, KEY)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    clock = Time()
    market = Market(tmp_path, clock=clock)
    yield Shop(market, clock, market.seller())
    market.close()


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    with serve_wsgi(shop.app, Cut(lambda path: shop.loses and path == "/orders")) as url:
        yield url


def fulfil_unheard(shop: Shop, url: str) -> None:
    """The job is done, and its payer never hears of it."""
    shop.loses = True
    with pytest.raises(OutcomeUnknown):
        shop.order(url, retry=ONCE)
    shop.loses = False
    assert shop.ran == {shop.first_id(): 1}


@pytest.mark.parametrize("settled", [True, False])
def test_what_was_fulfilled_then_is_answered_now(shop: Shop, url: str, settled: bool) -> None:
    """The stored response, whether or not it has been settled meanwhile."""
    fulfil_unheard(shop, url)
    if settled:
        assert shop.earned() == PRICE
    shop.clock.ahead = LATER_S
    response = shop.order(url)
    assert response.json() == {"ran": 1}
    assert response.extensions["tokenmesh"].charged == PRICE
    assert shop.ran == {shop.first_id(): 1}
    assert shop.earned() == PRICE


def test_what_was_never_taken_is_done_now(shop: Shop, url: str) -> None:
    """Under the next contract of the same key, and so it is the next time, too."""
    payer = shop.market.payer()
    run(payer.treasury.place_hold(PAYEE, PRICE, shop.first_id()))
    shop.clock.ahead = LATER_S
    for _ in range(2):
        response = shop.order(url)
        assert response.json() == {"ran": 1}
        assert response.extensions["tokenmesh"].charged == PRICE
    assert shop.first_id() not in shop.ran
    assert shop.earned() == PRICE


def test_what_everyone_but_the_ledger_has_forgotten_is_not_done_again(shop: Shop, url: str) -> None:
    """The payee keeps answers for a while only: then the payer hears that it has paid, and for what."""
    fulfil_unheard(shop, url)
    shop.order(url, key="the next job, as a journal keeps its newest entry")
    assert shop.earned() == 2 * PRICE
    shop.clock.ahead = 3 * RETENTION_S
    shop.seller.journal.heartbeat(shop.clock())
    shop.seller.journal.prune(shop.clock())
    assert shop.seller.journal.find(PAYER, shop.first_id()) is None
    with pytest.raises(ResponseNotKept) as error:
        shop.order(url)
    assert error.value.contract_id == shop.first_id()
    assert shop.ran.total() == 2
    assert shop.earned() == 2 * PRICE

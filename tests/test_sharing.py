"""Two processes of one service pay from the same allowances, without a word between them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import pytest

from support.market import PAYEE, PAYER, Market
from support.serving import serve_wsgi
from tokenmesh.decorators import priced

PROCESSES = 3
CALLS = 120
PRICE = 5


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path, {PAYER: 10_000, PAYEE: 0})
    yield market
    market.close()


def test_processes_share_allowances_without_waiting_for_each_other(market: Market) -> None:
    """Each believes that all of it is left: the payee says when it is not, and the call goes on with more."""
    seller = market.seller()
    app = flask.Flask("shared")

    @app.get("/item/<int:n>")
    @priced(tokens=PRICE, mesh=seller)
    def item(n: int) -> dict[str, int]:
        return {"n": n}

    with serve_wsgi(app) as url:

        def process(number: int, allowance_calls: int = 20) -> list[Any]:
            payer = market.payer(allowance_calls=allowance_calls)
            with payer.client(PAYEE, url=url) as client:
                return [client.get(f"/item/{n}") for n in range(CALLS)]

        answers = process(0, allowance_calls=2 * CALLS)  # what it leaves is for the others to find
        with ThreadPoolExecutor(PROCESSES - 1) as pool:
            answers += [answer for each in pool.map(process, range(1, PROCESSES)) for answer in each]

    assert all(answer.status_code == 200 for answer in answers)
    assert len({answer.extensions["tokenmesh"].contract_id for answer in answers}) == PROCESSES * CALLS
    seller.settle()
    assert market.domain.total(PAYEE) == PROCESSES * CALLS * PRICE
    assert market.domain.total(PAYER) == 10_000 - PROCESSES * CALLS * PRICE
    assert market.domain.ledger.supply().result(10).conserved
    opened = market.domain.ledger.allowances(PAYER).result(10)
    assert any(len(allowance.lanes) > 1 for allowance in opened), "an allowance was used by several"

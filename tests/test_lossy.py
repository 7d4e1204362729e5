"""A lossy wire: 1,000 calls, one response in five lost after the work, a real socket closed each time.

Nobody is overcharged, nothing is done twice under one contract, no token is made or lost, and what is left
over comes back when allowances expire.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fastapi
import flask
import pytest

from support.ledgers import SUPPLY
from support.market import PAYEE, PAYER, Market, Payer, Seller
from support.serving import Cut, serve_asgi, serve_wsgi
from tokenmesh.consumer import CallInfo
from tokenmesh.decorators import current_contract, priced
from tokenmesh.ledger import Ledger
from tokenmesh.steps import run
from tokenmesh_chaincode.documents import parse_contract, parse_operation

CALLS = 1_000
LOST = 0.2
AT_ONCE = 16
PRICE = 3


class Time:
    """The real clock, and later the time when everything has expired."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def market(tmp_path: Path, clock: Time) -> Iterator[Market]:
    market = Market(tmp_path, clock=clock)
    yield market
    market.close()


def flask_app(seller: Seller, ran: Counter[str]) -> Any:
    app = flask.Flask("lossy")

    @app.get("/item/<name>")
    @priced(tokens=PRICE, mesh=seller)
    def item(name: str) -> dict[str, str]:
        contract = current_contract()
        assert contract is not None
        ran[contract.jti] += 1
        return {"name": name}

    return app


def fastapi_app(seller: Seller, ran: Counter[str]) -> Any:
    app = fastapi.FastAPI()

    @app.get("/item/{name}")
    @priced(tokens=PRICE, mesh=seller)
    async def item(name: str) -> dict[str, str]:
        contract = current_contract()
        assert contract is not None
        ran[contract.jti] += 1
        return {"name": name}

    return app


def sync_calls(payer: Payer, url: str) -> list[tuple[Any, CallInfo]]:
    """Sixteen threads share one client."""
    with payer.client(PAYEE, url=url) as client, ThreadPoolExecutor(AT_ONCE) as pool:

        def call(n: int) -> tuple[Any, CallInfo]:
            response = client.get(f"/item/{n}")
            return response.json(), response.extensions["tokenmesh"]

        return list(pool.map(call, range(CALLS)))


def async_calls(payer: Payer, url: str) -> list[tuple[Any, CallInfo]]:
    """Sixteen tasks share one client."""

    async def calls() -> list[tuple[Any, CallInfo]]:
        found: list[Any] = [None] * CALLS
        numbers = iter(range(CALLS))
        async with payer.async_client(PAYEE, url=url) as client:

            async def work() -> None:
                for n in numbers:
                    response = await client.get(f"/item/{n}")
                    found[n] = response.json(), response.extensions["tokenmesh"]

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return found

    return asyncio.run(calls())


def settled(ledger: Ledger) -> dict[str, list[int]]:
    """What was charged for each contract, each time that it was settled: from the ledger's whole history."""
    charged: dict[str, list[int]] = {}
    after = 0
    while listed := ledger.transactions(after=after).result(10):
        after = listed[-1].number
        for one in listed:
            whole = ledger.transaction(one.tx_id).result(10)
            assert whole is not None
            for operation in whole.operations:
                if operation.act != "settle":
                    continue
                assert operation.outcome.detail["refused"] == {}
                assert operation.document is not None
                for text, tokens in parse_operation(operation.document).body.arg["items"]:
                    charged.setdefault(parse_contract(text).body.jti, []).append(tokens)
    return charged


@pytest.mark.timeout(300)  # seven seconds, unless everybody else runs too
@pytest.mark.parametrize(
    ("make_app", "serve", "calls"),
    [(flask_app, serve_wsgi, sync_calls), (fastapi_app, serve_asgi, async_calls)],
    ids=["flask-sync", "fastapi-async"],
)
def test_a_thousand_calls_over_a_lossy_wire(
    market: Market, clock: Time, make_app: Any, serve: Any, calls: Any
) -> None:
    """0 overcharged, 0 run twice, supply unchanged, nothing stranded."""
    chance = random.Random(20)
    cut = Cut(lambda path: chance.random() < LOST)
    seller, payer, ran = market.seller(), market.payer(retry_attempts_max=12), Counter[str]()
    with serve(make_app(seller, ran), cut) as url:
        answers = calls(payer, url)

    assert [body for body, _ in answers] == [{"name": str(n)} for n in range(CALLS)]
    assert cut.lost > CALLS * LOST * 0.8
    contracts = Counter(info.contract_id for _, info in answers)
    assert contracts == ran, "every contract ran once, and no other"
    assert len(ran) == CALLS
    assert {info.charged for _, info in answers} == {PRICE}

    seller.settle()
    ledger = market.domain.ledger
    assert market.domain.total(PAYEE) == CALLS * PRICE
    assert market.domain.total(PAYER) == 1_000_000 - CALLS * PRICE
    assert settled(ledger) == {str(jti): [PRICE] for jti in contracts}

    supply = ledger.supply().result(10)
    assert supply.conserved
    assert supply.minted == SUPPLY

    assert market.domain.balance(PAYER).allowed > 0
    clock.ahead = 3_600 + 300
    run(payer.treasury.upkeep())
    balance = market.domain.balance(PAYER)
    assert (balance.allowed, balance.held) == (0, 0)
    assert balance.spendable + balance.credits == 1_000_000 - CALLS * PRICE
    assert ledger.supply().result(10) == supply

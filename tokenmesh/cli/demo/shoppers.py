"""The shoppers: they look around, fill a cart, and sometimes buy. All of them pay from one wallet.

A process of its own (``python -m tokenmesh.cli.demo.shoppers SEED SHOPPERS SECONDS``). What each shopper
wants comes from the seed. An order that did not work out is tried again under the same id, as a person
would press the button again: it must not be paid for twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx

from tokenmesh import calls
from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.notes import Notes
from tokenmesh.cli.demo.plan import SHOPPER, Paths
from tokenmesh.errors import CallError

ORDER_TRIES_MAX = 4
DOOR_POLL_S = 0.05
THINK_S = (0.05, 0.25)
CURRENCIES = ("CHF", "EUR", "GBP", "JPY", "USD")


@calls("frontend", max_tokens=20)
async def look(service: httpx.AsyncClient, path: str, params: dict[str, str] | None = None) -> dict[str, Any]:
    page: dict[str, Any] = (await service.get(path, params=params)).raise_for_status().json()
    return page


@calls("frontend", max_tokens=20)
async def put_into_cart(service: httpx.AsyncClient, shopper: str, product: str, quantity: int) -> None:
    line = {"product": product, "quantity": quantity}
    (await service.put(f"/carts/{shopper}/lines", json=line)).raise_for_status()


@calls("frontend", max_tokens=40)
async def order(service: httpx.AsyncClient, what: dict[str, str]) -> dict[str, Any]:
    response = await service.post("/orders", json=what, headers={"Idempotency-Key": what["id"]})
    placed: dict[str, Any] = response.raise_for_status().json()
    return placed


class Shopper:
    """One shopper, with dice of its own."""

    def __init__(self, number: int, seed: int, visits: Notes) -> None:
        self._name = f"shopper-{number}"
        self._seed = seed
        self._dice: random.Random = seeded(seed, self._name)
        self._visits = visits
        self._orders = 0

    async def shop(self, until: float) -> None:
        """Come back again and again until it is late."""
        while time.monotonic() < until:
            await self._round(until)

    async def _round(self, until: float) -> None:
        home = await self._visit("home", look("/", {"shopper": self._name}))
        wanted = home["products"] if home else ["kettle", "lantern"]
        for _ in range(self._dice.randint(1, 4)):
            if time.monotonic() >= until:
                return
            product = self._dice.choice(wanted)
            currency = self._dice.choice(CURRENCIES)
            await self._visit("product", look(f"/products/{product}", {"currency": currency}))
            if self._dice.random() < 0.5:
                quantity = self._dice.randint(1, 3)
                await self._visit("add to cart", put_into_cart(self._name, product, quantity))
        if self._dice.random() < 0.6:
            cart = await self._visit("cart", look(f"/carts/{self._name}"))
            if cart and cart["lines"]:
                await self._buy(until)

    async def _buy(self, until: float) -> None:
        self._orders += 1
        what = {
            "id": f"{self._seed}-{self._name}-{self._orders}",
            "shopper": self._name,
            "card": f"4000-{self._dice.randrange(10_000):04}",
            "currency": self._dice.choice(CURRENCIES),
        }
        for _ in range(ORDER_TRIES_MAX):
            if await self._visit("order", order(what)) is not None or time.monotonic() >= until:
                return

    async def _visit(self, page: str, call: Awaitable[dict[str, Any] | None]) -> dict[str, Any] | None:
        """Make one call to the frontend, note how it went, and think about it for a while."""
        began = time.monotonic()
        outcome, found = "ok", None
        try:
            found = await call
        except (CallError, httpx.HTTPError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else ""
            outcome = f"{type(error).__name__} {status}".strip()
        self._visits.write(
            t=time.time(),
            shopper=self._name,
            page=page,
            ms=round((time.monotonic() - began) * 1000, 1),
            outcome=outcome,
        )
        await asyncio.sleep(self._dice.uniform(*THINK_S))
        return found


async def main(seed: int, shoppers: int, seconds: float) -> None:
    """Wait for the door to open, then shop for so many seconds."""
    paths = Paths(Path(os.environ["TOKENMESH_HOME"]))
    visits = Notes(paths.visits)
    while not paths.door.exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(DOOR_POLL_S)
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(1, shoppers + 1):
            group.create_task(Shopper(number, seed, visits).shop(until))


if __name__ == "__main__":
    exporting.begin(SHOPPER)
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

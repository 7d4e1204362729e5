"""The counter, on FastAPI: the cart, and the checkout that calls nearly everyone."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tokenmesh import calls, priced
from tokenmesh.cli.demo.exporting import watched
from tokenmesh.cli.demo.shop.house import because, note_run, or_else, spanned
from tokenmesh.errors import CallError

CARTS_MAX = 10_000

cart = watched(FastAPI(title="cart"))
carts: dict[str, dict[str, int]] = {}
"""In memory: who kills the cart empties it, as in many a real shop."""


class Line(BaseModel):
    product: str = Field(max_length=40)
    quantity: int = Field(ge=1, le=10)


@cart.get("/carts/{shopper}")
@priced(tokens=1)
@spanned
async def show(shopper: str) -> list[Line]:
    note_run()
    return [Line(product=product, quantity=quantity) for product, quantity in carts.get(shopper, {}).items()]


@cart.put("/carts/{shopper}/lines")
@priced(tokens=1)
@spanned
async def put(shopper: str, line: Line) -> dict[str, int]:
    note_run()
    if shopper not in carts and len(carts) >= CARTS_MAX:
        raise HTTPException(507, "too many carts")
    carts.setdefault(shopper, {})[line.product] = line.quantity
    return {"lines": len(carts[shopper])}


@cart.delete("/carts/{shopper}", status_code=204)
@priced(tokens=1)
@spanned
async def empty(shopper: str) -> None:
    note_run()
    carts.pop(shopper, None)


checkout = watched(FastAPI(title="checkout"))


class Order(BaseModel):
    id: str = Field(max_length=60)
    shopper: str
    card: str
    currency: Literal["CHF", "EUR", "GBP", "JPY", "USD"]


@calls("cart")
async def lines_of(service: httpx.AsyncClient, shopper: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = (await service.get(f"/carts/{shopper}")).raise_for_status().json()
    return lines


@calls("cart")
async def empty_cart(service: httpx.AsyncClient, shopper: str) -> None:
    (await service.delete(f"/carts/{shopper}")).raise_for_status()


@calls("productcatalog")
async def product(service: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await service.get(f"/products/{name}")).raise_for_status().json()
    return found


@calls("currency")
async def converted(service: httpx.AsyncClient, cents: int, currency: str) -> int:
    response = await service.get(f"/conversions/{currency}", params={"cents": cents})
    return int(response.raise_for_status().json()["amount"])


# The order's id makes the contract: tried again after a crash of the checkout itself, it is the same one,
# so the card is charged once and the parcel goes out once.
@calls("payment", via="hold")
async def pay(service: httpx.AsyncClient, order: Order, cents: int) -> bool:
    bill = {"cents": cents, "card": order.card}
    response = await service.post("/charges", json=bill, headers={"Idempotency-Key": order.id})
    return bool(response.raise_for_status().json()["charged"])


@calls("shipping")
async def shipping_cost(service: httpx.AsyncClient, grams: int, to: str) -> int:
    response = await service.post("/quotes", json={"grams": grams, "to": to})
    return int(response.raise_for_status().json()["cents"])


@calls("shipping", max_tokens=50)
async def ship(service: httpx.AsyncClient, order: Order, grams: int) -> int:
    goods = {"grams": grams, "to": order.shopper}
    response = await service.post("/shipments", json=goods, headers={"Idempotency-Key": order.id})
    return int(response.raise_for_status().json()["parcels"])


@calls("email")
async def write(service: httpx.AsyncClient, to: str, text: str) -> bool:
    response = await service.post("/letters", json={"to": to, "text": text})
    return response.raise_for_status().is_success


@checkout.post("/orders", status_code=201)
@priced(tokens=25, fulfilled_when=lambda response: response.status_code == 201)
@spanned
async def place(order: Order, response: Response) -> dict[str, Any]:
    note_run()
    lines = await lines_of(order.shopper)
    if not lines:
        raise HTTPException(404, "the cart is empty")
    products = await asyncio.gather(*(product(line["product"]) for line in lines))
    quantities = [line["quantity"] for line in lines]
    grams = sum(one["grams"] * count for one, count in zip(products, quantities, strict=True))
    cents = sum(one["cents"] * count for one, count in zip(products, quantities, strict=True))
    cents += await shipping_cost(grams, order.shopper)
    amount = await converted(cents, order.currency)
    if not await pay(order, cents):
        response.status_code = 200
        return {"placed": False, "why": "the card was declined"}
    parcels = await ship(order, grams)
    # From here on the order stands. What is missing below is a nuisance, not a reason to undo it.
    text = f"{parcels} parcels are on their way; {amount} {order.currency} were taken."
    await or_else(write(order.shopper, text), instead=False, without="a letter")
    await or_else(empty_cart(order.shopper), instead=None, without="emptying the cart")
    return {"placed": True, "amount": amount, "currency": order.currency, "parcels": parcels}


@checkout.exception_handler(CallError)
@checkout.exception_handler(httpx.HTTPError)
async def failed_dependency(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(because(error), status_code=424)

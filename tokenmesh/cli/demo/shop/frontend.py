"""The frontend, on FastAPI: what a shopper sees. It pays seven services and goes on without most of them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tokenmesh import calls, priced
from tokenmesh.cli.demo.exporting import watched
from tokenmesh.cli.demo.shop.house import because, note_run, or_else, spanned
from tokenmesh.errors import CallError

app = watched(FastAPI(title="frontend"))


@calls("productcatalog", max_tokens=5)
async def products(service: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await service.get("/products")).raise_for_status().json()
    return found


@calls("productcatalog", max_tokens=5)
async def product(service: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await service.get(f"/products/{name}")).raise_for_status().json()
    return found


@calls("recommendation", max_tokens=5)
async def recommended(service: httpx.AsyncClient, name: str) -> list[str]:
    names: list[str] = (await service.get(f"/recommendations/{name}")).raise_for_status().json()
    return names


@calls("ad", max_tokens=5)
async def advertisement(service: httpx.AsyncClient, context: str) -> str:
    response = await service.get("/ads", params={"context": context})
    return str(response.raise_for_status().json()["text"])


@calls("currency", max_tokens=5)
async def currencies(service: httpx.AsyncClient) -> list[str]:
    codes: list[str] = (await service.get("/currencies")).raise_for_status().json()
    return codes


@calls("currency", max_tokens=5)
async def price(service: httpx.AsyncClient, cents: int, code: str) -> int:
    response = await service.get(f"/conversions/{code}", params={"cents": cents})
    return int(response.raise_for_status().json()["amount"])


@calls("cart", max_tokens=5)
async def cart_lines(service: httpx.AsyncClient, shopper: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = (await service.get(f"/carts/{shopper}")).raise_for_status().json()
    return lines


@calls("cart", max_tokens=5)
async def put_into_cart(service: httpx.AsyncClient, shopper: str, line: dict[str, Any]) -> int:
    response = await service.put(f"/carts/{shopper}/lines", json=line)
    return int(response.raise_for_status().json()["lines"])


@calls("shipping", max_tokens=5)
async def shipping_cost(service: httpx.AsyncClient, grams: int, to: str) -> int:
    response = await service.post("/quotes", json={"grams": grams, "to": to})
    return int(response.raise_for_status().json()["cents"])


@calls("checkout", max_tokens=40)
async def check_out(service: httpx.AsyncClient, order: dict[str, Any]) -> dict[str, Any]:
    response = await service.post("/orders", json=order, headers={"Idempotency-Key": order["id"]})
    placed: dict[str, Any] = response.raise_for_status().json()
    return placed


@app.get("/")
@priced(tokens=12)
@spanned
async def home(shopper: str) -> dict[str, Any]:
    note_run()
    wares, codes, text, lines = await asyncio.gather(
        products(),
        or_else(currencies(), instead=["EUR"], without="currencies"),
        or_else(advertisement(""), instead="", without="an ad"),
        or_else(cart_lines(shopper), instead=[], without="a cart"),
    )
    return {"products": [one["id"] for one in wares], "currencies": codes, "ad": text, "cart": len(lines)}


@app.get("/products/{name}")
@priced(tokens=10)
@spanned
async def show_product(name: str, currency: str = "EUR") -> dict[str, Any]:
    note_run()
    found = await product(name)
    amount, others, text = await asyncio.gather(
        price(found["cents"], currency),
        or_else(recommended(name), instead=[], without="recommendations"),
        or_else(advertisement(name), instead="", without="an ad"),
    )
    return {"name": found["name"], "amount": amount, "recommended": others, "ad": text}


class Line(BaseModel):
    product: str
    quantity: int = Field(ge=1, le=10)


@app.put("/carts/{shopper}/lines")
@priced(tokens=3)
@spanned
async def add_line(shopper: str, line: Line) -> dict[str, int]:
    note_run()
    return {"lines": await put_into_cart(shopper, line.model_dump())}


@app.get("/carts/{shopper}")
@priced(tokens=8)
@spanned
async def show_cart(shopper: str) -> dict[str, Any]:
    note_run()
    lines = await cart_lines(shopper)
    grams = 500 * sum(line["quantity"] for line in lines)
    last = lines[-1]["product"] if lines else "kettle"
    cost, others = await asyncio.gather(
        or_else(shipping_cost(grams, shopper), instead=None, without="shipping cost"),
        or_else(recommended(last), instead=[], without="recommendations"),
    )
    return {"lines": lines, "shipping": cost, "recommended": others}


class Order(BaseModel):
    id: str
    shopper: str
    card: str
    currency: str


@app.post("/orders")
@priced(tokens=30)
@spanned
async def place_order(order: Order) -> dict[str, Any]:
    note_run()
    placed: dict[str, Any] = await check_out(order.model_dump())
    return placed


@app.exception_handler(CallError)
@app.exception_handler(httpx.HTTPError)
async def failed_dependency(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(because(error), status_code=424)

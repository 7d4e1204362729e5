"""The shop window, on Flask: the product catalogue, recommendations from it, and advertisements."""

from __future__ import annotations

import httpx
from flask import Flask, Response, abort, jsonify, request

from tokenmesh import calls, priced
from tokenmesh.cli.demo.exporting import watched
from tokenmesh.cli.demo.shop.house import because, note_run, spanned
from tokenmesh.errors import CallError

PRODUCTS = {
    "compass": {"name": "A compass that points home", "cents": 4900, "grams": 120},
    "hourglass": {"name": "An hourglass of eleven minutes", "cents": 2350, "grams": 400},
    "kettle": {"name": "A kettle with a patient whistle", "cents": 5600, "grams": 1300},
    "lantern": {"name": "A lantern for the way back", "cents": 3900, "grams": 900},
    "notebook": {"name": "A notebook with numbered pages", "cents": 1200, "grams": 300},
    "scarf": {"name": "A scarf of one long thread", "cents": 2800, "grams": 200},
    "teapot": {"name": "A teapot that does not drip", "cents": 4400, "grams": 1100},
    "umbrella": {"name": "An umbrella for two", "cents": 3100, "grams": 700},
    "watering-can": {"name": "A watering can for tall shelves", "cents": 2700, "grams": 800},
}

productcatalog = watched(Flask("productcatalog"))


@productcatalog.get("/products")
@priced(tokens=3)
@spanned
def list_products() -> Response:
    note_run()
    return jsonify([{"id": key, **product} for key, product in PRODUCTS.items()])


@productcatalog.get("/products/<product>")
@priced(tokens=1)
@spanned
def get_product(product: str) -> Response:
    note_run()
    if product not in PRODUCTS:
        abort(404)  # no such product: nothing is owed for saying so
    return jsonify({"id": product, **PRODUCTS[product]})


recommendation = watched(Flask("recommendation"))


@calls("productcatalog", max_tokens=5)
def all_products(service: httpx.Client) -> list[dict[str, str]]:
    products: list[dict[str, str]] = service.get("/products").raise_for_status().json()
    return products


# It earns two tokens and pays three: a business that cannot last, and in the demo it does not.
@recommendation.get("/recommendations/<product>")
@priced(tokens=2)
@spanned
def recommend(product: str) -> Response:
    note_run()
    others = [other["id"] for other in all_products() if other["id"] != product]
    start = len(product) % len(others)
    return jsonify((others[start:] + others[:start])[:3])


@recommendation.errorhandler(CallError)
@recommendation.errorhandler(httpx.HTTPError)
def failed_dependency(error: Exception) -> tuple[Response, int]:
    return jsonify(because(error)), 424


ad = watched(Flask("ad"))


def of_public_interest(*_: object) -> bool:
    return request.args.get("context") == "umbrella"


@ad.get("/ads")
@priced(tokens=1, exempt_when=of_public_interest)
@spanned
def advertise() -> Response:
    note_run()
    context = request.args.get("context", "")
    if of_public_interest():
        return jsonify({"text": "Rain is expected. This announcement costs nothing."})
    return jsonify({"text": f"Whoever likes the {context or 'shop'} will like what stands next to it."})

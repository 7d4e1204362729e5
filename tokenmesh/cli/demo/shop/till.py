"""The till, on Flask: what money is worth elsewhere, and taking it."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from tokenmesh import priced
from tokenmesh.cli.demo.exporting import watched
from tokenmesh.cli.demo.shop.house import note_run, spanned

PER_EURO = {"CHF": 0.95, "EUR": 1.0, "GBP": 0.85, "JPY": 162.0, "USD": 1.08}

currency = watched(Flask("currency"))


@currency.get("/currencies")
@priced(tokens=1)
@spanned
def list_currencies() -> Response:
    note_run()
    return jsonify(sorted(PER_EURO))


@currency.get("/conversions/<code>")
@priced(tokens=1)
@spanned
def convert(code: str) -> tuple[Response, int]:
    note_run()
    if code not in PER_EURO:
        return jsonify({"detail": f"no rate for {code}"}), 404
    return jsonify({"currency": code, "amount": round(int(request.args["cents"]) * PER_EURO[code])}), 200


payment = watched(Flask("payment"))


def fee(*_: object) -> int:
    """One token for each ten euros, five at the least."""
    return max(5, int(request.get_json()["cents"]) // 1000)


# A hold: the tokens are set aside on the ledger before the card is touched. A declined card is an answer
# like any other to the caller (200), but no work that anyone pays for.
@payment.post("/charges")
@priced(tokens=fee, via="hold", fulfilled_when=lambda response: response.status_code == 201)
@spanned
def charge_card() -> tuple[Response, int]:
    note_run()
    card = request.get_json()["card"]
    if card.endswith("0"):
        return jsonify({"charged": False, "why": "the card was declined"}), 200
    return jsonify({"charged": True, "card": card[-4:]}), 201

"""x402 as its documentation has it, for the lossy scoreboard: FastAPI middleware and httpx client.

    python lossy_x402.py payee SPEC
    python lossy_x402.py payer FILE

Runs in x402's own environment. Everything that can be left out is left out, so its defaults hold.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lossy_jobs import handle, report, serve, work

NETWORK = "eip155:84532"


def payee(spec: dict[str, Any]) -> None:
    """The priced service."""
    from fastapi import FastAPI
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient
    from x402.http.middleware.fastapi import payment_middleware
    from x402.http.types import PaymentOption, RouteConfig
    from x402.mechanisms.evm.exact import ExactEvmServerScheme
    from x402.server import x402ResourceServer

    app, runs = FastAPI(), Counter[str]()
    server = x402ResourceServer(HTTPFacilitatorClient(FacilitatorConfig(url=spec["facilitator"])))
    server.register(NETWORK, ExactEvmServerScheme())
    option = PaymentOption(scheme="exact", pay_to=spec["pay_to"], price=spec["price"], network=NETWORK)
    app.middleware("http")(payment_middleware({"GET /item/*": RouteConfig(accepts=[option])}, server))

    @app.get("/item/{name}")
    async def item(name: str) -> Any:
        return await handle(name, runs)

    @app.get("/seen")
    async def seen() -> dict[str, Any]:
        return {"runs": runs}

    serve(app, spec)


async def payer(spec: dict[str, Any]) -> None:
    """The paying caller. A hook of the client notes for which request each payment was made."""
    from eth_account import Account
    from x402 import x402Client
    from x402.http.clients import wrapHttpxWithPayment
    from x402.mechanisms.evm.exact import ExactEvmScheme

    payments: dict[str, str] = {}
    client = x402Client()
    client.register("eip155:*", ExactEvmScheme(signer=Account.from_key(spec["key"])))

    def note(context: Any) -> None:
        payload = context.payment_payload
        nonce = payload.payload["authorization"]["nonce"]
        payments[nonce.lower()] = payload.resource.url.removeprefix(spec["url"])

    client.on_after_payment_creation(note)
    async with wrapHttpxWithPayment(client, base_url=spec["url"]) as http:

        async def get(path: str) -> int:
            return (await http.get(path)).status_code

        ends = await work(spec, get)
    report(spec, ends=ends, payments=payments)


if __name__ == "__main__":
    if sys.argv[1] == "payee":
        payee(json.loads(sys.argv[2]))
    else:
        asyncio.run(payer(json.loads(Path(sys.argv[2]).read_text())))

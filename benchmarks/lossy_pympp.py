"""pympp as its documentation has it, for the lossy scoreboard: ``@pay`` on FastAPI handlers, ``Mpp`` client.

    python lossy_pympp.py payee SPEC
    python lossy_pympp.py payer FILE

The payment method is pympp's own ``evm``, settled by the local facilitator. Runs in pympp's own environment.
Everything that can be left out is left out, so its defaults hold.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lossy_jobs import handle, report, serve, work


def payee(spec: dict[str, Any]) -> None:
    """The priced service."""
    from fastapi import FastAPI, Request
    from mpp.methods.evm import BASE_SEPOLIA_USDC
    from mpp.methods.evm import server as evm
    from mpp.server import Mpp, pay

    app, runs = FastAPI(), Counter[str]()
    method = evm.charge(currency=BASE_SEPOLIA_USDC, recipient=spec["pay_to"], facilitator=spec["facilitator"])
    mpp = Mpp(methods=method, secret_key=secrets.token_hex(32))

    async def item(request: Request, credential: Any, receipt: Any) -> Any:  # noqa: ARG001 - pympp's names
        return await handle(request.path_params["name"], runs)

    item.__annotations__["request"] = Request  # a name of this function: FastAPI could not look it up
    app.get("/item/{name}", response_model=None)(pay(mpp.charge(amount=spec["price"]))(item))

    @app.get("/seen")
    async def seen() -> dict[str, Any]:
        return {"runs": runs}

    serve(app, spec)


async def payer(spec: dict[str, Any]) -> None:
    """The paying caller. An event of the client notes for which request each payment was made."""
    from eth_account import Account
    from mpp.client import Mpp
    from mpp.methods.evm import BASE_SEPOLIA_USDC
    from mpp.methods.evm import client as evm

    payments: dict[str, str] = {}
    method = evm.charge(currency=BASE_SEPOLIA_USDC, account=Account.from_key(spec["key"]))

    def note(event: Any) -> None:
        payments[event["credential"].payload["nonce"].lower()] = event["request"].url.path

    async with Mpp(methods=[method]) as mpp:
        mpp.on_credential_created(note)

        async def get(path: str) -> int:
            return (await mpp.fetch(spec["url"] + path)).status_code

        ends = await work(spec, get)
    report(spec, ends=ends, payments=payments)


if __name__ == "__main__":
    if sys.argv[1] == "payee":
        payee(json.loads(sys.argv[2]))
    else:
        asyncio.run(payer(json.loads(Path(sys.argv[2]).read_text())))

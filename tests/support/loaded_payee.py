"""A payee under load: work paid out of an allowance, and by hold; every run of a handler is noted."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI

from tokenmesh import current_contract, priced

RUNS = Path(os.environ.get("RUNS", "runs"))
PRICE = 5

fastapi_app = FastAPI()


def work(job: str) -> dict[str, str]:
    contract = current_contract()
    assert contract is not None
    with RUNS.open("a") as runs:
        runs.write(f"{contract.jti}\n")
    return {"job": job}


@fastapi_app.post("/drawn/{job}")
@priced(tokens=PRICE)
def drawn(job: str) -> dict[str, str]:
    return work(job)


@fastapi_app.post("/held/{job}")
@priced(tokens=PRICE, via="hold")
def held(job: str) -> dict[str, str]:
    return work(job)

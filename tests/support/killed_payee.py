"""A payee that kills itself with SIGKILL at a chosen point, once; then its supervisor starts it again.

``KILL_AT`` names the point and ``KILL_MARK`` the file that says it has been done. The points are put around
the product's own journal and ledger, from outside. Every run of the handler is noted in the file ``RUNS``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from flask import Flask

from tokenmesh import current_contract, default_mesh, priced

POINTS = ("claim", "claimed", "running", "worked", "fulfilled", "sending", "sent")
"""Before and after the claim, inside the handler, after it, after it was fulfilled (and so before the
response), before a settlement is sent, and after the ledger has it (and so before the journal knows)."""

KILL_AT = os.environ.get("KILL_AT")
MARK = Path(os.environ.get("KILL_MARK", "killed"))
RUNS = Path(os.environ.get("RUNS", "runs"))

flask_app = Flask("payee")
fastapi_app = FastAPI()


def die(point: str) -> None:
    """Die here, if this is the point and nobody has died yet."""
    if point != KILL_AT:
        return
    try:
        os.close(os.open(MARK, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, before: str | None, after: str | None) -> None:
    """Die before or after a method of a living object is called."""
    method: Callable[..., Any] = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        if before:
            die(before)
        result = method(*args, **kwargs)
        if after:
            if hasattr(result, "result"):
                result.result()
            die(after)
        return result

    setattr(owner, name, called)


def work(what: str) -> dict[str, str]:
    contract = current_contract()
    assert contract is not None
    with RUNS.open("a") as runs:
        runs.write(f"{contract.jti}\n")
    if what == "slow":
        time.sleep(0.3)
    die("running")
    return {"done": what}


@flask_app.get("/work/<what>")
@priced(tokens=5)
def flask_get(what: str) -> dict[str, str]:
    return work(what)


@flask_app.post("/work/<what>")
@priced(tokens=5)
def flask_post(what: str) -> dict[str, str]:
    return work(what)


@fastapi_app.get("/work/{what}")
@priced(tokens=5)
def fastapi_get(what: str) -> dict[str, str]:
    return work(what)


@fastapi_app.post("/work/{what}")
@priced(tokens=5)
async def fastapi_post(what: str) -> dict[str, str]:
    return work(what)


if KILL_AT in POINTS:
    mesh = default_mesh()
    around(mesh.journal, "claim", "claim", "claimed")
    around(mesh.journal, "fulfil", "worked", "fulfilled")
    around(mesh.ledger, "submit", "sending", "sent")

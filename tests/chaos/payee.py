"""The payee: one service on two workers and one journal, on Flask or on FastAPI.

Every run of a handler is noted before the work and after it, in a file that is synced each time. The notes
know nothing of the journal, so a handler that ran twice for one contract cannot hide.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

from chaos.notes import DurableNotes, Folder
from chaos.offers import DRAWN, HELD_MOST, LOOK, fails, worth
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from flask import Flask, jsonify

from tokenmesh import charge, current_contract, priced

WORK_S_MAX = 0.02

NOTES = DurableNotes(Folder(Path(os.environ["CHAOS_FOLDER"])).runs)

flask_app = Flask("payee")
fastapi_app = FastAPI()


def work(job: str, charged: int) -> tuple[dict[str, Any], int]:
    """Do the work; the response's body and status. The body names the run, so that a replay shows."""
    contract = current_contract()
    assert contract is not None
    run = secrets.token_hex(8)
    NOTES.write(begun=run, payer=contract.iss, jti=contract.jti, job=job, pid=os.getpid())
    time.sleep(secrets.randbelow(1000) / 1000 * WORK_S_MAX)
    done = not fails(job)
    NOTES.write(done=run, charged=charged if done else 0)
    return {"job": job, "run": run}, 200 if done else 422


def work_held(job: str) -> tuple[dict[str, Any], int]:
    body, status = work(job, worth(job))
    charge(worth(job))
    return body, status


@flask_app.post("/drawn/<job>")
@priced(tokens=DRAWN)
def flask_drawn(job: str) -> Any:
    body, status = work(job, DRAWN)
    return jsonify(body), status


@flask_app.post("/held/<job>")
@priced(up_to=HELD_MOST, via="hold")
def flask_held(job: str) -> Any:
    body, status = work_held(job)
    return jsonify(body), status


@flask_app.get("/look/<job>")
@priced(tokens=LOOK)
def flask_look(job: str) -> Any:
    body, status = work(job, LOOK)
    return jsonify(body), status


@fastapi_app.post("/drawn/{job}")
@priced(tokens=DRAWN)
def fastapi_drawn(job: str) -> JSONResponse:
    body, status = work(job, DRAWN)
    return JSONResponse(body, status)


@fastapi_app.post("/held/{job}")
@priced(up_to=HELD_MOST, via="hold")
def fastapi_held(job: str) -> JSONResponse:
    body, status = work_held(job)
    return JSONResponse(body, status)


@fastapi_app.get("/look/{job}")
@priced(tokens=LOOK)
def fastapi_look(job: str) -> JSONResponse:
    body, status = work(job, LOOK)
    return JSONResponse(body, status)

"""FastAPI under the stock instrumentation, which puts a ``build_middleware_stack`` of its own into place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from support.exchanges import over_asgi
from support.payee import Payee
from tokenmesh.decorators import priced
from tokenmesh_chaincode import documents

TESTS = Path(__file__).parent.parent
BEFORE_ANYTHING_IS_PRICED = """
import sys
from pathlib import Path
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from support.exchanges import over_asgi
from support.payee import Payee
from tokenmesh.decorators import priced

app = FastAPI()
FastAPIInstrumentor.instrument_app(app)
payee = Payee(Path(sys.argv[1]))

@app.get("/quote")
@priced(tokens=5, mesh=payee)
def quote() -> str:
    return "quote"

offers = over_asgi(app, "GET", "/.well-known/tokenmesh/offers")
reply = over_asgi(app, "GET", "/quote", headers=[("Token-Contract", payee.contract("GET /quote"))])
print([offer["operation"] for offer in offers.json()["offers"]], reply.status, payee.receipt(
    reply.header("Token-Receipt")).out)
payee.close()
"""


@pytest.fixture
def payee(tmp_path: Path) -> Iterator[Payee]:
    payee = Payee(tmp_path)
    yield payee
    payee.close()


def test_an_application_that_was_instrumented_first(tmp_path: Path) -> None:
    """As ``opentelemetry-instrument`` does it: when the first handler is priced, the application is there.

    In a process of its own: in this one something was priced long ago.
    """
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_ANYTHING_IS_PRICED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['GET /quote'] 200 fulfilled\n", done.stdout + done.stderr


@pytest.mark.parametrize("first", [True, False])
def test_what_is_answered_for_a_crash_has_its_receipt(payee: Payee, first: bool) -> None:
    """Though the middleware that answers is no longer the outermost one."""
    app = FastAPI()
    if first:
        FastAPIInstrumentor.instrument_app(app)

    @app.get("/boom")
    @priced(tokens=5, mesh=payee)
    def boom() -> str:
        raise ZeroDivisionError

    if not first:
        FastAPIInstrumentor.instrument_app(app)

    async def server(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await app(scope, receive, send)

    contract = payee.contract("GET /boom")
    for _ in range(2):
        reply = over_asgi(
            server if payee.state(contract) is None else app,
            "GET",
            "/boom",
            headers=[("Token-Contract", contract)],
        )
        assert (reply.status, reply.body) == (500, b"Internal Server Error")
        receipt = payee.receipt(reply.header("Token-Receipt") or "")
        assert (receipt.out, receipt.tok) == ("void", 0)
        assert receipt.dig == documents.digest(reply.body)
    assert payee.state(contract) == "void"
    FastAPIInstrumentor.uninstrument_app(app)


def test_an_application_that_is_no_longer_instrumented(payee: Payee) -> None:
    app = FastAPI()
    FastAPIInstrumentor.instrument_app(app)

    @app.get("/quote")
    @priced(tokens=5, mesh=payee)
    def quote() -> str:
        return "quote"

    FastAPIInstrumentor.uninstrument_app(app)
    offers = over_asgi(app, "GET", "/.well-known/tokenmesh/offers")
    assert [offer["operation"] for offer in offers.json()["offers"]] == ["GET /quote"]

"""A payee and a payer of tokenmesh as its documentation has them, for the lossy scoreboard.

    python -m tokenmesh_benchmarks.lossy_tokenmesh_service payee SPEC
    python -m tokenmesh_benchmarks.lossy_tokenmesh_service payer FILE

Wallet, home and ledger come from the environment, as for any service.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tokenmesh import Mesh, calls, priced
from tokenmesh.config import Settings
from tokenmesh.domain import Domain
from tokenmesh.errors import LedgerOutcomeUnknown, OutcomeUnknown
from tokenmesh.ledger import Ledger
from tokenmesh.retry import Policy, never
from tokenmesh_benchmarks.lossy_jobs import Get, handle, report, serve, work
from tokenmesh_chaincode.documents import parse_operation

TOKENS = 5
PAYEE = "payee"


class AnswersLost:
    """A ledger of which the first answer to every settlement is lost, after it took effect."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: set[str] = set()
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def submit(self, operations: Sequence[str], **options: Any) -> Future[Any]:
        given: Future[Any] = Future()
        asked = {one.jti for text in operations if (one := parse_operation(text).body).act == "settle"}
        fresh = asked - self._seen
        self._seen |= asked

        def pass_on(answer: Future[Any]) -> None:
            error = answer.exception()
            if error is None and fresh:
                self.lost += 1
                error = LedgerOutcomeUnknown("the answer was lost")
            if error is not None:
                given.set_exception(error)
            else:
                given.set_result(answer.result())

        self._ledger.submit(operations, **options).add_done_callback(pass_on)
        return given


class ForgetfulDomain(Domain):
    """One whose ledger's answers to settlements are lost."""

    @property
    def ledger(self) -> Any:
        found = super().ledger
        return self._parts.get("answers lost", lambda: AnswersLost(found))

    def close(self, seconds: float = 10.0) -> None:
        super().close(seconds)


def payee(spec: dict[str, Any]) -> None:
    """The priced service. What it has earned is settled before it ends."""
    from fastapi import FastAPI

    runs = Counter[str]()
    mesh = ForgetfulDomain(Settings.from_environment()) if spec["forgetful"] else Mesh()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with closing(mesh):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/item/{name}")
    @priced(tokens=TOKENS, mesh=mesh)
    async def item(name: str) -> Any:
        return await handle(name, runs)

    @app.post("/item/{name}")
    @priced(tokens=TOKENS, mesh=mesh)
    async def new_item(name: str) -> Any:
        return await handle(name, runs)

    @app.get("/seen")
    async def seen() -> dict[str, Any]:
        return {"runs": runs, "lost_settlements": getattr(mesh.ledger, "lost", 0)}

    serve(app, spec)


async def payer(spec: dict[str, Any]) -> None:
    """The paying caller."""
    retry = Policy(retry=never) if spec["bare"] else None

    @calls(PAYEE, retry=retry)
    async def get(service: Any, path: str, **options: Any) -> int:
        response = await service.request(spec["method"], path, **options)
        return int(response.status_code)

    async def as_its_errors_say(path: str) -> int:
        while True:
            try:
                return await get(path, idempotency_key=path)
            except OutcomeUnknown:
                pass  # "Call again with the same idempotency key"

    chosen: Get = get if spec["naive"] else as_its_errors_say
    report(spec, ends=await work(spec, chosen))


if __name__ == "__main__":
    if sys.argv[1] == "payee":
        payee(json.loads(sys.argv[2]))
    else:
        asyncio.run(payer(json.loads(Path(sys.argv[2]).read_text())))

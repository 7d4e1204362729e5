"""The caller and the handler of the lossy scoreboard, the same for every system; for ``lossy.py``.

This runs in the environments of the peers too, so it takes nothing but the standard library and FastAPI.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

AT_ONCE = 16
TRIES_MAX = 1_000
WORK_S = 0.2
"""How long the handler works where copies are to meet."""

Get = Callable[[str], Awaitable[int]]


async def work(spec: dict[str, Any], get: Get) -> dict[str, Any]:
    """Do all jobs, sixteen at once, with ``get``, which gives a status or raises; how each of them ended."""
    ends: dict[str, Any] = {}
    paths = iter(spec["paths"])

    async def caller() -> None:
        for path in paths:
            ends[path] = await _job(path, get, naive=spec["naive"])

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return ends


async def _job(path: str, get: Get, *, naive: bool) -> dict[str, Any]:
    """One job. Naive: whatever went wrong, again. ``errors`` is what went wrong, try by try."""
    errors: list[str] = []
    while True:
        try:
            status = await get(path)
        except Exception as error:
            errors.append(_name(error))
        else:
            if status == 200:
                return {"answered": True, "errors": errors}
            errors.append(str(status))
        if not naive or len(errors) == TRIES_MAX:
            return {"answered": False, "errors": errors}


def _name(error: BaseException) -> str:
    """An error's class, and that of what it came from."""
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    names = dict.fromkeys((type(error).__name__, type(cause).__name__))
    return " from ".join(names)


def report(spec: dict[str, Any], **findings: Any) -> None:
    """Leave what was found where the benchmark looks for it."""
    Path(spec["result"]).write_text(json.dumps(findings))


async def handle(name: str, runs: Counter[str]) -> Any:
    """The handler that is priced: its response."""
    from fastapi.responses import JSONResponse

    runs[f"/item/{name}"] += 1
    if name.startswith("copies"):
        await asyncio.sleep(WORK_S)
    if name.startswith("failing"):
        return JSONResponse({"error": "the handler failed"}, 500)
    return JSONResponse({"name": name})


def serve(app: Any, spec: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=spec["port"], log_level="warning")

"""A service on FastAPI that earns and pays: it asks the weather, and sells advice.

TOKENMESH_SERVICE=trips uvicorn trips:app --port 8002
"""

from __future__ import annotations

import httpx
from fastapi import FastAPI, HTTPException

from tokenmesh import calls, priced
from tokenmesh.errors import CallError

app = FastAPI()


@calls("weather", max_tokens=5)
async def weather_in(service: httpx.AsyncClient, city: str) -> str:
    response = await service.get(f"/today/{city}")
    if response.status_code == 404:
        raise HTTPException(404, f"we do not travel to {city}")
    return str(response.raise_for_status().json()["weather"])


@app.get("/advice/{city}")
@priced(tokens=5)
async def advice(city: str) -> dict[str, str]:
    try:
        weather = await weather_in(city)
    except CallError as error:
        # Our own caller pays nothing for a 503, and is told to come back.
        raise HTTPException(503, "the weather does not answer", {"Retry-After": "1"}) from error
    return {"city": city, "take": {"sun": "a hat", "rain": "an umbrella"}.get(weather, "a coat")}

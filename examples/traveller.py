"""A payer, in four ways: a decorated function, and clients of httpx (sync, async) and requests.

TOKENMESH_SERVICE=traveller python traveller.py
"""

from __future__ import annotations

import asyncio

import httpx

from tokenmesh import calls, default_mesh


@calls("trips", max_tokens=10)
def take_along(service: httpx.Client, city: str) -> str:
    return str(service.get(f"/advice/{city}").raise_for_status().json()["take"])


async def forecast(city: str, days: int) -> list[str]:
    async with default_mesh().async_client("weather") as client:
        response = await client.get(f"/forecast/{city}/{days}")
        return list(response.json()["forecast"])


def download_log(city: str) -> list[str]:
    with default_mesh().client("weather") as client, client.stream("GET", f"/log/{city}") as response:
        return list(response.iter_lines())


def unknown_city() -> int:
    with default_mesh().session("weather") as session:
        return int(session.get("/today/atlantis").status_code)


if __name__ == "__main__":
    print("take", take_along("oslo"))
    print("forecast", *asyncio.run(forecast("bern", 7)))
    print("log", *download_log("bern"))
    print("atlantis", unknown_city())

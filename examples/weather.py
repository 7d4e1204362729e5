"""A payee on Flask: a fixed price, a price that the work decides, and a stream.

TOKENMESH_SERVICE=weather flask --app weather run --port 8001
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response

from tokenmesh import charge, priced

app = Flask(__name__)
DAYS = {"bern": ["sun", "rain", "fog"], "oslo": ["snow", "snow", "sun"]}


@app.get("/today/<city>")
@priced(tokens=2)
def today(city: str) -> Response | tuple[dict[str, str], int] | dict[str, str]:
    if city not in DAYS:
        return {"error": f"no weather for {city}"}, 404  # costs nothing
    return {"city": city, "weather": DAYS[city][0]}


@app.get("/forecast/<city>/<int:days>")
@priced(up_to=10)
def forecast(city: str, days: int) -> dict[str, list[str]]:
    known = DAYS.get(city, [])[:days]
    charge(2 * len(known))  # what we do not know is free
    return {"forecast": known}


@app.get("/log/<city>")
@priced(tokens=1)
def log(city: str) -> Response:
    def lines() -> Iterator[str]:
        for day, weather in enumerate(DAYS.get(city, [])):
            yield f"{day},{weather}\n"

    return Response(lines(), mimetype="text/csv")

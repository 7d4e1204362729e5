"""The examples run as they stand, together, and cost what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.homes import Home, served, until
from support.servers import free_port

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_traveller_asks_and_everybody_is_paid(tmp_path: Path) -> None:
    """Three services in a row: the traveller pays the trips, and the trips pay the weather."""
    home = Home(tmp_path / "home")
    ports = {"weather": free_port(), "trips": free_port()}
    for name, tokens in {"weather": 0, "trips": 100, "traveller": 100}.items():
        url = f"http://127.0.0.1:{ports[name]}" if name in ports else None
        home.open_wallet(name, tokens, url)

    def environment(service: str) -> dict[str, str]:
        more = {"TOKENMESH_SETTLE_INTERVAL_S": 0.1}
        return {**home.environment(service, **more), "PYTHONPATH": str(EXAMPLES)}

    python = [sys.executable, "-m"]
    weather = [*python, "flask", "--app", "weather", "run", "--port", str(ports["weather"])]
    trips = [*python, "uvicorn", "trips:app", "--port", str(ports["trips"]), "--log-level", "warning"]
    with (
        served(weather, environment("weather"), ports["weather"], tmp_path / "weather.log"),
        served(trips, environment("trips"), ports["trips"], tmp_path / "trips.log"),
    ):
        done = subprocess.run(
            [sys.executable, EXAMPLES / "traveller.py"],
            env=environment("traveller"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "take a coat",
            "forecast sun rain fog",
            "log 0,sun 1,rain 2,fog",
            "atlantis 404",
        ]
        # Weather: 2 for today, 6 for three days, 1 for the log. Trips: 5 earned, 2 paid.
        until(lambda: home.total("weather") == 2 + 6 + 1, "the weather is paid")
        until(lambda: home.total("trips") == 100 + 5 - 2, "the trips are paid")
    assert home.total("traveller") == 100 - 5 - 6 - 1
    home.ledger.close()

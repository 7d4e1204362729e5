"""The shop's processes: the wire, ten services under real servers, the shoppers, and their settings."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.chance import seeded
from tokenmesh.cli.demo.ground import EMBEDDED
from tokenmesh.cli.demo.plan import CONTRACT_TTL_S, LOSS, NAMES, SERVICES, SHOPPER, Paths, Service
from tokenmesh.cli.demo.processes import ChildFailed, Children, free_ports

WIRE = "wire"
SHOPPERS = "shoppers"
OFFERS = "/.well-known/tokenmesh/offers"
PROBE_S_MAX = 0.5
GUNICORN = Path(__file__).with_name("gunicorn_conf.py")

SETTINGS = {
    "TOKENMESH_ALLOWANCE_CALLS": "50",
    "TOKENMESH_TIMEOUT_S": "3",
    "TOKENMESH_RETRY_S_MAX": str(CONTRACT_TTL_S - 1),
    "TOKENMESH_RETRY_ATTEMPTS_MAX": "20",
    "TOKENMESH_RETRY_WAIT_S_MAX": "1",
    "TOKENMESH_SETTLE_INTERVAL_S": "0.3",
    "TOKENMESH_SWEEP_INTERVAL_S": "1",
    "TOKENMESH_WALLET_CACHE_S": "1",
    "TOKENMESH_CLOSE_S_MAX": "3",
}
"""Short times for the services, so that in half a minute everything happens that takes hours elsewhere. How
long contracts and allowances live is the policy's to say."""


class Options(NamedTuple):
    """What the user may choose."""

    seed: int
    seconds: float
    shoppers: int
    ledger: str = EMBEDDED
    """On what kind of ledger."""
    otlp: str | None = None
    """The collector that spans and metrics are sent to."""


class Launch:
    """Starts everything and knows where it is."""

    def __init__(self, options: Options, paths: Paths, children: Children) -> None:
        self._options = options
        self._paths = paths
        self._children = children
        ports = free_ports(2 * len(NAMES), seeded("ports", time.time_ns()).choice)
        self._ports = dict(zip(NAMES, ports, strict=False))
        self._wire_ports = dict(zip(NAMES, ports[len(NAMES) :], strict=True))
        self._ledger = ""
        self.offers: dict[str, Mapping[str, object]] = {}
        """What each service has said that it offers."""

    @property
    def urls(self) -> dict[str, str]:
        """Where the services find one another: every call goes over the wire."""
        return {name: f"http://127.0.0.1:{port}" for name, port in self._wire_ports.items()}

    def start(self, ledger: str) -> None:
        """Start all processes side by side; the ledger is at the url ``ledger``."""
        self._ledger = ledger
        self._start_wire()
        for service in SERVICES:
            command = _command(service, self._ports[service.name])
            self._children.start(service.name, command, self._environment(service.name))
        what = self._options
        load = [str(part) for part in (what.seed, what.shoppers, what.seconds)]
        shoppers = [sys.executable, "-m", "tokenmesh.cli.demo.shoppers", *load]
        self._children.start(SHOPPERS, shoppers, self._environment(SHOPPER))

    def answers(self, name: str) -> bool:
        """Whether the service itself, not the wire before it, says what it offers.

        Raises :class:`ChildFailed` if it is up and yet cannot serve.
        """
        connection = HTTPConnection("127.0.0.1", self._ports[name], timeout=PROBE_S_MAX)
        try:
            connection.request("GET", OFFERS)
            response = connection.getresponse()
            document = response.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        if response.status == 500:
            raise ChildFailed(f"{name} cannot serve; the end of its log:\n{self._children.last_words(name)}")
        if response.status != 200:
            return False
        self.offers[name] = json.loads(document)
        return True

    def _start_wire(self) -> None:
        config = {
            "routes": [(name, self._wire_ports[name], self._ports[name]) for name in NAMES],
            "seed": self._options.seed,
            "loss": LOSS,
            "log": str(self._paths.wire),
        }
        self._paths.wire_config.write_text(json.dumps(config))
        command = [sys.executable, "-m", "tokenmesh.cli.demo.wire", str(self._paths.wire_config)]
        self._children.start(WIRE, command, {})

    def _environment(self, name: str) -> dict[str, str]:
        # A shopper has a little more patience than the shop: a page without its ad is better than none.
        patience = {"TOKENMESH_RETRY_S_MAX": str(CONTRACT_TTL_S)} if name == SHOPPER else {}
        otlp = self._options.otlp
        return {
            **SETTINGS,
            **patience,
            **({} if otlp is None else {exporting.VARIABLE: otlp}),
            "TOKENMESH_HOME": str(self._paths.home),
            "TOKENMESH_LEDGER": self._ledger,
            "TOKENMESH_SERVICE": name,
            "PYTHONUNBUFFERED": "1",
        }


def served_by(name: str) -> str:
    """What serves a service, for people."""
    for service in SERVICES:
        if service.name == name:
            framework = {"uvicorn": "FastAPI", "gunicorn": "Flask"}[service.server]
            return f"{service.workers} x {framework}" if service.workers > 1 else framework
    return ""


def _command(service: Service, port: int) -> list[str]:
    python = [sys.executable, "-m"]
    if service.server == "uvicorn":
        options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
        return [*python, "uvicorn", service.app, *options]
    options = ["--config", str(GUNICORN), "--bind", f"127.0.0.1:{port}", "--workers", str(service.workers)]
    return [*python, "gunicorn", service.app, *options]

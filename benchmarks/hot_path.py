"""What a paid call by allowance costs in CPU and in memory, compared with the same call without tokenmesh.

    python benchmarks/hot_path.py [--rounds 40] [--calls 100000] [--otel] [--json]

CPU is the process's own (``process_time``), in microseconds a call, without any network: the application is
called as a server would call it, and contracts are signed before the clock starts. A paid call here is all
that its payee does for it before the response goes out: signature verified, contract claimed, handler run,
response stored and receipt signed, in a journal that is safe against a killed process. Settlement comes
later, hundreds of calls at a time, and is not in it. Short rounds with and without tokenmesh alternate; the
best round of each counts, as everything else that runs on a machine only adds to it. ``..._median_us`` is the
same of the median rounds: on a machine that does nothing else the two are close to each other.

Memory is the peak of the resident size of a process that takes so many calls, less that of the same
application without tokenmesh; there settlement runs, and everything else that runs in a service.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flask import Flask

from tokenmesh.config import Settings
from tokenmesh.decorators import priced
from tokenmesh.identity import CertificateAuthority, Wallet
from tokenmesh.journal.sqlite import SqliteJournal
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.mesh import Mesh
from tokenmesh.provider import Provider
from tokenmesh_chaincode.documents import Contract, Operation, digest, new_id, sign
from tokenmesh_chaincode.rules import default_policy

ROUNDS = 40
CALLS_A_ROUND = 200
"""Long enough to have in every round what comes once in sixty calls; short enough that some of the rounds are
not disturbed, on a machine that has other things to do."""
CALLS = 100_000
PAYER, PAYEE = "shop", "quotes"
SUPPLY = 10**9
PRICE = 5
TARGET = "/quote/ACME"
OPERATION = "GET /quote/{symbol}"
_EMPTY = digest(b"")
_NOTHING: Sequence[None] = [None] * CALLS_A_ROUND


class World:
    """A home with a ledger and two wallets; the payer has tokens."""

    def __init__(self, home: Path) -> None:
        authority = CertificateAuthority.create(home, passphrase=lambda: None)
        governance = authority.new_identity("governance", "governor")
        self.home, self.authority, self.governance = home, authority, governance
        self.payer = Wallet.create(home, PAYER, authority, passphrase=lambda: None)
        self.payee = Wallet.create(home, PAYEE, authority, passphrase=lambda: None)
        with EmbeddedLedger.create(
            home / "ledger.db",
            governance,
            ca=[authority.certificate_pem],
            governors={"governance": governance.certificate_pem},
            policy=default_policy(),
        ) as ledger:
            self.domain = ledger.domain
            self._submit(ledger, governance, "mint", {"tokens": SUPPLY})
            for wallet in (self.payer, self.payee):
                record = {"name": wallet.name, "cert": wallet.certificate_pem, "role": "service"}
                self._submit(ledger, governance, "register", {**record, "url": "http://quotes"})
            granted = self._submit(ledger, governance, "grant", {"to": PAYER, "tokens": SUPPLY // 2})
            self._submit(ledger, self.payer, "sweep", {"credits": [granted["credit"]]})

    def _submit(self, ledger: EmbeddedLedger, signer: Any, act: str, arg: dict[str, Any]) -> dict[str, Any]:
        now = int(time.time())
        body = Operation(self.domain, signer.name, new_id(), now, now + 60, act, arg)
        outcome = ledger.submit([sign(body, signer)]).result()[0].outcome
        assert outcome.ok, outcome
        return outcome.detail

    def allowance(self, ledger: EmbeddedLedger, tokens: int, *, last_s: int = 7_200) -> str:
        """Tokens set aside for the payee."""
        allowance = {"id": new_id(), "payee": PAYEE, "tokens": tokens, "exp": int(time.time()) + last_s}
        self._submit(ledger, self.payer, "open", allowance)
        return str(allowance["id"])

    def contracts(self, allowance: str, numbers: Iterable[int], *, made: int | None = None) -> Iterator[str]:
        """Contracts for the benchmark's one operation, as the payer's client signs them: now, or as if they
        had been ``made`` at another time."""
        for seq in numbers:
            now = int(time.time()) if made is None else made
            contract = Contract(
                dom=self.domain,
                iss=PAYER,
                aud=PAYEE,
                op=OPERATION,
                htm="GET",
                htu=TARGET,
                dig=_EMPTY,
                tok=PRICE,
                jti=new_id(),
                iat=now,
                exp=now + 60,
                via=allowance,
                lane="lane",
                seq=seq,
                tp="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            yield sign(contract, self.payer)


class Bare(NamedTuple):
    """A mesh with nothing but a provider: no settlement runs beside what is measured."""

    provider: Provider


# The applications


def flask_application(mesh: Any) -> Flask:
    """A handler as they are; priced if there is a mesh."""
    app = Flask("quotes")

    def quote(symbol: str) -> dict[str, Any]:
        return {"symbol": symbol, "price": 101, "currency": "EUR"}

    view = quote if mesh is None else priced(tokens=PRICE, mesh=mesh)(quote)
    app.add_url_rule("/quote/<symbol>", view_func=view)
    return app


def fastapi_application(mesh: Any) -> FastAPI:
    """The same in FastAPI."""
    app = FastAPI()

    async def quote(symbol: str) -> dict[str, Any]:
        return {"symbol": symbol, "price": 101, "currency": "EUR"}

    app.get("/quote/{symbol}")(quote if mesh is None else priced(tokens=PRICE, mesh=mesh)(quote))
    return app


# Calls, as servers make them


def call_flask(app: Flask, contracts: Iterable[str | None], expected: int = 200) -> None:
    """One request for each contract (None: without one); all are answered with the ``expected`` status."""

    def start_response(status: str, *_: Any) -> None:
        assert status.startswith(str(expected)), status

    for contract in contracts:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": TARGET,
            "QUERY_STRING": "",
            "SERVER_NAME": "quotes",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "quotes",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.input_terminated": True,
        }
        if contract is not None:
            environ["HTTP_TOKEN_CONTRACT"] = contract
        body = app(environ, start_response)  # type: ignore[arg-type]
        for _ in body:
            pass
        body.close()  # type: ignore[attr-defined]


async def call_fastapi(app: FastAPI, contracts: Iterable[str | None], expected: int = 200) -> None:
    """The same over ASGI."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", expected) == expected, message

    for contract in contracts:
        headers = [(b"host", b"quotes")]
        if contract is not None:
            headers.append((b"token-contract", contract.encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": TARGET,
            "raw_path": TARGET.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("quotes", 80),
            "state": {},
        }
        await app(scope, receive, send)


def call_client(client: httpx.Client, count: int) -> None:
    """Requests by a client."""
    for _ in range(count):
        assert client.get(TARGET).status_code == 200


# Measuring


def cpu_us(work: Callable[[], object], calls: int = CALLS_A_ROUND) -> float:
    """CPU of this process, all its threads, in microseconds a call."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / calls * 1e6


@contextlib.contextmanager
def payee(world: World) -> Iterator[tuple[Bare, EmbeddedLedger]]:
    """The payee's provider on a journal and the ledger, with nothing beside it."""
    settings = Settings(home=world.home, service=PAYEE, unsettled_max=10**7)
    with EmbeddedLedger(world.home / "ledger.db", world.payee) as ledger:
        journal = SqliteJournal(world.home / "journal.db", unsettled_max=10**7)
        yield Bare(Provider(world.payee, ledger, journal, settings=settings)), ledger
        journal.close()


class Rounds(NamedTuple):
    """CPU of a call in each round, without tokenmesh and paid, in microseconds."""

    plain: list[float]
    paid: list[float]

    def added_us(self, of: Callable[[list[float]], float] = min) -> float:
        return of(self.paid) - of(self.plain)


def measure_handler(
    world: World, rounds: int, application: Callable[[Any], Any], call: Callable[[Any, Any], object]
) -> Rounds:
    """Calls without tokenmesh, and paid ones, in turn."""
    with payee(world) as (mesh, ledger):
        plain, paid = application(None), application(mesh)
        allowance = world.allowance(ledger, rounds * CALLS_A_ROUND * PRICE * 2)
        measured = Rounds([], [])
        for number in range(rounds):
            signed = _signed(world, allowance, number)
            measured.plain.append(cpu_us(partial(call, plain, _NOTHING)))
            measured.paid.append(cpu_us(partial(call, paid, signed)))
    return measured


def _signed(world: World, allowance: str, number: int) -> list[str]:
    first = number * CALLS_A_ROUND
    return list(world.contracts(allowance, range(first, first + CALLS_A_ROUND)))


def measure_client(world: World, rounds: int) -> Rounds:
    """Round trips of an httpx client to the application in this process, and paid ones with both sides."""
    with (
        payee(world) as (mesh, _),
        Mesh(PAYER, home=world.home, allowance_calls=rounds * CALLS_A_ROUND) as payer,
    ):
        plain_app, paid_app = flask_application(None), flask_application(mesh)
        transport = httpx.WSGITransport(app=paid_app)
        with (
            httpx.Client(transport=httpx.WSGITransport(app=plain_app), base_url="http://quotes") as plain,
            payer.client(PAYEE, transport=transport) as paid,
        ):
            call_client(paid, 100)  # offers, the allowance
            measured = Rounds([], [])
            for _ in range(rounds):
                measured.plain.append(cpu_us(partial(call_client, plain, CALLS_A_ROUND)))
                measured.paid.append(cpu_us(partial(call_client, paid, CALLS_A_ROUND)))
    return measured


def measure_crypto() -> tuple[float, float]:
    """One signature verified, one made, with nothing around them: the part that cannot be saved."""
    key, algorithm, data = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256()), b"x" * 600
    signature, public = key.sign(data, algorithm), key.public_key()
    verify = min(_repeat(lambda: public.verify(signature, data, algorithm)) for _ in range(5))
    return verify, min(_repeat(lambda: key.sign(data, algorithm)) for _ in range(5))


def _repeat(work: Callable[[], object], times: int = 500) -> float:
    return cpu_us(lambda: [work() for _ in range(times)], times)


# Memory: each application in a process of its own


def resident_mb(kind: str, calls: int) -> float:
    """The resident size, at its peak, of a process that serves so many calls, ``plain`` or ``paid``."""
    command = [sys.executable, __file__, "--serve", kind, "--calls", str(calls)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def serve(kind: str, calls: int) -> float:
    """Serve the calls, in this process; gives its resident size in MB."""
    if kind == "plain":
        call_flask(flask_application(None), (None for _ in range(calls)))
        return _resident_mb()
    with tempfile.TemporaryDirectory() as home:
        world = World(Path(home))
        with Mesh(PAYEE, home=home) as mesh, EmbeddedLedger(Path(home) / "ledger.db", world.payer) as ledger:
            allowance = world.allowance(ledger, calls * PRICE)
            call_flask(flask_application(mesh), world.contracts(allowance, range(calls)))
            return _resident_mb()


def _resident_mb() -> float:
    with contextlib.suppress(OSError):
        # Where it can be had: what getrusage says begins with what this process's parent had, on Linux.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, kilobytes elsewhere


def measure(rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, Any]:
    """All figures. ``calls`` is how many are made before memory is looked at."""
    verify_us, sign_us = measure_crypto()
    with tempfile.TemporaryDirectory() as home:
        world = World(Path(home))
        flask = measure_handler(world, rounds, flask_application, call_flask)
        with asyncio.Runner() as runner:
            fastapi = measure_handler(
                world, rounds, fastapi_application, lambda *call: runner.run(call_fastapi(*call))
            )
        client = measure_client(world, rounds)
    plain_mb, paid_mb = resident_mb("plain", calls), resident_mb("paid", calls)
    return {
        "plain_us": round(min(flask.plain)),
        "flask_added_us": round(flask.added_us()),
        "flask_added_median_us": round(flask.added_us(median)),
        "fastapi_plain_us": round(min(fastapi.plain)),
        "fastapi_added_us": round(fastapi.added_us()),
        "fastapi_added_median_us": round(fastapi.added_us(median)),
        "consumer_added_us": round(client.added_us() - flask.added_us()),
        "verify_us": round(verify_us),
        "sign_us": round(sign_us),
        "rss_plain_mb": round(plain_mb, 1),
        "rss_added_mb": round(paid_mb - plain_mb, 1),
        "rss_calls": calls,
        "rounds": rounds,
        "calls_a_round": CALLS_A_ROUND,
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU and memory that a paid call takes.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of two hundred calls")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls before memory is looked at")
    parser.add_argument("--otel", action="store_true", help="what spans and metrics add, and no more")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", choices=("plain", "paid"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        print(serve(chosen.serve, chosen.calls))
        return
    if chosen.otel:
        from tokenmesh_benchmarks.telemetry import measure_telemetry

        with tempfile.TemporaryDirectory() as home:
            figures = measure_telemetry(World(Path(home)), chosen.rounds)
    else:
        figures = measure(chosen.rounds, chosen.calls)
    if chosen.json:
        print(json.dumps(figures))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title="a paid call by allowance")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""How many contracts a second the embedded ledger settles, and how many holds it places, durably.

    python benchmarks/embedded_ledger.py [--seconds 5] [--json]

Settling: one payee carries signed contracts of one allowance to the ledger, a thousand in each settlement;
the time includes building and signing the settlement and checking every contract's signature. Holds: 64
threads each ask a payer's treasury for a hold and wait for it, as calls do; it places together what is asked
for at once (``holds_per_s``). For comparison each of them signs an operation of its own, submits it and waits
(``hold_operations_per_s``), and does so with ids as they follow from idempotency keys, which lie anywhere
(``hold_operations_by_key_per_s``). All of it goes to a file with ``synchronous=FULL``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tokenmesh.identity import CertificateAuthority, Wallet
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.steps import run
from tokenmesh.treasury import Treasury
from tokenmesh_chaincode.documents import Contract, Operation, digest, new_id, sign
from tokenmesh_chaincode.rules import default_policy

SECONDS = 5.0
CALLERS = 64
SETTLEMENT = 1_000
SUPPLY = 10**9
TTL_S = 300
SYNCHRONOUS: Final = "FULL"
FSYNCS = 200


class Bench:
    """A ledger in ``directory`` with a payer and a payee, ready to be measured."""

    def __init__(self, directory: Path) -> None:
        authority = CertificateAuthority.create(directory, passphrase=lambda: None)
        self.governance = authority.new_identity("governance", "governor")
        self.payer = Wallet.create(directory, "payer", authority)
        self.payee = authority.new_identity("payee")
        path = directory / "ledger.db"
        EmbeddedLedger.create(
            path,
            self.governance,
            ca=[authority.certificate_pem],
            governors={"governance": self.governance.certificate_pem},
            policy=default_policy(),
        ).close()
        with EmbeddedLedger(path, self.governance) as ledger:
            self.domain = ledger.domain
            self._found(ledger)
        self.ledger = EmbeddedLedger(path, self.payee, synchronous=SYNCHRONOUS)

    def _found(self, ledger: EmbeddedLedger) -> None:
        operations = [self.operation(self.governance, "mint", {"tokens": SUPPLY})]
        for wallet in (self.payer, self.payee):
            record = {"name": wallet.name, "cert": wallet.certificate_pem, "role": "service"}
            operations.append(self.operation(self.governance, "register", record))
        operations.append(self.operation(self.governance, "grant", {"to": "payer", "tokens": SUPPLY}))
        results = ledger.submit(operations).result()
        credit = results[-1].outcome.detail["credit"]
        _check(
            *results, *ledger.submit([self.operation(self.payer, "sweep", {"credits": [credit]})]).result()
        )

    def operation(
        self, signer: Identity, act: str, arg: Mapping[str, Any], operation_id: str | None = None
    ) -> str:
        now = int(time.time())
        operation_id = operation_id or new_id()
        return sign(
            Operation(self.domain, signer.name, operation_id, now, now + TTL_S, act, dict(arg)), signer
        )

    def contracts(self, allowance: str, count: int) -> list[str]:
        """Contracts as a payer's client signs them, one per request."""
        now = int(time.time())
        body = digest(b"")
        return [
            sign(
                Contract(
                    dom=self.domain,
                    iss="payer",
                    aud="payee",
                    op="GET /quote/{symbol}",
                    htm="GET",
                    htu="/quote/ACME?currency=EUR",
                    dig=body,
                    tok=5,
                    jti=new_id(),
                    iat=now,
                    exp=now + 60,
                    via=allowance,
                    lane="lane",
                    seq=seq,
                    tp="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                self.payer,
            )
            for seq in range(count)
        ]


def _check(*results: Result) -> None:
    for result in results:
        assert result.outcome.ok, result.outcome


def measure_settling(bench: Bench, seconds: float) -> float:
    """Contracts settled per second; at least two settlements are on their way at any time."""
    total, elapsed = 0, 0.0
    while elapsed < seconds:
        allowance = new_id()
        terms = {"id": allowance, "payee": "payee", "tokens": SUPPLY // 100, "exp": int(time.time()) + 3600}
        _check(*bench.ledger.submit([bench.operation(bench.payer, "open", terms)]).result())
        contracts = bench.contracts(allowance, 16 * SETTLEMENT)
        start = time.perf_counter()
        futures = [
            bench.ledger.submit(
                [bench.operation(bench.payee, "settle", {"items": [[text, 5] for text in some]})]
            )
            for some in _pieces(contracts)
        ]
        results = [future.result()[0] for future in futures]
        elapsed += time.perf_counter() - start
        _check(*results)
        settled = sum(result.outcome.detail["settled"] for result in results)
        assert settled == len(contracts), [result.outcome.detail for result in results]
        total += settled
    return total / elapsed


def _pieces(contracts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(contracts), SETTLEMENT):
        yield contracts[start : start + SETTLEMENT]


def measure_holds(place: Callable[[], object], seconds: float) -> tuple[float, list[float]]:
    """Holds per second that ``CALLERS`` threads at once ``place``, and the time of each, sorted."""
    start = threading.Barrier(CALLERS + 1)
    over = threading.Event()
    times: list[list[float]] = [[] for _ in range(CALLERS)]
    failures: list[BaseException] = []

    def caller(mine: list[float]) -> None:
        try:
            start.wait()
            while not over.is_set():
                begun = time.perf_counter()
                place()
                mine.append(time.perf_counter() - begun)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=caller, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    assert not failures, failures
    return sum(map(len, times)) / elapsed, sorted(one for mine in times for one in mine)


def by_operation(bench: Bench, ids: Callable[[], str] = new_id) -> Callable[[], object]:
    """Places a hold by an operation of its own, signed and handed to the ledger."""

    def place() -> None:
        hold = ids()
        arg = {"id": hold, "payee": "payee", "tokens": 5, "exp": int(time.time()) + 60}
        text = bench.operation(bench.payer, "hold", arg, hold)
        _check(*bench.ledger.submit([text]).result())

    return place


def by_treasury(bench: Bench) -> Callable[[], object]:
    """Places a hold as a payer's client does: by the treasury, which places together what is asked for at
    once."""
    treasury = Treasury(bench.payer, bench.ledger)
    return lambda: run(treasury.place_hold("payee", 5, new_id()))


def scattered_id() -> str:
    """An id as it follows from an idempotency key: anywhere among those that are there."""
    return secrets.token_urlsafe(16)


def measure_fsync(directory: Path) -> float:
    """Microseconds that one small durable write takes here: what ``synchronous`` costs."""
    with (directory / "fsync").open("wb") as file:
        begun = time.perf_counter()
        for _ in range(FSYNCS):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - begun) / FSYNCS * 1e6


def measure(seconds: float = SECONDS, directory: Path | None = None) -> dict[str, Any]:
    """All figures. ``directory`` lies on the disk to be measured (default: that for temporary files)."""
    with tempfile.TemporaryDirectory(dir=directory) as path:
        fsync_us = measure_fsync(Path(path))
        bench = Bench(Path(path))
        try:
            settled_per_s = measure_settling(bench, seconds)
            holds_per_s, times = measure_holds(by_treasury(bench), seconds)
            alone_per_s, _ = measure_holds(by_operation(bench), seconds)
            scattered_per_s, _ = measure_holds(by_operation(bench, scattered_id), seconds)
        finally:
            bench.ledger.close()
    return {
        "settled_per_s": round(settled_per_s),
        "holds_per_s": round(holds_per_s),
        "hold_operations_per_s": round(alone_per_s),
        "hold_operations_by_key_per_s": round(scattered_per_s),
        "synchronous": SYNCHRONOUS,
        "settlement_contracts": SETTLEMENT,
        "callers": CALLERS,
        "hold_p50_ms": round(times[len(times) // 2] * 1e3, 2),
        "hold_p99_ms": round(times[len(times) * 99 // 100] * 1e3, 2),
        "fsync_us": round(fsync_us),
        "cores": os.cpu_count(),
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Throughput of the embedded ledger.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each part is measured")
    parser.add_argument("--directory", type=Path, help="where the ledger's file is made (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    figures = measure(chosen.seconds, chosen.directory)
    if chosen.json:
        print(json.dumps(figures))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title="embedded ledger")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, (int, float)) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()

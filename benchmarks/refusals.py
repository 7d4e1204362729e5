"""What a request costs that is not paid for: the CPU that a stranger can take from a payee, in microseconds.

    python benchmarks/refusals.py [--rounds 20] [--json]

For each way to be refused, the CPU of one request to a priced handler, less that of the same request to the
same handler without tokenmesh, which runs. As in ``hot_path.py``, rounds alternate and the best of each
counts. Every request is another one: nothing is refused out of a cache of refusals.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if __package__:
    from tokenmesh_benchmarks.hot_path import (
        CALLS_A_ROUND,
        World,
        call_fastapi,
        call_flask,
        cpu_us,
        fastapi_application,
        flask_application,
        payee,
    )
else:
    from hot_path import (
        CALLS_A_ROUND,
        World,
        call_fastapi,
        call_flask,
        cpu_us,
        fastapi_application,
        flask_application,
        payee,
    )

ROUNDS = 20
FUNDS = 100_000
LIMIT_US = 150
"""The most that a refusal may add to a handler that does next to nothing."""


class Refusal(NamedTuple):
    """One way to be refused: the status, and the contracts that get it."""

    status: int
    contracts: Callable[[World, str], Iterator[str | None]]


def _none(_world: World, _allowance: str) -> Iterator[None]:
    while True:
        yield None


def _rubbish(_world: World, _allowance: str) -> Iterator[str]:
    while True:
        yield secrets.token_urlsafe(600)


def _too_large(_world: World, _allowance: str) -> Iterator[str]:
    while True:
        yield secrets.token_urlsafe(6_400)


def _no_claims(world: World, allowance: str) -> Iterator[str]:
    """A good header, and claims that are none."""
    for text in world.contracts(allowance, range(10**9)):
        header, _, signature = text.split(".")
        yield f"{header}.{secrets.token_urlsafe(402)}.{signature}"


def _bad_signature(world: World, allowance: str) -> Iterator[str]:
    """Whole, and signed by nobody."""
    for text in world.contracts(allowance, range(10**9)):
        yield f"{text.rpartition('.')[0]}.{secrets.token_urlsafe(63)}AA"


def _unknown_wallet(world: World, allowance: str) -> Iterator[str]:
    """From a wallet that does not exist, another one each time: the ledger is asked."""
    for text in world.contracts(allowance, range(10**9)):
        _, claims, signature = text.split(".")
        name = f"stranger-{secrets.token_hex(8)}"
        header = {"alg": "ES256", "typ": "tokenmesh-contract+jwt", "kid": name, "x5t#S256": world.payer.x5t}
        body = {**json.loads(_decoded(claims)), "iss": name}
        yield f"{_encoded(header)}.{_encoded(body)}.{signature}"


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _encoded(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _expired(world: World, allowance: str) -> Iterator[str]:
    """Signed by a payer, and over for an hour: the signature is verified."""
    return world.contracts(allowance, range(10**9), made=int(time.time()) - 3_600)


def _no_funds(world: World, _allowance: str) -> Iterator[str]:
    """Signed by a payer, and paid by an allowance that does not exist: the ledger is asked."""
    return world.contracts("nothing-there", range(10**9))


REFUSALS = {
    "no_contract": Refusal(402, _none),
    "rubbish": Refusal(400, _rubbish),
    "too_large": Refusal(400, _too_large),
    "no_claims": Refusal(400, _no_claims),
    "bad_signature": Refusal(401, _bad_signature),
    "unknown_wallet": Refusal(401, _unknown_wallet),
    "expired": Refusal(401, _expired),
    "no_funds": Refusal(402, _no_funds),
}


def _call_fastapi(app: Any, contracts: Sequence[str | None], expected: int = 200) -> None:
    asyncio.run(call_fastapi(app, contracts, expected))


_FRAMEWORKS: dict[str, tuple[Callable[[Any], Any], Callable[..., None]]] = {
    "flask": (flask_application, call_flask),
    "fastapi": (fastapi_application, _call_fastapi),
}


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """``{framework: {refusal: microseconds added}}``."""
    with tempfile.TemporaryDirectory() as home:
        world = World(Path(home))
        with payee(world) as (mesh, ledger):
            return {
                name: _measure(
                    world, world.allowance(ledger, FUNDS), application(None), application(mesh), call, rounds
                )
                for name, (application, call) in _FRAMEWORKS.items()
            }


def _measure(
    world: World, allowance: str, plain: Any, priced: Any, call: Callable[..., None], rounds: int
) -> dict[str, float]:
    added = {}
    call(
        priced, list(zip_first(world.contracts(allowance, range(10**9)), 2))
    )  # as in a service that is in use
    for name, refusal in REFUSALS.items():
        contracts = refusal.contracts(world, allowance)
        without, refused = [], []
        for _ in range(rounds):
            made = list(zip_first(contracts, CALLS_A_ROUND))
            without.append(cpu_us(partial(call, plain, made)))
            refused.append(cpu_us(partial(call, priced, made, refusal.status)))
        added[name] = round(min(refused) - min(without), 1)
    return added


def zip_first(contracts: Iterator[Any], count: int) -> Iterator[Any]:
    return (contract for _, contract in zip(range(count), contracts, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what refused requests cost.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print one object")
    given = parser.parse_args()
    figures = measure(given.rounds)
    if given.json:
        print(json.dumps({"refused_us": figures}))
        return
    print(f"CPU that a refused request adds to the plain handler, microseconds (at most {LIMIT_US}):")
    for name in REFUSALS:
        print(f"{name:<16}" + "".join(f"{figures[one][name]:>8.0f} {one}" for one in figures))


if __name__ == "__main__":
    main()

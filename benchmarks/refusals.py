"""What a request costs that is not paid for: the CPU that a stranger can take from a payee, in microseconds.

    python benchmarks/refusals.py [--rounds 20] [--json]

For each way to be refused, the CPU of one request to a priced handler, less that of the same request to the
same handler without tokenmesh, which runs. As in ``hot_path.py``, rounds alternate and the best of each
counts. Every request is another one: nothing is refused out of a cache of refusals. A round is long enough to
use up what the ledger is asked at once for what it does not have, and the best one begins after that.
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

from tokenmesh.identity import Wallet
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.provider import Provider, Refused, Request, Terms
from tokenmesh.steps import run
from tokenmesh_chaincode.documents import digest, new_id, parse_contract, sign
from tokenmesh_chaincode.rules import default_policy

if __package__:
    from tokenmesh_benchmarks.hot_path import (
        CALLS_A_ROUND,
        OPERATION,
        PAYER,
        PRICE,
        TARGET,
        Bare,
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
        OPERATION,
        PAYER,
        PRICE,
        TARGET,
        Bare,
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
PAUSE_CALLS = 10
"""Calls before each round that are not measured: it begins as it goes on."""
LIMIT_US = 150
"""The most that a refusal may add to a handler that does next to nothing."""


class Stage(World):
    """The world of ``hot_path.py``; besides, a wallet that is frozen, one that policy forbids to call, an
    allowance with nothing left, and one that is about to end."""

    frozen: Wallet
    forbidden: Wallet
    spent: str
    ending: str

    def set(self, ledger: EmbeddedLedger) -> None:
        """Register the wallets."""
        self.frozen, self.forbidden = (self._wallet(ledger, name) for name in ("frozen", "forbidden"))
        self._submit(ledger, self.governance, "freeze", {"name": self.frozen.name})
        rule = {"payer": self.forbidden.name, "payee": "*", "operation": "*", "effect": "deny"}
        self._submit(ledger, self.governance, "set_policy", {"policy": {**default_policy(), "rules": [rule]}})

    def set_aside(self, ledger: EmbeddedLedger) -> str:
        """An allowance; and the other two, anew."""
        self.spent, self.ending = self.allowance(ledger, PRICE), self.allowance(ledger, PRICE, last_s=30)
        return self.allowance(ledger, FUNDS)

    def _wallet(self, ledger: EmbeddedLedger, name: str) -> Wallet:
        wallet = Wallet.create(self.home, name, self.authority, passphrase=lambda: None)
        record = {"name": name, "cert": wallet.certificate_pem, "role": "service", "url": None}
        self._submit(ledger, self.governance, "register", record)
        return wallet


class Refusal(NamedTuple):
    """One way to be refused: status and code, and the contracts that get it."""

    status: int
    code: str
    contracts: Callable[[Stage, str], Iterator[str | None]]


def _none(_world: Stage, _allowance: str) -> Iterator[None]:
    while True:
        yield None


def _rubbish(_world: Stage, _allowance: str) -> Iterator[str]:
    while True:
        yield secrets.token_urlsafe(600)


def _too_large(_world: Stage, _allowance: str) -> Iterator[str]:
    while True:
        yield secrets.token_urlsafe(6_400)


def _no_claims(world: Stage, allowance: str) -> Iterator[str]:
    """A good header, and claims that are none."""
    for text in world.contracts(allowance, range(10**9)):
        header, _, signature = text.split(".")
        yield f"{header}.{secrets.token_urlsafe(402)}.{signature}"


def _bad_signature(world: Stage, allowance: str) -> Iterator[str]:
    """Whole, and signed by nobody."""
    for text in world.contracts(allowance, range(10**9)):
        yield f"{text.rpartition('.')[0]}.{secrets.token_urlsafe(63)}AA"


def _unknown_wallet(world: Stage, allowance: str) -> Iterator[str]:
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


def _expired(world: Stage, allowance: str) -> Iterator[str]:
    """Signed by a payer, and over for an hour: the signature is verified."""
    return world.contracts(allowance, range(10**9), made=int(time.time()) - 3_600)


def _no_funds(world: Stage, allowance: str) -> Iterator[str]:
    """Signed by a payer, and paid by an allowance that does not exist, another one each time."""
    return _signed(world, allowance, lambda: {"via": new_id()})


def _no_hold(world: Stage, allowance: str) -> Iterator[str]:
    """The same by a hold."""
    return _signed(world, allowance, lambda: {"via": "hold", "lane": None, "seq": None})


def _unknown_certificate(world: Stage, allowance: str) -> Iterator[str]:
    """In the name of a payer, with a certificate that it does not have, another one each time."""
    for text in world.contracts(allowance, range(10**9)):
        _, claims, signature = text.split(".")
        x5t = secrets.token_urlsafe(32)
        header = {"alg": "ES256", "typ": "tokenmesh-contract+jwt", "kid": PAYER, "x5t#S256": x5t}
        yield f"{_encoded(header)}.{claims}.{signature}"


def _signed(
    world: Stage, allowance: str, changed: Callable[[], dict[str, Any]], signer: Wallet | None = None
) -> Iterator[str]:
    """Contracts with some claims changed, signed by the payer or by somebody else."""
    for text in world.contracts(allowance, range(10**9)):
        yield sign(parse_contract(text).body._replace(**changed()), signer or world.payer)


def _by(name: str) -> Callable[[Stage, str], Iterator[str]]:
    """Signed by another wallet of the stage."""

    def contracts(world: Stage, allowance: str) -> Iterator[str]:
        signer: Wallet = getattr(world, name)
        return _signed(world, allowance, lambda: {"iss": signer.name}, signer)

    return contracts


def _with(**claims: Any) -> Callable[[Stage, str], Iterator[str]]:
    """Signed by a payer, with some claims that are not as they should be."""
    return lambda world, allowance: _signed(world, allowance, lambda: claims)


def _spent(world: Stage, _allowance: str) -> Iterator[str]:
    """Paid by an allowance that has nothing left."""
    return world.contracts(world.spent, range(1, 10**9))


def _used_number(world: Stage, allowance: str) -> Iterator[str]:
    """With a number of the lane that another contract has."""
    return _signed(world, allowance, lambda: {"seq": 0})


def _ending(world: Stage, _allowance: str) -> Iterator[str]:
    """Valid for longer than what it is paid by."""
    return _signed(world, world.ending, dict)


REFUSALS = {
    "no_contract": Refusal(402, "contract_required", _none),
    "rubbish": Refusal(400, "not_a_contract", _rubbish),
    "too_large": Refusal(400, "too_large", _too_large),
    "no_claims": Refusal(400, "not_a_contract", _no_claims),
    "bad_signature": Refusal(401, "signature_invalid", _bad_signature),
    "unknown_wallet": Refusal(401, "wallet_unknown", _unknown_wallet),
    "unknown_certificate": Refusal(401, "certificate_unknown", _unknown_certificate),
    "expired": Refusal(401, "expired", _expired),
    "other_payee": Refusal(401, "other_payee", _with(aud="somebody-else")),
    "other_request": Refusal(422, "other_request", _with(htu="/quote/OTHER")),
    "other_body": Refusal(422, "other_request", _with(dig=digest(b"another body"))),
    "too_few_tokens": Refusal(402, "too_few_tokens", _with(tok=PRICE - 1)),
    "no_funds": Refusal(402, "allowance_unknown", _no_funds),
    "no_hold": Refusal(402, "hold_unknown", _no_hold),
    "ended": Refusal(402, "allowance_ended", _ending),
    "used_up": Refusal(402, "allowance_used_up", _spent),
    "used_number": Refusal(402, "sequence_used", _used_number),
    "frozen": Refusal(403, "wallet_frozen", _by("frozen")),
    "forbidden": Refusal(403, "forbidden", _by("forbidden")),
}


def _call_fastapi(app: Any, contracts: Sequence[str | None], expected: int = 200) -> None:
    asyncio.run(call_fastapi(app, contracts, expected))


_FRAMEWORKS: dict[str, tuple[Callable[[Any], Any], Callable[..., None]]] = {
    "flask": (flask_application, call_flask),
    "fastapi": (fastapi_application, _call_fastapi),
}


def measure(rounds: int = ROUNDS, calls: int = CALLS_A_ROUND) -> dict[str, dict[str, float]]:
    """``{framework: {refusal: microseconds added}}``, of rounds with so many ``calls``."""
    with tempfile.TemporaryDirectory() as home:
        world = Stage(Path(home))
        with payee(world) as (mesh, ledger):
            world.set(ledger)
            return {
                name: _measure(world, world.set_aside(ledger), mesh, application, call, rounds, calls)
                for name, (application, call) in _FRAMEWORKS.items()
            }


def _measure(
    world: Stage,
    allowance: str,
    mesh: Bare,
    application: Callable[[Any], Any],
    call: Callable[..., None],
    rounds: int,
    calls: int,
) -> dict[str, float]:
    plain, priced = application(None), application(mesh)
    added = {}
    for used in allowance, world.spent:  # as in a service that is in use
        call(priced, list(zip_first(world.contracts(used, range(1)), 1)))
    # Asked for while the ledger is asked for everything: later on it is not known whether it is there.
    call(priced, list(zip_first(_ending(world, allowance), 1)), REFUSALS["ended"].status)
    for name, refusal in REFUSALS.items():
        contracts = refusal.contracts(world, allowance)
        without, refused = [], []
        for _ in range(rounds):
            made = list(zip_first(contracts, calls))
            before = list(zip_first(contracts, PAUSE_CALLS))
            without.append(cpu_us(partial(call, plain, made), calls))
            # While nobody called, the ledger has become worth a question or two again.
            call(priced, before, refusal.status)
            refused.append(cpu_us(partial(call, priced, made, refusal.status), calls))
            code = _code(mesh.provider, next(contracts))
            assert code == refusal.code, f"{name} is refused as {code}"
        added[name] = round(min(refused) - min(without), 1)
    return added


def _code(provider: Provider, contract: str | None) -> str:
    """What a provider without a framework calls the problem: to see that each is what it is taken for."""
    contracts = () if contract is None else (contract.encode(),)
    request = Request("GET", TARGET, OPERATION, OPERATION.partition(" ")[2], contracts, bytes)
    try:
        call = run(provider.check(request, Terms(PRICE)))
        assert call is not None, "it costs something"
        run(provider.admit(call))
        run(provider.claim(call))
    except Refused as refused:
        return refused.problem.code
    return "none"


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
        print(f"{name:<20}" + "".join(f"{figures[one][name]:>8.0f} {one}" for one in figures))


if __name__ == "__main__":
    main()

"""What the ledger on Fabric settles, and how many calls by hold it bears; for ``fabric.py``.

Settling: the payee carries signed contracts of one allowance, so many in each settlement. Holds: callers who
each set tokens aside for one call, wait for it, sign the contract and wait until it is captured. They set
them aside at the ledger's port, each by an operation of its own; or at the payer's treasury, which places
what has gathered by one. The payee captures what has gathered in one settlement. Two wallets in all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from tokenmesh.fabric.blocks import ledger_info, read_blocks
from tokenmesh.fabric.gateway import Network as Channel
from tokenmesh.fabric.gateway import connect_profile
from tokenmesh.fabric.profile import Profile
from tokenmesh.identity import Wallet
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.batching import Job, Room
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh.ledger.fabric.pipeline import Pipeline
from tokenmesh.steps import Steps, arun, run, wait
from tokenmesh.treasury.holds import HoldDesk
from tokenmesh.treasury.operations import Operations
from tokenmesh_chaincode.documents import Contract, Operation, Signer, digest, new_id, sign
from tokenmesh_chaincode.limits import CONTRACT_BYTES_MAX
from tokenmesh_chaincode.rules import Outcome

SUPPLY = 10**9
TTL_S = 300
CALLERS = 256
TOKENS = 5
LINES = 2
"""Settlements that are on their way at once."""
ROUND = 12
"""Settlements whose contracts are signed ahead of the clock's start."""
VALID = 0
EMPTY = digest(b"")


class Market:
    """A payer and a payee on a ledger, each with a connection of its own, as two services have."""

    def __init__(self, profile: Profile, chaincode: str, governance: Identity, wallets: Mapping[str, Wallet]):
        self.profile = profile
        self._chaincode = chaincode
        self.governance = governance
        self.payer, self.payee = wallets["payer"], wallets["payee"]
        self.paying, self.earning = self.open(), self.open()
        self.domain = self.paying.domain
        self._found()

    def open(self) -> FabricLedger:
        """The ledger, through a connection of its own."""
        return FabricLedger(connect_profile(self.profile), "mesh", self._chaincode)

    def close(self) -> None:
        self.paying.close()
        self.earning.close()

    def operation(
        self, signer: Signer, act: str, arg: Mapping[str, Any], operation_id: str | None = None
    ) -> str:
        now = int(time.time())
        operation_id = operation_id or new_id()
        return sign(
            Operation(self.domain, signer.name, operation_id, now, now + TTL_S, act, dict(arg)), signer
        )

    def do(self, signer: Signer, act: str, arg: Mapping[str, Any]) -> dict[str, Any]:
        (result,) = self.paying.submit([self.operation(signer, act, arg)]).result()
        check(result)
        return result.outcome.detail

    def _found(self) -> None:
        self.do(self.governance, "mint", {"tokens": SUPPLY})
        for wallet in (self.payer, self.payee):
            record = {"name": wallet.name, "cert": wallet.certificate_pem, "role": "service"}
            self.do(self.governance, "register", record)
        credit = self.do(self.governance, "grant", {"to": self.payer.name, "tokens": SUPPLY})["credit"]
        self.do(self.payer, "sweep", {"credits": [credit]})

    def contract(self, jti: str, via: str = "hold", lane: str | None = None, seq: int | None = None) -> str:
        """A contract as a payer's client signs it for one request."""
        now = int(time.time())
        document = Contract(
            dom=self.domain,
            iss=self.payer.name,
            aud=self.payee.name,
            op="GET /quote/{symbol}",
            htm="GET",
            htu="/quote/ACME?currency=EUR",
            dig=EMPTY,
            tok=TOKENS,
            jti=jti,
            iat=now,
            exp=now + 60,
            via=via,
            lane=lane,
            seq=seq,
            tp="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        return sign(document, self.payer)


def check(*results: Result) -> None:
    for result in results:
        assert result.outcome.ok, result.outcome


def measure_settling(market: Market, seconds: float, settlement: int) -> dict[str, Any]:
    """Contracts settled per second, ``settlement`` of them in a transaction, and what that takes.

    ``LINES`` settlements are on their way at any time, each of an allowance of its own: two settlements of
    one allowance follow each other.
    """
    total, elapsed = 0, 0.0
    times: list[float] = []
    while elapsed < seconds:
        batches = [_contracts(market, ROUND * settlement // LINES) for _ in range(LINES)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(LINES) as lines:
            done = [lines.submit(_settle, market, contracts, settlement) for contracts in batches]
            for one in done:
                times += one.result()
        elapsed += time.perf_counter() - begun
        total += sum(map(len, batches))
    times.sort()
    return {
        "settled_per_s": round(total / elapsed),
        "settlement_contracts": settlement,
        "settlement_p50_ms": round(times[len(times) // 2] * 1e3, 1),
    }


def _contracts(market: Market, count: int) -> list[str]:
    """Contracts of a new allowance."""
    allowance = new_id()
    payee, expiry = market.payee.name, int(time.time()) + 3600
    terms = {"id": allowance, "payee": payee, "tokens": SUPPLY // 1_000, "exp": expiry}
    market.do(market.payer, "open", terms)
    return [market.contract(new_id(), allowance, "lane", seq) for seq in range(count)]


def _settle(market: Market, contracts: list[str], settlement: int) -> list[float]:
    """Carry contracts to the ledger, one settlement after another; the seconds that each took."""
    times = []
    for some in _pieces(contracts, settlement):
        start = time.perf_counter()
        items = [[text, TOKENS] for text in some]
        operation = market.operation(market.payee, "settle", {"items": items})
        (result,) = market.earning.submit([operation]).result()
        times.append(time.perf_counter() - start)
        check(result)
        assert result.outcome.detail["settled"] == len(some), result.outcome.detail
    return times


def _pieces(contracts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(contracts), size):
        yield contracts[start : start + size]


class Till:
    """The payee of calls by hold: captures what has gathered, in one settlement at a time, as its settlement
    thread does. It takes half of the callers at most, so that holds of the others are placed meanwhile."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._line: Pipeline[str] = Pipeline(
            "till",
            self._settle,
            Room(CALLERS, CALLERS * CONTRACT_BYTES_MAX),
            batch_max=CALLERS // 2,
            batch_bytes_max=CALLERS * CONTRACT_BYTES_MAX,
            in_flight_max=1,
        )

    def capture(self, contract: str) -> Future[None]:
        """Have the contract settled; the future is done when it is."""
        future: Future[None] = Future()
        self._line.put(Job(contract, future, 1, len(contract)))
        return future

    def close(self) -> None:
        assert self._line.close()

    def _settle(self, jobs: list[Job[str]]) -> None:
        items = [[job.payload, TOKENS] for job in jobs]
        operation = self._market.operation(self._market.payee, "settle", {"items": items})
        (result,) = self._market.earning.submit([operation]).result()
        check(result)
        assert result.outcome.detail["settled"] == len(items), result.outcome.detail
        for job in jobs:
            job.future.set_result(None)


Place: TypeAlias = Callable[[dict[str, Any]], Steps[Outcome]]
"""Places the hold whose operation has this ``arg``."""


def _at_port(market: Market, arg: dict[str, Any]) -> Steps[Outcome]:
    """Place a hold by an operation of its own, as whoever has nothing but the ledger does."""
    operation = market.operation(market.payer, "hold", arg)
    (result,) = yield from wait(market.paying.submit([operation]))
    return result.outcome


def _at_desk(desk: HoldDesk, arg: dict[str, Any]) -> Steps[Outcome]:
    """Have the treasury place a hold, together with those of others."""
    return (yield from wait(desk.place(arg)))


def _hold_call(market: Market, place: Place, till: Till) -> Steps[None]:
    """Set tokens aside, and have them captured with the contract."""
    call = new_id()
    arg = {"id": call, "payee": market.payee.name, "tokens": TOKENS, "exp": int(time.time()) + 120}
    placed = yield from place(arg)
    assert placed.ok, placed
    yield from wait(till.capture(market.contract(call)))


def measure_hold_calls(market: Market, seconds: float) -> dict[str, Any]:
    """Calls by hold per second, placed and captured, with ``CALLERS`` at once.

    At the ledger's port: tasks of an event loop, as in a service on asyncio, and then threads, as in one
    without; the time of one, for tasks. And through the treasury, for tasks.
    """
    till = Till(market)
    desk = HoldDesk(Operations(market.payer, market.paying, time.time, new_id))
    at_port, at_desk = (
        partial(_hold_call, market, place, till)
        for place in (partial(_at_port, market), partial(_at_desk, desk))
    )
    tasks = asyncio.run(_tasks(at_port, seconds))
    threads = _threads(at_port, seconds)
    treasury = asyncio.run(_tasks(at_desk, seconds))
    till.close()
    times = sorted(tasks.times)
    return {
        "hold_calls_per_s": tasks.per_s,
        "hold_calls_of_threads_per_s": threads.per_s,
        "hold_calls_by_treasury_per_s": treasury.per_s,
        "hold_callers": CALLERS,
        "hold_call_p50_ms": round(times[len(times) // 2] * 1e3, 1),
        "hold_call_p99_ms": round(times[len(times) * 99 // 100] * 1e3, 1),
    }


class Taken(NamedTuple):
    """How long each call took, and all of them together, in seconds."""

    times: list[float]
    elapsed: float

    @property
    def per_s(self) -> int:
        return round(len(self.times) / self.elapsed)


async def _tasks(call: Callable[[], Steps[None]], seconds: float) -> Taken:
    times: list[float] = []
    begun = time.perf_counter()

    async def caller() -> None:
        while (start := time.perf_counter()) < begun + seconds:
            await arun(call())
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return Taken(times, time.perf_counter() - begun)


def _threads(call: Callable[[], Steps[None]], seconds: float) -> Taken:
    times: list[float] = []
    begun = time.perf_counter()

    def caller() -> None:
        while (start := time.perf_counter()) < begun + seconds:
            run(call())
            times.append(time.perf_counter() - start)

    with ThreadPoolExecutor(CALLERS) as callers:
        for one in [callers.submit(caller) for _ in range(CALLERS)]:
            one.result()
    return Taken(times, time.perf_counter() - begun)


def height(channel: Channel) -> int:
    """How many blocks there are."""
    return ledger_info(channel).height


def weigh_blocks(channel: Channel, first: int) -> dict[str, Any]:
    """What the blocks from ``first`` on hold: transactions, how many of them are invalid, bytes."""
    transactions = invalid = blocks = octets = largest = 0
    for block in read_blocks(channel, first):
        blocks += 1
        size = len(block.to_bytes())
        octets += size
        largest = max(largest, size)
        transactions += len(block.data)
        invalid += sum(code != VALID for code in block.codes)
    return {
        "transactions": transactions,
        "invalid_share": round(invalid / max(transactions, 1), 4),
        "blocks": blocks,
        "block_bytes_mean": round(octets / max(blocks, 1)),
        "block_bytes_max": largest,
    }

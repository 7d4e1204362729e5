"""So many transactions at once through a Gateway client, in a process of its own; for ``fabric.py``.

    python -m tokenmesh_benchmarks.fabric_load PROFILE CHAINCODE FUNCTION CONCURRENCY SECONDS

Prints one JSON object: transactions, seconds, errors, and the median time of one in milliseconds. Each
transaction is endorsed, ordered and committed before the next one of its caller begins, on a key of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import NO_RETRY, Deadlines, connect_profile_async
from tokenmesh.fabric.profile import load_profile

DEADLINES = Deadlines(evaluate_s=15, endorse_s=30, submit_s=15, commit_status_s=60)


async def load(profile: str, chaincode: str, function: str, concurrency: int, seconds: float) -> None:
    """Load the network, and print what came of it."""
    times: list[float] = []
    errors: list[str] = []
    async with connect_profile_async(load_profile(profile), deadlines=DEADLINES, retry=NO_RETRY) as gateway:
        contract = gateway.get_network("mesh").get_contract(chaincode, remember_endorsers=True)
        await contract.submit_transaction(function, "warm", "1")
        begun = time.perf_counter()
        mark = f"{time.time_ns()}"

        async def caller(number: int) -> None:
            count = 0
            while time.perf_counter() < begun + seconds:
                count += 1
                start = time.perf_counter()
                try:
                    await contract.submit_transaction(function, f"p{mark}-{number}-{count}", "1")
                    times.append(time.perf_counter() - start)
                except FabricError as error:
                    errors.append(str(error))

        await asyncio.gather(*map(caller, range(concurrency)))
        elapsed = time.perf_counter() - begun
    times.sort()
    print(
        json.dumps(
            {
                "transactions": len(times),
                "seconds": elapsed,
                "errors": len(errors),
                "first_error": errors[0] if errors else None,
                "p50_ms": times[len(times) // 2] * 1e3 if times else None,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(
        load(sys.argv[1], sys.argv[2], sys.argv[3], concurrency=int(sys.argv[4]), seconds=float(sys.argv[5]))
    )

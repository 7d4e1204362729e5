"""The Gateway client against Fabric's own for Node, and what one transaction costs; for ``fabric.py``.

Both clients are processes of their own, take turns on one network, and do the same: endorse, order and commit
one transaction a call. Each figure is the median of several turns.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenmesh.fabric.gateway import Contract, Gateway, connect_profile
from tokenmesh.fabric.network import Network

CHAINCODE = "bench"
COMMAND = (sys.executable, "-m", "tokenmesh_benchmarks.fabric_chaincode")
CONCURRENCIES = (16, 64, 256)
TURNS = 3
LONE = 30
"""Transactions and questions, one after another, of which the median time is taken."""
CPU_CONCURRENCY = 64
NODE_SOURCES = Path(__file__).parents[1] / "tests" / "fabric" / "node"
"""Fabric's own client, pinned, with a script that drives it; only a checkout has it."""


def measure_gateway(network: Network, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """The figures of the Gateway client and of the shim on ``network``, where ``CHAINCODE`` is deployed."""
    with connect_profile(network.profile) as gateway:
        contract = gateway.get_network("mesh").get_contract(CHAINCODE, remember_endorsers=True)
        contract.submit_transaction("put", "known", "1")
        tell("one transaction at a time")
        evaluate_ms = _median_ms(lambda: contract.evaluate_transaction("get", "known"), 10 * LONE)
        submit_ms = _median_ms(lambda: contract.submit_transaction("put", "known", "1"), LONE)
        tell("three reads and three writes")
        cpu_ms = _chaincode_cpu_ms(network, gateway, seconds)
    return {
        "evaluate_p50_ms": round(evaluate_ms, 2),
        "submit_p50_ms": round(submit_ms, 1),
        "chaincode_cpu_ms": round(cpu_ms, 3),
        **_against_node(network, seconds, tell),
    }


def _median_ms(call: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def _chaincode_cpu_ms(network: Network, gateway: Gateway, seconds: float) -> float:
    """CPU time of the chaincode's process for a transaction of three reads and three writes."""
    contract = gateway.get_network("mesh").get_contract(CHAINCODE)
    before = _cpu(contract)
    _python(network, "move", CPU_CONCURRENCY, seconds)
    after = _cpu(contract)
    transactions = after["transactions"] - before["transactions"]
    return float((after["cpu_s"] - before["cpu_s"]) / transactions * 1e3)


def _cpu(contract: Contract) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(contract.evaluate_transaction("cpu"))
    return found


def _against_node(network: Network, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Transactions a second of both clients, by concurrency, and their ratio."""
    folder = _node_folder()
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for concurrency in CONCURRENCIES:
        turns: dict[str, list[float]] = {"python": [], "node": []}
        for turn in range(TURNS):
            tell(f"{concurrency} at once, turn {turn + 1} of {TURNS}")
            turns["python"].append(_rate(_python(network, "put", concurrency, seconds)))
            if folder is not None:
                turns["node"].append(_rate(_node(network, folder, concurrency, seconds)))
        ours[str(concurrency)] = round(statistics.median(turns["python"]), 1)
        if folder is not None:
            theirs[str(concurrency)] = round(statistics.median(turns["node"]), 1)
    return {
        "gateway_vs_node": {key: round(ours[key] / rate, 2) for key, rate in theirs.items()} or None,
        "gateway_per_s": ours,
        "node_per_s": theirs or None,
    }


def _rate(answer: dict[str, Any]) -> float:
    if answer["errors"]:
        raise RuntimeError(f"{answer['errors']} transactions failed, the first with {answer['first_error']}")
    return float(answer["transactions"] / answer["seconds"])


def _python(network: Network, function: str, concurrency: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tokenmesh_benchmarks.fabric_load", str(network.profile.path)]
    return _answer([*command, CHAINCODE, function, str(concurrency), str(seconds)])


def _node(network: Network, folder: Path, concurrency: int, seconds: float) -> dict[str, Any]:
    files, peer = network.profile.client(), network.profile.peers[0]
    given = {
        "step": "load",
        "chaincode": CHAINCODE,
        "concurrency": concurrency,
        "seconds": seconds,
        "address": peer.address,
        "tls_ca": peer.tls_ca,
        "msp_id": files.msp_id,
        "certificate": str(files.certificate),
        "key": str(files.key),
        "tls_certificate": str(files.tls_certificate),
        "tls_key": str(files.tls_key),
    }
    return _answer(["node", "client.js", json.dumps(given)], folder)


def _answer(command: list[str], folder: Path | None = None) -> dict[str, Any]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _node_folder() -> Path | None:
    """Fabric's own client with the script that drives it; None where Node or the script is missing."""
    if not NODE_SOURCES.is_dir() or shutil.which("npm") is None or shutil.which("node") is None:
        return None
    lock = (NODE_SOURCES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokenmesh"
    folder = cache / f"fabric-node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as near:
            made = Path(near) / "made"
            made.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NODE_SOURCES / name, made)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=made, capture_output=True, check=True, timeout=600)
            made.rename(folder)
    shutil.copy(NODE_SOURCES / "client.js", folder)
    return folder

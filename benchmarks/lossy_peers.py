"""x402 and pympp on the lossy scoreboard: each in an environment of its own, both with one facilitator.

The environments are made from PyPI once, with pinned versions, and kept in ``~/.cache/tokenmesh``. Both peers
are paid in the same way: EIP-3009 authorizations of USDC, signed by a key made for the run, settled by the
facilitator of :mod:`tokenmesh_benchmarks.lossy_facilitator`. Nothing is reached but loopback.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenmesh_benchmarks.lossy_cases import Case, Tally
from tokenmesh_benchmarks.lossy_stage import ask, free_port, note_ends, pay, stage, start, wire_of
from tokenmesh_benchmarks.lossy_wire import LossyWire, first_of, nothing

COMMON = (
    "fastapi==0.165.0",
    "uvicorn==0.54.0",
    "httpx==0.28.1",
    "eth-account==0.14.0",
    "coincurve==21.0.0",  # eth-account signs forty times as fast with it
)
PAY_TO = "0x1111111111111111111111111111111111111111"
BALANCE = 10**12
TURNS_MAX = 5
HERE = Path(__file__).parent


class Peer(NamedTuple):
    """A peer: what is installed for it, its script, and the header that carries its payments."""

    name: str
    requirement: str
    payment: str
    price: str

    @property
    def version(self) -> str:
        """``NAME VERSION``, as pinned."""
        return f"{self.name} {self.requirement.partition('==')[2]}"

    @property
    def script(self) -> str:
        return str(HERE / f"lossy_{self.name}.py")


X402 = Peer("x402", "x402[evm]==2.25.0", "payment-signature", "$0.005")
PYMPP = Peer("pympp", "pympp[evm]==0.16.0", "authorization", "0.005")


def environment(peer: Peer, tell: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Path:
    """The Python of the peer's own environment, which is made if it is not there: half a minute."""
    wanted = "\n".join((peer.requirement, *COMMON, sys.version))
    root = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmesh"
    folder = root / f"peer-{peer.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    python, whole = folder / "bin" / "python", folder / "whole"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            tell(f"installing {peer.version} into an environment of its own")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, peer.requirement, *COMMON], check=True, stdout=sys.stderr)
            whole.touch()
    return python


def run_peer(
    peer: Peer, cases: list[Case], seed: int, home: Path, tell: Callable[[str], None]
) -> list[Tally]:
    """All cases of a peer, each with a new payee, a new payer and new books."""
    python = str(environment(peer, tell))
    tallies = []
    for case in cases:
        tell(f"{peer.name}: {case.name}")
        for turn in range(TURNS_MAX):
            tally = _run_case(peer, python, case, seed, home / f"{case.name}-{turn}")
            if not any("Timeout" in error for error in tally.errors):
                break
            # Nothing here takes seconds: the machine stood still, which is no fault of the peer's.
            tell(f"{peer.name}: {case.name} once more, as a call timed out")
        tallies.append(tally)
    return tallies


def _run_case(peer: Peer, python: str, case: Case, seed: int, home: Path) -> Tally:
    tally = Tally(case)
    key, payer = _new_key(python)
    books_port, port = free_port(), free_port()
    with stage(home) as children:
        books = json.dumps({"port": books_port, "balances": {payer: BALANCE}})
        start(
            children, "facilitator", [python, str(HERE / "lossy_facilitator.py"), books], books_port, "/books"
        )
        with (
            LossyWire(books_port, lose=first_of("/settle") if case.forgetful else nothing) as settling,
            wire_of(case, port, peer.payment, seed) as wire,
        ):
            spec = {
                "port": port,
                "facilitator": f"http://127.0.0.1:{settling.port}",
                "pay_to": PAY_TO,
                "price": peer.price,
            }
            start(children, "payee", [python, peer.script, "payee", json.dumps(spec)], port, "/seen")
            jobs = {"url": f"http://127.0.0.1:{wire.port}", "key": key}
            found = pay(children, case, [python, peer.script, "payer"], jobs, home)
            tally.runs = Counter(ask(port, "/seen")["runs"])
            tally.went_out = wire.went_out
            assert bool(settling.lost) == case.forgetful, "settlements lose their answers where they are to"
        _judge(tally, found, ask(books_port, "/books"))
    return tally


def _judge(tally: Tally, found: Mapping[str, Any], books: Mapping[str, Any]) -> None:
    note_ends(tally, found["ends"])
    for nonce in books["settled"]:
        tally.charged[found["payments"][nonce]] += 1
    tally.stranded = BALANCE - sum(books["balances"].values())


def _new_key(python: str) -> tuple[str, str]:
    """A key made for this case, and its address."""
    made = "from eth_account import Account; a = Account.create(); print(a.key.hex(), a.address)"
    done = subprocess.run([python, "-c", made], capture_output=True, text=True, check=True)
    key, address = done.stdout.split()
    return "0x" + key.removeprefix("0x"), address

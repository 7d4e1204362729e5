"""The lossy scoreboard: what calls cost when responses are lost, on tokenmesh and on its peers.

    python benchmarks/lossy.py [--systems tokenmesh_embedded,x402,...] [--calls 1000] [--seed 20] [--json]
                               [--plot FILE.svg]

Every system meets the same calls over the same lossy wire: a proxy on loopback that closes the connection
instead of passing the response on. The same seed loses the same responses on each of them. What is tried
stands in :mod:`tokenmesh_benchmarks.lossy_cases`, and what it showed, with how each system is set up, in
``docs/explanation/scoreboard.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenmesh.cli.demo.ground import EMBEDDED, FABRIC
from tokenmesh_benchmarks import lossy_page
from tokenmesh_benchmarks.lossy_cases import Case, Tally, bare_cases, cases, score
from tokenmesh_benchmarks.lossy_peers import PYMPP, X402, run_peer
from tokenmesh_benchmarks.lossy_tokenmesh import run_tokenmesh

CALLS = 1_000
SEED = 20

Tell = Callable[[str], None]
Run = Callable[[list[Case], int, Path, Tell], list[Tally]]


def _on(ledger: str) -> Run:
    return lambda chosen, seed, home, tell: run_tokenmesh(ledger, chosen, seed, home, tell)


def _peer(peer: Any) -> Run:
    return lambda chosen, seed, home, tell: run_peer(peer, chosen, seed, home, tell)


SYSTEMS: dict[str, Run] = {
    "tokenmesh_embedded": _on(EMBEDDED),
    "tokenmesh_fabric": _on(FABRIC),
    "tokenmesh_without_retries": _on(EMBEDDED),
    "x402": _peer(X402),
    "pympp": _peer(PYMPP),
}
"""``tokenmesh_without_retries`` is the embedded ledger with the client's own retries switched off, and the
naive loop around it."""


def _quiet(_what: str) -> None:
    """Progress that nobody looks at."""


def versions() -> dict[str, str]:
    """What is measured, as installed or pinned."""
    peers = dict(peer.version.split(" ") for peer in (X402, PYMPP))
    return {"tokenmesh": version("tokenmesh-fabric"), **peers}


def measure(
    systems: Iterable[str] = tuple(SYSTEMS),
    calls: int = CALLS,
    *,
    seed: int = SEED,
    home: Path | None = None,
    tell: Tell = _quiet,
) -> dict[str, dict[str, Any]]:
    """System → case → figures, as :func:`tokenmesh_benchmarks.lossy_cases.score` has them."""
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=home, prefix="lossy-") as directory:
        for name in systems:
            chosen = bare_cases(calls) if name == "tokenmesh_without_retries" else cases(calls)
            tallies = SYSTEMS[name](chosen, seed, Path(directory) / name, tell)
            figures[name] = {tally.case.name: score(tally) for tally in tallies}
    return figures


def _systems(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in SYSTEMS]
    if unknown:
        known = ", ".join(SYSTEMS)
        raise argparse.ArgumentTypeError(f"no such system: {', '.join(unknown)}; there are {known}")
    return chosen


def _missing(chosen: Iterable[str]) -> str | None:
    """What is lacking to run these systems, in a line."""
    if "tokenmesh_fabric" not in chosen:
        return None
    from tokenmesh.fabric.network import available

    return available()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What calls cost when responses are lost.")
    parser.add_argument("--systems", type=_systems, default=list(SYSTEMS), help="separated by commas")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls over each lossy wire")
    parser.add_argument("--seed", type=int, default=SEED, help="decides which responses are lost")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, help="write the plot to this file")
    chosen = parser.parse_args()
    missing = _missing(chosen.systems)
    if missing is not None:
        print(missing, file=sys.stderr)
        raise SystemExit(2)

    def tell(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    figures = measure(chosen.systems, chosen.calls, seed=chosen.seed, tell=tell)
    if chosen.plot is not None:
        chosen.plot.write_text(lossy_page.plot(figures, chosen.calls))
    if chosen.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name} {number}" for name, number in versions().items()))
        print(lossy_page.table(figures))


if __name__ == "__main__":
    main()

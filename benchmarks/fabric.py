"""What the ledger on Hyperledger Fabric and its Gateway client do, on a real network made for it.

    python benchmarks/fabric.py [--seconds 5] [--json] [--batch-timeout MS] [--home DIRECTORY]

The network has two organisations, one Raft orderer and a peer each; both endorse every transaction, and each
has a chaincode process of its own. Everything runs on this machine, so it shares its cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenmesh.cli.rules import CHAINCODE as RULES
from tokenmesh.cli.rules import deploy_rules
from tokenmesh.fabric.gateway import connect_profile
from tokenmesh.fabric.network import Network, available
from tokenmesh.identity import CertificateAuthority, Wallet
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh_benchmarks.fabric_gateway import CHAINCODE, COMMAND, measure_gateway
from tokenmesh_benchmarks.fabric_ledger import (
    Market,
    height,
    measure_hold_calls,
    measure_settling,
    weigh_blocks,
)
from tokenmesh_chaincode.rules import default_policy

SECONDS = 5.0
BATCH_TIMEOUT_MS = 5
"""Short: what gathers, gathers in the clients, and a block need not wait long for more."""
BATCH_BYTES = 32 * 2**10
"""What has gathered in a client is larger, and goes into a block at once, without waiting for the timeout."""
PEER_SETTINGS = {"ledger.history.enableHistoryDatabase": False}
"""The rules never ask a peer for the history of a key: an index that nobody reads need not be written."""
SETTLEMENTS = (500, 2_000)
"""Contracts in a settlement; the figure is the better one's."""
BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"


def _quiet(what: str) -> None:
    """Progress that nobody looks at."""


@contextlib.contextmanager
def running_network(home: Path, batch_timeout_ms: int) -> Iterator[Network]:
    """A network below ``home`` with the rules and the small chaincode on it; removed at the end."""
    network = Network(
        home, batch_timeout_ms=batch_timeout_ms, batch_bytes=BATCH_BYTES, peer_settings=PEER_SETTINGS
    )
    try:
        network.up()
        deploy_rules(network)
        network.deploy(CHAINCODE, command=COMMAND, endorsement_policy=BOTH)
        yield network
    finally:
        network.clean()


def open_market(network: Network, home: Path) -> Market:
    """A ledger on the network with two wallets, issued by an authority in ``home``."""
    authority = CertificateAuthority.create(home, passphrase=lambda: None)
    governance = authority.new_identity("governance", "governor")
    wallets = {
        name: Wallet.create(home, name, authority, passphrase=lambda: None) for name in ("payer", "payee")
    }
    FabricLedger.create(
        connect_profile(network.profile),
        "mesh",
        RULES,
        ca=[authority.certificate_pem],
        governors={"governance": governance.certificate_pem},
        policy=default_policy(),
    ).close()
    return Market(network.profile, RULES, governance, wallets)


def measure_ledger(market: Market, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """The ledger's figures, and what its blocks look like."""
    with connect_profile(market.profile) as gateway:
        channel = gateway.get_network("mesh")
        by_size = []
        for size in SETTLEMENTS:
            tell(f"settlements of {size} contracts")
            first = height(channel)
            by_size.append(
                {**measure_settling(market, seconds, size), "blocks": weigh_blocks(channel, first)}
            )
        tell("calls by hold")
        first = height(channel)
        holds = measure_hold_calls(market, seconds)
        weight = weigh_blocks(channel, first)
    best = max(by_size, key=lambda figures: figures["settled_per_s"])
    return {
        "settled_per_s": best["settled_per_s"],
        "settling": by_size,
        **holds,
        "invalid_share": weight["invalid_share"],
        "hold_blocks": weight,
    }


def measure(
    seconds: float = SECONDS,
    *,
    batch_timeout_ms: int = BATCH_TIMEOUT_MS,
    home: Path | None = None,
    tell: Callable[[str], None] = _quiet,
) -> dict[str, Any]:
    """All figures; ``tell`` hears what is being measured."""
    with tempfile.TemporaryDirectory(dir=home) as directory:
        tell("a network")
        with running_network(Path(directory) / "network", batch_timeout_ms) as network:
            market = open_market(network, Path(directory))
            try:
                ledger = measure_ledger(market, seconds, tell)
            finally:
                market.close()
            gateway = measure_gateway(network, seconds, tell)
    return {
        **ledger,
        **gateway,
        "batch_timeout_ms": batch_timeout_ms,
        "endorsers": 2,
        "cores": os.cpu_count(),
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The ledger on Fabric and the Gateway client, measured.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each part is measured")
    parser.add_argument("--batch-timeout", type=int, default=BATCH_TIMEOUT_MS, metavar="MS")
    parser.add_argument("--home", type=Path, help="where the network is made (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    missing = available()
    if missing is not None:
        print(missing, file=sys.stderr)
        raise SystemExit(2)

    def tell(what: str) -> None:
        print(f"measuring: {what}", file=sys.stderr, flush=True)

    figures = measure(chosen.seconds, batch_timeout_ms=chosen.batch_timeout, home=chosen.home, tell=tell)
    if chosen.json:
        print(json.dumps(figures))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title="the ledger on Fabric, and its Gateway client")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, (int, float)) else json.dumps(value))
    Console().print(table)


if __name__ == "__main__":
    main()

"""What a run's domain stands on: a file, or a Fabric network of its own; and the same ledger hours later.

What is set aside comes back when its time and its grace are over. Nobody waits for that: at the end of a
run the ledger is opened with a clock that is put forward. On Fabric every endorser holds the time of a
transaction to its own clock, so there the rules are served by :mod:`chaos.rules`, whose clock is put forward
as well, and the peers take proposals of any time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from chaos.notes import Folder

from tokenmesh.cli.rules import CHAINCODE, deploy_rules
from tokenmesh.fabric.network import Network
from tokenmesh.identity import Wallet
from tokenmesh.ledger.base import Ledger
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh.ledger.fabric.opening import connect_place, read_url

EMBEDDED, FABRIC = "embedded", "fabric"
KINDS = (EMBEDDED, FABRIC)
CHANNEL = "mesh"
BATCH_TIMEOUT_MS = 50
LATER_S = 6 * 3_600.0
"""After this whatever was set aside is over, grace and all."""
ANY_TIME = {"peer.authentication.timewindow": "876000h"}
NODES = {
    "peer0.services": "peer",
    "peer0.governance": "peer",
    "orderer0.governance": "orderer",
    f"chaincode.{CHAINCODE}.services": "chaincode",
    f"chaincode.{CHAINCODE}.governance": "chaincode",
}


class Ground(NamedTuple):
    """Where the ledger is; ``network`` if it is on one."""

    url: str
    folder: Folder
    network: Network | None = None

    @property
    def nodes(self) -> Mapping[str, str]:
        """The nodes that can be attacked, each with what it is part of."""
        return {} if self.network is None else {name: name for name in NODES}

    def later(self, signer: Wallet) -> Ledger:
        """The ledger for ``signer``, by the clock :func:`later`."""
        if self.network is None:
            return EmbeddedLedger(self.url.removeprefix("sqlite:///"), signer, clock=later)
        self.folder.ahead.write_text(str(LATER_S))
        gateway, channel, _ = connect_place(read_url(self.url), signer)
        return FabricLedger(gateway, channel.name, channel.chaincode, clock=later, wallet=signer.name)


def later() -> float:
    """The time when everything that was set aside by now is over."""
    return time.time() + LATER_S


@contextmanager
def prepared(kind: str, folder: Folder, guard: Callable[[Path], None]) -> Iterator[Ground]:
    """The ground for a run in ``folder``. A network is brought up, and taken down afterwards; ``guard`` is
    told where it is before it begins."""
    if kind == EMBEDDED:
        yield Ground(f"sqlite:///{folder.home / 'ledger.db'}", folder)
        return
    home = folder.path / "network"
    guard(home)
    network = Network(home, channels=(CHANNEL,), batch_timeout_ms=BATCH_TIMEOUT_MS, peer_settings=ANY_TIME)
    try:
        network.up()
        rules = Path(__file__).with_name("rules.py")
        deploy_rules(network, [sys.executable, str(rules), str(folder.ahead)])
        yield Ground(f"fabric:///{network.layout.profile}?channel={CHANNEL}", folder, network)
    finally:
        network.down()

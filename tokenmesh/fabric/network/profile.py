"""The profile of a local network, for all who use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tokenmesh.fabric.blocks import read_block
from tokenmesh.fabric.files import write_public
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.organisations import ADMIN
from tokenmesh.fabric.network.plan import HOST, Plan, msp_id
from tokenmesh.fabric.profile import VERSION

CHAINCODE = "tokenmesh"
HEADER = "# Written by `tokenmesh fabric up`, and again at the next one.\n"


def write_profile(layout: Layout, plan: Plan) -> None:
    """Write ``profile.yaml``. It exists from the first ``up`` that came to its end, and says just that."""
    content = {
        "version": VERSION,
        "client": {"organisation": plan.spec.organisations[0], "identity": ADMIN},
        "channels": {
            name: {"chaincode": CHAINCODE, "genesis": read_block(layout.block(name).read_bytes()).hash.hex()}
            for name in plan.spec.channels
        },
        "organisations": {name: _organisation(layout, plan, name) for name in plan.spec.organisations},
    }
    write_public(layout.profile, HEADER + yaml.safe_dump(content, sort_keys=False))


def _organisation(layout: Layout, plan: Plan, name: str) -> dict[str, Any]:
    def relative(path: Path) -> str:
        return str(path.relative_to(layout.home))

    ca = plan.of("ca", name)[0]
    return {
        "msp_id": msp_id(name),
        "tls_ca": relative(layout.ca_certificate(name)),
        "identities": relative(layout.organisation(name) / "identities"),
        "ca": {"url": f"https://{ca.address}", "name": ca.name},
        "peers": {
            peer.name: {"address": peer.address, "chaincode": f"{HOST}:{peer.ports['chaincode']}"}
            for peer in plan.of("peer", name)
        },
        "orderers": {orderer.name: {"address": orderer.address} for orderer in plan.of("orderer", name)},
    }

"""The rules on a Fabric network of this machine: served for every organisation, agreed on by all of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the extra `fabric` need not be installed for the other commands to work
    from tokenmesh.fabric.network import Network

CHAINCODE = "tokenmesh"
COMMAND = (sys.executable, "-m", "tokenmesh_chaincode")
PRIVATE = "private"
"""The private data collection in which the disclosures of private contracts are kept."""
ENDORSERS = 2
"""The first so many organisations, governance and services, endorse and keep what is private. Others
(observers) run the rules too: to ask, and to verify."""


def deploy_rules(network: Network, command: Sequence[str] = COMMAND) -> None:
    """Have the rules of this installation on every channel of a network that is up. Safe to repeat.

    Where other ones run, of another version of tokenmesh, the organisations agree on these. ``command`` is
    what serves them.
    """
    from tokenmesh.fabric.lifecycle import Collection

    spec = network.plan.spec
    msps = [one.msp_id for one in network.profile.organisations.values()][:ENDORSERS]
    definition: dict[str, Any] = {
        "version": version("tokenmesh-fabric"),
        "endorsement_policy": _policy("AND", msps, "peer"),
        "collections": (
            Collection(
                PRIVATE, _policy("OR", msps, "member"), max_peer_count=max(1, len(msps) * spec.peers - 1)
            ),
        ),
    }
    deployed = network.plan.chaincode(CHAINCODE)
    if deployed is not None and any(getattr(deployed, name) != value for name, value in definition.items()):
        network.upgrade(CHAINCODE, command=command, **definition)
    else:
        network.deploy(CHAINCODE, command=command, **definition)


def _policy(operator: str, msps: Sequence[str], role: str) -> str:
    principals = ", ".join(f"'{msp}.{role}'" for msp in msps)
    return f"{operator}({principals})"

"""A chaincode of the blocks' tests on the session's network, and the channel's blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest

from support.shim_chaincode import chaincode
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.gateway import Network as Channel
from tokenmesh.fabric.lifecycle import Collection, Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import Package, package_service
from tokenmesh_chaincode.shim import Options, Server

BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"
GOVERNANCE = "OR('GovernanceMSP.peer')"
MEMBERS = "OR('GovernanceMSP.member', 'ServicesMSP.member')"
COLLECTIONS = (
    Collection("shared", MEMBERS),
    Collection("brief", MEMBERS, block_to_live=2),
    Collection("own", MEMBERS, endorsement_policy=GOVERNANCE),
)


class Served(NamedTuple):
    """The chaincode, served in this process: ``define(name, policy)`` has all agree on a definition of it."""

    gateway: Gateway
    define: Callable[[str, str], None]


@contextmanager
def with_chaincode(network: Network) -> Iterator[Served]:
    """As governance's administrator, with the chaincode ``blocks`` deployed."""
    packages: dict[str, Package] = {}
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]

        def define(name: str, policy: str) -> None:
            if name not in packages:
                server = Server(chaincode, Options())
                packages[name] = package_service(name, server.listen())
                server.start(packages[name].package_id)
                stack.callback(server.stop)
            definition = Definition(name, endorsement_policy=policy, collections=COLLECTIONS)
            deploy(gateways, "mesh", definition, [packages[name]])

        define("blocks", BOTH)
        yield Served(gateways[0], define)


@pytest.fixture(scope="session")
def gateway(network: Network) -> Iterator[Gateway]:
    with with_chaincode(network) as served:
        yield served.gateway


@pytest.fixture
def channel(gateway: Gateway) -> Channel:
    return gateway.get_network("mesh")

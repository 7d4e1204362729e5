"""A chaincode of the blocks' tests on the session's network, and the channel's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support.shim_chaincode import chaincode
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.gateway import Network as Channel
from tokenmesh.fabric.lifecycle import Collection, Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import package_service
from tokenmesh_chaincode.shim import Options, Server

BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"
GOVERNANCE = "OR('GovernanceMSP.peer')"
MEMBERS = "OR('GovernanceMSP.member', 'ServicesMSP.member')"
COLLECTIONS = (
    Collection("shared", MEMBERS),
    Collection("brief", MEMBERS, block_to_live=2),
    Collection("own", MEMBERS, endorsement_policy=GOVERNANCE),
)


@contextmanager
def with_chaincode(network: Network) -> Iterator[Gateway]:
    """As governance's administrator, with the chaincode ``blocks`` deployed."""
    server = Server(chaincode, Options())
    package = package_service("blocks", server.listen())
    server.start(package.package_id)
    with ExitStack() as stack:
        stack.callback(server.stop)
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        definition = Definition("blocks", endorsement_policy=BOTH, collections=COLLECTIONS)
        deploy(gateways, "mesh", definition, [package])
        yield gateways[0]


@pytest.fixture(scope="session")
def gateway(network: Network) -> Iterator[Gateway]:
    with with_chaincode(network) as gateway:
        yield gateway


@pytest.fixture
def channel(gateway: Gateway) -> Channel:
    return gateway.get_network("mesh")

"""A chaincode of the blocks' tests on the session's network, and the channel's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.kv_chaincode import Service
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.gateway import Network as Channel
from tokenmesh.fabric.lifecycle import Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import package_service

BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"


@pytest.fixture(scope="session")
def gateway(network: Network) -> Iterator[Gateway]:
    """As governance's administrator, with the chaincode ``blocks`` deployed."""
    service = Service()
    package = package_service("blocks", service.reserve())
    service.start(package.package_id)
    with ExitStack() as stack:
        stack.callback(service.stop)
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        deploy(gateways, "mesh", Definition("blocks", endorsement_policy=BOTH), [package])
        yield gateways[0]


@pytest.fixture
def channel(gateway: Gateway) -> Channel:
    return gateway.get_network("mesh")

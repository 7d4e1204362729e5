"""A chaincode on the session's network, deployed by our own lifecycle, and gateways to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.kv_chaincode import Service
from tokenmesh.fabric.gateway import Contract, Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import package_service

BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"


def deploy_kv(network: Network, service: Service, name: str = "kv", policy: str = BOTH) -> None:
    """Start the chaincode and have both organisations agree on it."""
    package = package_service(name, service.reserve())
    service.start(package.package_id)
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        deploy(gateways, "mesh", Definition(name, endorsement_policy=policy), [package])


@pytest.fixture(scope="session")
def kv(network: Network) -> Iterator[Network]:
    """The session's network with the chaincode ``kv`` on it, which both organisations have to endorse."""
    service = Service()
    deploy_kv(network, service)
    yield network
    service.stop()


@pytest.fixture
def gateway(kv: Network) -> Iterator[Gateway]:
    with connect_profile(kv.profile) as gateway:
        yield gateway


@pytest.fixture
def contract(gateway: Gateway) -> Contract:
    return gateway.get_network("mesh").get_contract("kv")

"""A chaincode that does one of everything, served by our shim in the test's process to both peers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.shim_chaincode import chaincode
from tokenmesh.fabric.gateway import Contract, Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Collection, Definition, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import ServiceTls, package_service
from tokenmesh_chaincode.shim import Options, Server

NAME = "everything"
BOTH = "AND('GovernanceMSP.peer', 'ServicesMSP.peer')"
COLLECTION = Collection("private", "OR('GovernanceMSP.member', 'ServicesMSP.member')")


def deploy_shim(
    network: Network,
    server: Server,
    name: str = NAME,
    channel: str = "mesh",
    tls: ServiceTls | None = None,
    policy: str = BOTH,
) -> None:
    """Start the server and have both organisations agree on what it serves."""
    package = package_service(name, server.listen(), tls=tls)
    server.start(package.package_id)
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(connect_profile(network.profile, organisation))
            for organisation in network.profile.organisations
        ]
        definition = Definition(name, endorsement_policy=policy, collections=[COLLECTION])
        deploy(gateways, channel, definition, [package])


@pytest.fixture(scope="session")
def server(network: Network) -> Iterator[Server]:
    server = Server(chaincode, Options())
    deploy_shim(network, server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway(network: Network) -> Iterator[Gateway]:
    with connect_profile(network.profile) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def contract(server: Server, gateway: Gateway) -> Contract:
    return gateway.get_network("mesh").get_contract(NAME)


Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def ask(contract: Contract) -> Ask:
    """Evaluates a function and reads its JSON."""
    return lambda function, *arguments: json.loads(contract.evaluate_transaction(function, *arguments))

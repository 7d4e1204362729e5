"""Chaincode is deployed, upgraded and asked about without Fabric's own programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from support.kv_chaincode import Service
from tokenmesh.fabric.errors import EndorseError, LifecycleError
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Collection, Definition, Lifecycle, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import Package, package_service, read_package

numbers = count(1)
MSPS = ("GovernanceMSP", "ServicesMSP")


@pytest.fixture
def name() -> str:
    """A chaincode that the channel does not know yet."""
    return f"chaincode-{next(numbers)}"


@pytest.fixture
def gateways(network: Network) -> Iterator[list[Gateway]]:
    """One of each organisation."""
    gateways = [connect_profile(network.profile, name) for name in network.profile.organisations]
    yield gateways
    for gateway in gateways:
        gateway.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def package(name: str, service: Service) -> Package:
    """Installed by the test; the chaincode runs."""
    made = package_service(name, service.reserve())
    service.start(made.package_id)
    return made


def test_step_by_step(gateways: list[Gateway], name: str, package: Package) -> None:
    first, second = (Lifecycle(gateway) for gateway in gateways)
    definition = Definition(name, version="1.0")
    assert first.query_committed("mesh", name) is None
    assert first.query_approved("mesh", name) is None

    for desk in (first, second):
        assert desk.install(package) == package.package_id == desk.install(package)
        assert package.package_id in [one.package_id for one in desk.query_installed()]
    assert read_package(first.get_installed_package(package.package_id)) == package

    first.approve("mesh", definition, package.package_id)
    first.approve("mesh", definition, package.package_id)
    assert first.check_commit_readiness("mesh", definition) == {MSPS[0]: True, MSPS[1]: False}
    with pytest.raises(EndorseError, match=r"not agreed to by this org|failed to"):
        first.commit("mesh", definition)
    second.approve("mesh", definition, package.package_id)
    first.commit("mesh", definition)

    approved = second.query_approved("mesh", name)
    assert approved is not None
    assert (approved.version, approved.sequence, approved.package_id) == ("1.0", 1, package.package_id)
    committed = second.query_committed("mesh", name)
    assert committed is not None
    assert (committed.version, committed.sequence) == ("1.0", 1)
    assert committed.approvals == dict.fromkeys(MSPS, True)
    assert name in [one.name for one in second.query_all_committed("mesh")]
    used = [one.references for one in first.query_installed() if one.package_id == package.package_id]
    assert used == [{"mesh": [name]}]


def test_deploying_again_changes_nothing_and_something_new_gets_the_next_sequence(
    gateways: list[Gateway], name: str, package: Package
) -> None:
    collection = Collection("private", "OR('GovernanceMSP.member', 'ServicesMSP.member')")
    both = f"AND('{MSPS[0]}.peer', '{MSPS[1]}.peer')"
    steps = [
        (Definition(name), 1),
        (Definition(name), 1),
        (Definition(name, version="2"), 2),
        (Definition(name, version="2", endorsement_policy=both), 3),
        (Definition(name, version="2", endorsement_policy=both, collections=[collection]), 4),
        (Definition(name, version="2", endorsement_policy=both, collections=[collection]), 4),
    ]
    for definition, sequence in steps:
        assert deploy(gateways, "mesh", definition, [package]).sequence == sequence
    contract = gateways[0].get_network("mesh").get_contract(name)
    assert contract.submit_transaction("put", "key", "value") == b"value"


def test_each_organisation_may_run_a_package_of_its_own(
    gateways: list[Gateway], name: str, service: Service, package: Package
) -> None:
    other = Service()
    try:
        second = package_service(name, other.reserve())
        other.start(second.package_id)
        deploy(gateways, "mesh", Definition(name), [package, second])
        contract = gateways[0].get_network("mesh").get_contract(name)
        assert contract.submit("put", ("key", "value"), endorsing_organizations=MSPS) == b"value"
        with pytest.raises(LifecycleError, match="2 gateways"):
            deploy(gateways, "mesh", Definition(name), [package] * 3)
    finally:
        other.stop()


def test_a_chaincode_moves_to_another_address_without_a_new_sequence(
    gateways: list[Gateway], name: str, service: Service, package: Package
) -> None:
    deploy(gateways, "mesh", Definition(name), [package])
    contract = gateways[0].get_network("mesh").get_contract(name)
    contract.submit_transaction("put", "key", "before")
    moved = Service()
    try:
        elsewhere = package_service(name, moved.reserve())
        moved.start(elsewhere.package_id)
        assert deploy(gateways, "mesh", Definition(name), [elsewhere]).sequence == 1
        service.stop()
        assert contract.evaluate_transaction("get", "key") == b"before"
        assert contract.submit_transaction("put", "key", "after") == b"after"
    finally:
        moved.stop()

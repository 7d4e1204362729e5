"""The rules on a real network of three organisations: who runs them, who endorses, and how they change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import collection_pb2, policy_pb2

from tokenmesh.cli import rules
from tokenmesh.fabric.gateway import connect_profile
from tokenmesh.fabric.lifecycle import Committed, Lifecycle
from tokenmesh.fabric.network import Network, available

pytestmark = pytest.mark.timeout(1200)  # the first time, Fabric is built


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    missing = available()
    if missing is not None:
        pytest.skip(missing)
    network = Network(tmp_path_factory.mktemp("fabric"), orgs=3)
    try:
        network.up()
        rules.deploy_rules(network)
        yield network
    finally:
        network.clean()


def committed(network: Network) -> Committed:
    with connect_profile(network.profile) as gateway:
        found = Lifecycle(gateway).query_committed("mesh", rules.CHAINCODE)
    assert found is not None
    return found


def principals(policy: bytes) -> tuple[int, set[tuple[str, int]]]:
    """How many have to sign, and out of whom: MSP id and role."""
    signature = policy_pb2.ApplicationPolicy.FromString(policy).signature_policy
    roles = [msp_principal_pb2.MSPRole.FromString(one.principal) for one in signature.identities]
    return signature.rule.n_out_of.n, {(role.msp_identifier, role.role) for role in roles}


def test_governance_and_services_endorse_and_observers_only_agree(network: Network) -> None:
    """All three have approved that two endorse, and that these two alone have what is private."""
    found = committed(network)
    peer = msp_principal_pb2.MSPRole.PEER
    assert principals(found.validation_parameter) == (2, {("GovernanceMSP", peer), ("ServicesMSP", peer)})
    assert found.approvals == {"GovernanceMSP": True, "ServicesMSP": True, "ObserversMSP": True}
    collections = collection_pb2.CollectionConfigPackage.FromString(found.collections).config
    (private,) = [one.static_collection_config for one in collections]
    policy = policy_pb2.ApplicationPolicy(signature_policy=private.member_orgs_policy.signature_policy)
    member = msp_principal_pb2.MSPRole.MEMBER
    assert private.name == "private"
    assert principals(policy.SerializeToString()) == (
        1,
        {("GovernanceMSP", member), ("ServicesMSP", member)},
    )


@pytest.mark.parametrize("organisation", ["governance", "services", "observers"])
def test_every_organisation_can_ask_its_own_peer(network: Network, organisation: str) -> None:
    """Observers run the rules too. No ledger has begun: it has no domain."""
    with connect_profile(network.profile, organisation) as gateway:
        contract = gateway.get_network("mesh").get_contract(rules.CHAINCODE)
        asked = contract.evaluate("ask", ["domain", "[]"], endorsing_organizations=[gateway.identity.msp_id])
        assert asked == b'""'


def test_rules_of_another_version_are_agreed_on_anew(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed again: nothing. By a newer tokenmesh: the next sequence, approved by all."""
    before = committed(network)
    rules.deploy_rules(network)
    assert committed(network) == before
    monkeypatch.setattr(rules, "version", lambda distribution: "99")
    rules.deploy_rules(network)
    after = committed(network)
    assert (after.version, after.sequence) == ("99", before.sequence + 1)
    assert set(after.approvals.values()) == {True}

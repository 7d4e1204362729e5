"""What a network consists of, and what cannot be one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.lifecycle import Collection
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.network.plan import (
    CHAINCODES_MAX,
    Chaincode,
    Node,
    Plan,
    Spec,
    msp_id,
    organisation_names,
    ports_needed,
    service_name,
)


def test_the_plan_is_the_same_when_read_again(tmp_path: Path) -> None:
    spec = Spec(("a", "b", "c"), orderers=4, consensus="bft", channels=("x", "y"), peers=2)
    plan = Plan.make(spec, range(20_000, 20_000 + ports_needed(spec)))
    plan = plan.with_chaincode(kv(spec))
    plan.save(tmp_path / "network.json")
    assert Plan.load(tmp_path / "network.json") == plan
    assert Plan.load(tmp_path / "other.json") is None


def kv(spec: Spec, name: str = "kv", **given: Any) -> Chaincode:
    """A chaincode with a service for each organisation."""
    services = tuple(
        Node(service_name(name, organisation), "chaincode", organisation, {"listen": port, "spare": port + 1})
        for port, organisation in zip(range(30_000, 31_000, 2), spec.organisations, strict=False)
    )
    return Chaincode(
        name,
        ("serve", name),
        spec.channels,
        collections=(Collection("private", "OR('A.member')"),),
        environ={"A": "b"},
        services=services,
        **given,
    )


def test_a_plan_without_chaincodes_can_be_read(tmp_path: Path) -> None:
    """Networks that were made before there were any."""
    spec = Spec()
    plan = Plan.make(spec, range(20_000, 20_000 + ports_needed(spec)))
    plan.save(tmp_path / "network.json")
    kept = json.loads((tmp_path / "network.json").read_text())
    del kept["chaincodes"]
    (tmp_path / "network.json").write_text(json.dumps(kept))
    assert Plan.load(tmp_path / "network.json") == plan


def test_a_next_version_runs_beside_the_one_before_it_and_takes_its_place() -> None:
    """Under names and on ports of its own, until it is the one in force."""
    spec = Spec()
    before = kv(spec)
    after = before.follower(replace(before, version="2"))
    plan = Plan(spec).with_chaincode(before).with_chaincode(after)
    names = ["chaincode.kv.governance", "chaincode.kv.services"]
    assert [node.name for node in plan.of("chaincode")] == [*names, *(f"{name}.next" for name in names)]
    assert len({node.port for node in plan.of("chaincode")}) == 4
    assert plan.served(plan.node("chaincode.kv.services.next")).version == "2"
    done = plan.without_chaincode("kv", following=True).with_chaincode(after.leader())
    assert [node.name for node in done.of("chaincode")] == names
    assert [node.port for node in done.of("chaincode")] == [one.ports["spare"] for one in before.services]


def test_a_network_runs_so_many_chaincodes_and_no_more() -> None:
    spec = Spec()
    plan = Plan(spec)
    for number in range(CHAINCODES_MAX):
        plan = plan.with_chaincode(kv(spec, f"kv{number}"))
    with pytest.raises(NetworkError, match=r"16 chaincodes at most; `Network\.undeploy` ends one"):
        plan.with_chaincode(kv(spec, "one-more"))
    assert len(plan.with_chaincode(kv(spec, "kv0", version="2")).chaincodes) == CHAINCODES_MAX


def test_every_node_has_ports_of_its_own() -> None:
    spec = Spec(organisation_names(3), orderers=4, consensus="bft", peers=2)
    plan = Plan.make(spec, range(20_000, 20_000 + ports_needed(spec)))
    ports = [port for node in plan.nodes for port in node.ports.values()]
    assert len(ports) == len(set(ports)) == ports_needed(spec)


def test_orderers_are_dealt_out_to_the_organisations() -> None:
    spec = Spec(("a", "b", "c"), orderers=4, consensus="bft")
    plan = Plan.make(spec, range(20_000, 20_000 + ports_needed(spec)))
    assert [node.name for node in plan.of("orderer")] == [
        "orderer0.a",
        "orderer1.b",
        "orderer2.c",
        "orderer3.a",
    ]


def test_names() -> None:
    assert organisation_names(5) == ("governance", "services", "observers", "org4", "org5")
    assert organisation_names(1) == ("governance",)
    assert msp_id("north-west") == "NorthWestMSP"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orgs": 0}, "1 to 8 organisations"),
        ({"orgs": 9}, "1 to 8 organisations"),
        ({"orgs": ["a", "a"]}, "two organisations have the same name"),
        ({"orgs": ["A"]}, "'A' is no organisation's name"),
        ({"orgs": ["../a"]}, "is no organisation's name"),
        ({"consensus": "bft", "orderers": 3}, "BFT needs 4 orderers or more .*--orderers 4"),
        ({"consensus": "paxos"}, "raft and bft, not paxos"),
        ({"orderers": 0}, "1 to 10 orderers"),
        ({"orderers": 11}, "1 to 10 orderers"),
        ({"channels": []}, "1 to 16 channels"),
        ({"channels": ["Mesh"]}, "'Mesh' is no channel's name"),
        ({"channels": ["a", "a"]}, "two channels have the same name"),
        ({"channels": [f"c{number}" for number in range(17)]}, "1 to 16 channels"),
        ({"peers": 5}, "1 to 4 peers"),
        ({"batch_timeout_ms": 0}, "1 to 60000 milliseconds"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(tmp_path / "network", **options)
    assert not (tmp_path / "network").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 0}', '{"version": 1}'])
def test_a_damaged_plan_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "network.json").write_text(content)
    with pytest.raises(NetworkError, match=r"damaged|another version"):
        Plan.load(tmp_path / "network.json")


def test_a_node_that_is_not_there_is_said_with_those_that_are() -> None:
    plan = Plan.make(Spec(), range(20_000, 20_100))
    with pytest.raises(NetworkError, match=r"no node peer7; there are ca\.governance, "):
        plan.node("peer7")

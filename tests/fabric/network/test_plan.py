"""What a network consists of, and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.network.plan import Plan, Spec, msp_id, organisation_names, ports_needed


def test_the_plan_is_the_same_when_read_again(tmp_path: Path) -> None:
    spec = Spec(("a", "b", "c"), orderers=4, consensus="bft", channels=("x", "y"), peers=2)
    plan = Plan.make(spec, range(20_000, 20_000 + ports_needed(spec)))
    plan.save(tmp_path / "network.json")
    assert Plan.load(tmp_path / "network.json") == plan
    assert Plan.load(tmp_path / "other.json") is None


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

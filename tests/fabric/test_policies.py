"""Signature policies are read as Fabric's own tools read them, and what is wrong is pointed at."""

from __future__ import annotations

import pytest
from fabric_protos.msp import msp_principal_pb2

from tokenmesh.fabric.policies import PolicyError, parse_policy


def principals(text: str) -> list[tuple[str, int]]:
    roles = [msp_principal_pb2.MSPRole.FromString(one.principal) for one in parse_policy(text).identities]
    return [(role.msp_identifier, role.role) for role in roles]


def test_and_wants_all_or_wants_one_outof_a_number() -> None:
    for text, wanted in (
        ("AND('A.peer', 'B.peer', 'C.peer')", 3),
        ("OR('A.peer', 'B.peer', 'C.peer')", 1),
        ("OutOf(2, 'A.peer', 'B.peer', 'C.peer')", 2),
        ("outof('2','A.peer','B.peer','C.peer')", 2),
    ):
        rule = parse_policy(text).rule
        assert rule.n_out_of.n == wanted
        assert [one.signed_by for one in rule.n_out_of.rules] == [0, 1, 2]


def test_principals_are_listed_once_in_the_order_of_their_names() -> None:
    assert principals("OR(AND('B.Org.admin', 'A.member'), AND('B.Org.admin', 'C.client'))") == [
        ("B.Org", msp_principal_pb2.MSPRole.ADMIN),
        ("A", msp_principal_pb2.MSPRole.MEMBER),
        ("C", msp_principal_pb2.MSPRole.CLIENT),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its end"),
        ("AND()", "neither AND"),
        ("AND('A.peer'", "is not"),
        ("AND('A.peer') x", "more than one"),
        ("XOR('A.peer')", "neither AND"),
        ("'A.king'", "'MSP.ROLE'"),
        ("'A'", "'MSP.ROLE'"),
        ("OutOf(3, 'A.peer', 'B.peer')", "asks for 3 out of 2"),
        ("OutOf('A.peer')", "no number"),
        ("AND('A.peer' & 'B.peer')", "cannot be read"),
        ("AND(" * 50 + "'A.peer'" + ")" * 50, "deep"),
        ("x" * 20_000, "more than"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        parse_policy(text)

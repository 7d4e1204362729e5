"""Whether a set of signatures is what a policy of the channel asks for.

A signature policy counts signatures of principals, each signer once (``common/cauthdsl`` in Fabric's
source); an implicit one counts the organisations whose policy of some name holds (``common/policies``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fabric_protos.common import policies_pb2
from fabric_protos.peer import policy_pb2

from tokenmesh.fabric.blocks.msp import Member, Members
from tokenmesh.fabric.errors import BlockError

SIGNATURE = 1
IMPLICIT_META = 3
DEPTH_MAX = 20
ANY, ALL, MAJORITY = range(3)


class Signed(NamedTuple):
    """A signature, what it is over, and the ``SerializedIdentity`` that is said to have made it."""

    message: bytes
    signature: bytes
    identity: bytes


def signers(members: Members, signatures: Iterable[Signed]) -> list[Member]:
    """Those whose signature holds, each once."""
    found: dict[tuple[str, bytes], Member] = {}
    for one in signatures:
        try:
            member = members.member(one.identity)
        except BlockError:
            continue
        key = (member.msp_id, member.der)
        if key not in found and member.has_signed(one.message, one.signature):
            found[key] = member
    return list(found.values())


class Policies:
    """The policies of a channel's configuration, by their paths: ``/Channel/Application/Endorsement``."""

    def __init__(self, group: Any, members: Members) -> None:
        self._root = group
        self._members = members

    def has(self, path: str) -> bool:
        """Whether there is a policy at this path."""
        group = self._group(path)
        return group is not None and path.rpartition("/")[2] in group.policies

    def holds(self, path: str, by: Sequence[Member]) -> bool:
        """Whether these signers are what the policy at a path asks for; never, if there is none."""
        group = self._group(path)
        return group is not None and self._named(group, path.rpartition("/")[2], by, 0)

    def application_policy_holds(self, octets: bytes, by: Sequence[Member]) -> bool:
        """The same for an ``ApplicationPolicy``: a signature policy, or a path."""
        policy = policy_pb2.ApplicationPolicy.FromString(octets)
        kind = policy.WhichOneof("Type")
        if kind == "signature_policy":
            return self.signature_policy_holds(policy.signature_policy, by)
        return kind is not None and self.holds(policy.channel_config_policy_reference, by)

    def signature_policy_holds(self, envelope: Any, by: Sequence[Member]) -> bool:
        """The same for a ``SignaturePolicyEnvelope``."""
        return _rule_holds(envelope.rule, envelope.identities, by, set(), 0)

    def _group(self, path: str) -> Any:
        """The group that a policy's path lies in."""
        first, *names = path.strip("/").split("/")[:-1] or [""]
        group = self._root if first == "Channel" and path.startswith("/") else None
        for name in names:
            group = group.groups[name] if group is not None and name in group.groups else None
        return group

    def _named(self, group: Any, name: str, by: Sequence[Member], depth: int) -> bool:
        if name not in group.policies or depth > DEPTH_MAX:
            return False
        policy = group.policies[name].policy
        if policy.type == SIGNATURE:
            return self.signature_policy_holds(
                policies_pb2.SignaturePolicyEnvelope.FromString(policy.value), by
            )
        if policy.type != IMPLICIT_META:
            return False
        meta = policies_pb2.ImplicitMetaPolicy.FromString(policy.value)
        below = [self._named(one, meta.sub_policy, by, depth + 1) for one in group.groups.values()]
        needed = {ANY: 1, ALL: len(below), MAJORITY: len(below) // 2 + 1}[meta.rule] if below else 0
        return sum(below) >= needed


def _rule_holds(rule: Any, principals: Any, by: Sequence[Member], used: set[int], depth: int) -> bool:
    """Whether a rule holds with the signers that are not ``used`` yet; those it takes are used then."""
    kind = rule.WhichOneof("Type")
    if kind == "signed_by" and 0 <= rule.signed_by < len(principals):
        principal = principals[rule.signed_by]
        for place, member in enumerate(by):
            if place not in used and member.msp.satisfies(member, principal):
                used.add(place)
                return True
        return False
    if kind != "n_out_of" or depth > DEPTH_MAX:
        return False
    held = 0
    for part in rule.n_out_of.rules:
        tried = set(used)
        if _rule_holds(part, principals, by, tried, depth + 1):
            held += 1
            used.clear()
            used.update(tried)
    return held >= int(rule.n_out_of.n)

"""Whether a new configuration of a channel follows from the one before by what its administrators signed.

``common/configtx`` in Fabric's source: an update names what it has read and what it writes, each element with
its version; whoever the policy of a changed element names has to have signed; and the new configuration is
the old one with those elements in their places, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.channel import Configuration, read_config_envelope
from tokenmesh.fabric.blocks.envelopes import Envelope
from tokenmesh.fabric.blocks.policies import Signed, signers

DEPTH_MAX = 20
ROOT = "/Channel"
ADMINS = "Admins"


class Element(NamedTuple):
    """A group, value or policy of a configuration, and the path of the group that its policy is one of."""

    item: Any
    home: str


Place: TypeAlias = tuple[str, str]
"""What an element is ("groups", "values", "policies"), and its path."""


def update_problem(configuration: Configuration, envelope: Envelope) -> str:
    """Why the configuration in an envelope does not follow from the one in force; "" if it does."""
    try:
        found = read_config_envelope(envelope)
        if int(found.config.sequence) != configuration.sequence + 1:
            return f"its sequence is {found.config.sequence}, after {configuration.sequence}"
        payload = common_pb2.Payload.FromString(found.last_update.payload)
        signed = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data)
        update = configtx_pb2.ConfigUpdate.FromString(signed.config_update)
        problem, changed = _changes(configuration, update, signed)
    except DecodeError as error:
        return f"the update that led to it cannot be read: {error}"
    if problem:
        return problem
    current = dict(_elements(configuration.config.channel_group))
    built = _build(ROOT, {**current, **changed}, 0)
    if built != found.config.channel_group:
        return "it is not what the signed update makes of the configuration before"
    return ""


def _changes(configuration: Configuration, update: Any, signed: Any) -> tuple[str, Mapping[Place, Element]]:
    """What is wrong with an update, and the elements that it changes."""
    if update.channel_id != configuration.channel:
        return f"its update is for channel {update.channel_id!r}", {}
    current = dict(_elements(configuration.config.channel_group))
    read = dict(_elements(update.read_set))
    for place, element in read.items():
        if place not in current or current[place].item.version != element.item.version:
            return f"its update has read {place[1]} in another version than the one in force", {}
    changed = {
        place: element
        for place, element in _elements(update.write_set)
        if place not in read or read[place].item.version != element.item.version
    }
    if not changed:
        return "its update changes nothing", {}
    by = signers(
        configuration.members,
        (
            Signed(
                bytes(one.signature_header) + bytes(signed.config_update),
                bytes(one.signature),
                bytes(common_pb2.SignatureHeader.FromString(one.signature_header).creator),
            )
            for one in signed.signatures
        ),
    )
    for place, element in changed.items():
        before = current.get(place)
        if before is None:
            if element.item.version != 0:
                return f"its update gives {place[1]}, which is new, the version {element.item.version}", {}
            continue
        if element.item.version != before.item.version + 1:
            return f"its update gives {place[1]} the version {element.item.version}", {}
        if not configuration.policies.holds(_policy_path(before), by):
            return f"those who signed its update may not change {place[1]}", {}
    return "", changed


def _policy_path(element: Element) -> str:
    named = str(element.item.mod_policy)
    return named if named.startswith("/") else f"{element.home}/{named}"


def _elements(group: Any, path: str = ROOT, depth: int = 0) -> Iterator[tuple[Place, Element]]:
    """All elements of a group, and itself."""
    yield ("groups", path), Element(group, path)
    if depth >= DEPTH_MAX:
        return
    for kind in ("values", "policies"):
        for name, item in getattr(group, kind).items():
            yield (kind, f"{path}/{name}"), Element(item, path)
    for name, one in group.groups.items():
        yield from _elements(one, f"{path}/{name}", depth + 1)


def _build(path: str, elements: Mapping[Place, Element], depth: int) -> Any:
    """The group at ``path``: its members as it names them, each as it is in ``elements``."""
    group = configtx_pb2.ConfigGroup()
    group.CopyFrom(elements["groups", path].item)
    for kind in ("values", "policies"):
        for name, item in getattr(group, kind).items():
            item.CopyFrom(elements[kind, f"{path}/{name}"].item)
            item.mod_policy = item.mod_policy or ADMINS
    if depth < DEPTH_MAX:
        for name, one in group.groups.items():
            one.CopyFrom(_build(f"{path}/{name}", elements, depth + 1))
    group.mod_policy = group.mod_policy or ADMINS
    return group

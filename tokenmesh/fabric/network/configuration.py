"""Changes of a channel's configuration: what changed, signed by the organisations' admins, ordered.

What Fabric's ``configtxlator compute_update``, ``peer channel signconfigtx`` and ``peer channel update`` do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import grpc
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import ab_pb2_grpc

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import tls_files
from tokenmesh.fabric.network.organisations import ADMIN
from tokenmesh.fabric.network.peers import NONCE_BYTES, Member, PeerAdmin, open_channel
from tokenmesh.fabric.network.plan import Node, Plan, msp_id

BROADCAST_TIMEOUT_S = 20.0

Group = Any
"""``common.ConfigGroup``: versions, values, policies, groups within."""


def update(layout: Layout, plan: Plan, channel: str, edit: Callable[[Group], None]) -> int:
    """Have ``edit`` change the channel's configuration; signed by every organisation's admin, then ordered.

    The answer is the number of the configuration that the peers will come to have. Raises
    :class:`NetworkError` if nothing changed, or if the orderers refuse it.
    """
    config = current(layout, plan, channel)
    changed = configtx_pb2.ConfigGroup()
    changed.CopyFrom(config.channel_group)
    edit(changed)
    read_set, write_set, differs = difference(config.channel_group, changed)
    if not differs:
        raise NetworkError(f"the configuration of {channel} is like that already")
    delta = configtx_pb2.ConfigUpdate(channel_id=channel, read_set=read_set, write_set=write_set)
    admins = [Member.load(layout.identity(name, ADMIN), msp_id(name)) for name in plan.spec.organisations]
    envelope = _envelope(channel, delta.SerializeToString(), admins)
    _broadcast(layout, plan.of("orderer"), envelope, channel)
    return int(config.sequence) + 1


def current(layout: Layout, plan: Plan, channel: str) -> Any:
    """The channel's configuration (``common.Config``), as the first peer has it."""
    with closing(PeerAdmin(layout, plan.of("peer")[0])) as peer:
        return configtx_pb2.Config.FromString(peer.channel_config(channel))


def has_sequence(layout: Layout, node: Node, channel: str, sequence: int) -> bool:
    """Whether a peer has come to a certain configuration."""
    with closing(PeerAdmin(layout, node)) as peer:
        return int(configtx_pb2.Config.FromString(peer.channel_config(channel)).sequence) >= sequence


def set_revoked(msp: str, crl: str) -> Callable[[Group], None]:
    """An edit: the organisation's certificates that ``crl`` (PEM) names are refused on the channel."""

    def edit(group: Group) -> None:
        for part in ("Application", "Orderer"):
            if msp in group.groups[part].groups:
                value = group.groups[part].groups[msp].values["MSP"]
                config = msp_config_pb2.MSPConfig.FromString(value.value)
                fabric = msp_config_pb2.FabricMSPConfig.FromString(config.config)
                fabric.revocation_list[:] = [crl.encode()]
                config.config = fabric.SerializeToString()
                value.value = config.SerializeToString()

    return edit


def difference(before: Group, after: Group) -> tuple[Group, Group, bool]:
    """What was read and what is written to come from one configuration to another, and whether they differ.

    As ``internal/configtxlator/update`` of Fabric has it: what is written has the next version; a group that
    gains or loses a member is written itself, and then names the members that stay as they are.
    """
    read, write = configtx_pb2.ConfigGroup(version=before.version), configtx_pb2.ConfigGroup()
    kept = configtx_pb2.ConfigGroup()
    inside = False
    for kind, content in (("values", "value"), ("policies", "policy")):
        for name, item in getattr(after, kind).items():
            old = getattr(before, kind).get(name)
            if old is None or (getattr(old, content), old.mod_policy) != (
                getattr(item, content),
                item.mod_policy,
            ):
                written = getattr(write, kind)[name]
                written.CopyFrom(item)
                written.version = 0 if old is None else old.version + 1
                inside = True
            else:
                getattr(kept, kind)[name].version = old.version
    for name, item in after.groups.items():
        old = before.groups.get(name, configtx_pb2.ConfigGroup())
        was_read, written, differs = difference(old, item)
        inside = inside or differs
        if name not in before.groups:
            written.version = 0
            write.groups[name].CopyFrom(written)
        elif differs:
            read.groups[name].CopyFrom(was_read)
            write.groups[name].CopyFrom(written)
        else:
            kept.groups[name].version = old.version
    if _itself_differs(before, after):
        for one in (read, write):
            one.MergeFrom(kept)
        write.version, write.mod_policy = before.version + 1, after.mod_policy
        return read, write, True
    write.version = before.version
    return read, write, inside


def _itself_differs(before: Group, after: Group) -> bool:
    names = [set(getattr(one, kind)) for one in (before, after) for kind in ("values", "policies", "groups")]
    return names[:3] != names[3:] or before.mod_policy != after.mod_policy


def _envelope(channel: str, delta: bytes, admins: Sequence[Member]) -> Any:
    signed = configtx_pb2.ConfigUpdateEnvelope(config_update=delta)
    for admin in admins:
        header = _signature_header(admin)
        signed.signatures.add(signature_header=header, signature=admin.sign(header + delta))
    sender = admins[0]
    channel_header = common_pb2.ChannelHeader(type=common_pb2.CONFIG_UPDATE, channel_id=channel)
    channel_header.timestamp.GetCurrentTime()
    header = common_pb2.Header(
        channel_header=channel_header.SerializeToString(), signature_header=_signature_header(sender)
    )
    payload = common_pb2.Payload(header=header, data=signed.SerializeToString()).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=sender.sign(payload))


def _signature_header(member: Member) -> bytes:
    header = common_pb2.SignatureHeader(creator=member.creator, nonce=secrets.token_bytes(NONCE_BYTES))
    return bytes(header.SerializeToString())


def _broadcast(layout: Layout, orderers: Sequence[Node], envelope: Any, channel: str) -> None:
    """To the first orderer that takes it. One that was down and lags behind refuses what others take."""
    said: dict[str, list[str]] = {}
    for node in orderers:
        tls = tls_files(layout.identity(node.organisation, ADMIN) / "tls")
        with closing(open_channel(node.address, tls)) as connection:
            stub = ab_pb2_grpc.AtomicBroadcastStub(connection)
            try:
                answer = next(iter(stub.Broadcast(iter([envelope]), timeout=BROADCAST_TIMEOUT_S)))
            except grpc.RpcError as error:
                said.setdefault(str(error.details()), []).append(node.name)
                continue
        if answer.status == common_pb2.SUCCESS:
            return
        said.setdefault(answer.info or common_pb2.Status.Name(answer.status), []).append(node.name)
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in said.items())
    raise NetworkError(f"no orderer took the new configuration of {channel}: {reasons}")

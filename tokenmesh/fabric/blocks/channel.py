"""A channel's configuration, as a configuration block holds it: organisations, policies, orderers.

Block 0 holds the first one. Everything else is judged by the configuration in force, so whoever knows the
hash of block 0 need trust nobody's word for the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fabric_protos.common import configtx_pb2, configuration_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.block import Block
from tokenmesh.fabric.blocks.envelopes import CONFIG, Envelope, read_envelope
from tokenmesh.fabric.blocks.msp import Members, Msp, read_msp
from tokenmesh.fabric.blocks.policies import Policies
from tokenmesh.fabric.errors import BlockError

APPLICATION = "Application"
ORDERER = "Orderer"
BFT = "BFT"
BLOCK_VALIDATION = "/Channel/Orderer/BlockValidation"
DEPTH_MAX = 10


class ConfigEnvelope(NamedTuple):
    """What a configuration block holds: the new configuration, and the update (signed) that led to it."""

    config: Any
    last_update: Any


class Configuration:
    """The configuration ``config`` (``common.Config``) of a channel."""

    def __init__(self, channel: str, config: Any) -> None:
        self.channel = channel
        self.config = config
        self.sequence = int(config.sequence)
        group = config.channel_group
        self._msps: dict[str, Msp] = {}
        self._ids: dict[str, str] = {}
        self._find_msps(group, 0)
        self.members = Members(self._msps.values())
        self.policies = Policies(group, self.members)
        orderer = group.groups[ORDERER] if ORDERER in group.groups else configtx_pb2.ConfigGroup()
        consensus = orderer_pb2.ConsensusType.FromString(_value(orderer, "ConsensusType"))
        self.is_bft = consensus.type == BFT
        orderers = configuration_pb2.Orderers.FromString(_value(orderer, "Orderers"))
        self.consenters = {
            int(one.id): identities_pb2.SerializedIdentity(
                mspid=one.msp_id, id_bytes=one.identity
            ).SerializeToString()
            for one in orderers.consenter_mapping
        }
        application = group.groups[APPLICATION] if APPLICATION in group.groups else configtx_pb2.ConfigGroup()
        self.application_organisations = {
            self._ids[f"/Channel/{APPLICATION}/{name}"]: name
            for name in application.groups
            if f"/Channel/{APPLICATION}/{name}" in self._ids
        }
        """The names of the organisations whose peers endorse, by their MSP ids."""

    def _find_msps(self, group: Any, depth: int, path: str = "/Channel") -> None:
        if "MSP" in group.values:
            octets = group.values["MSP"].value
            msp = read_msp(octets)
            # An organisation stands under Application and Orderer, with the same MSP.
            self._msps.setdefault(msp.id, msp)
            self._ids[path] = msp.id
        if depth < DEPTH_MAX:
            for name, one in group.groups.items():
                self._find_msps(one, depth + 1, f"{path}/{name}")


def read_config_envelope(envelope: Envelope) -> ConfigEnvelope:
    """The configuration in an envelope. Raises :class:`BlockError`."""
    if envelope.type != CONFIG:
        raise BlockError(f"an envelope of type {envelope.type} holds no configuration")
    try:
        message = configtx_pb2.ConfigEnvelope.FromString(envelope.data)
    except DecodeError as error:
        raise BlockError(f"a channel's configuration cannot be read: {error}") from error
    return ConfigEnvelope(message.config, message.last_update)


def first_configuration(block: Block) -> Configuration:
    """The configuration that block 0 begins a channel with. Raises :class:`BlockError`."""
    if block.number != 0 or len(block.data) != 1:
        raise BlockError(f"block {block.number} does not begin a channel")
    envelope = read_envelope(block.data[0])
    return new_configuration(envelope)


def new_configuration(envelope: Envelope) -> Configuration:
    """The configuration in a configuration block's only envelope. Raises :class:`BlockError`."""
    try:
        return Configuration(envelope.channel, read_config_envelope(envelope).config)
    except (DecodeError, ValueError) as error:
        raise BlockError(f"a channel's configuration cannot be read: {error}") from error


def _value(group: Any, name: str) -> bytes:
    return bytes(group.values[name].value) if name in group.values else b""

"""Who ordered a block: the orderers' signatures in its metadata, and what they are over.

``protoutil.BlockSignatureVerifier`` in Fabric's source. A signature is over the metadata's value (which
names the last configuration block), the signer's header and the block's header. Raft's orderers say who they
are in a signature header; BFT's give the number that the configuration knows them by, and a quorum of them
signs, as the channel's policy for blocks demands.
"""

from __future__ import annotations

from typing import Any

from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.block import SIGNATURES, Block
from tokenmesh.fabric.blocks.channel import BLOCK_VALIDATION, Configuration
from tokenmesh.fabric.blocks.policies import Signed, signers

SIGNATURES_MAX = 1_000


def ordering_problem(block: Block, configuration: Configuration, last_config: int) -> str:
    """Why a block was not ordered by the channel's orderers; "" if it was.

    ``configuration`` is what was in force before the block, ``last_config`` the number of the last
    configuration block, which is the block's own if it is one.
    """
    try:
        metadata = common_pb2.Metadata.FromString(block.metadata_at(SIGNATURES))
        named = common_pb2.OrdererBlockMetadata.FromString(metadata.value).last_config.index
        signed = [
            one
            for signature in metadata.signatures[:SIGNATURES_MAX]
            if (one := _signed(block, configuration, bytes(metadata.value), signature)) is not None
        ]
    except DecodeError as error:
        return f"the orderers' signatures cannot be read: {error}"
    by = signers(configuration.members, signed)
    if not configuration.policies.holds(BLOCK_VALIDATION, by):
        return (
            f"{len(by)} of {len(metadata.signatures)} signatures of orderers hold, which is not what the "
            f"channel's policy {BLOCK_VALIDATION} asks for"
        )
    if named != last_config:
        return f"its orderers name block {named} as the last configuration, and it is block {last_config}"
    return ""


def _signed(block: Block, configuration: Configuration, value: bytes, signature: Any) -> Signed | None:
    """What one signature is over, and who is said to have made it; None if that is nobody."""
    header = bytes(signature.signature_header)
    if configuration.is_bft and not header and signature.identifier_header:
        header = bytes(signature.identifier_header)
        identifier = int(common_pb2.IdentifierHeader.FromString(header).identifier)
        creator = configuration.consenters.get(identifier)
        if creator is None:
            return None
    else:
        creator = bytes(common_pb2.SignatureHeader.FromString(header).creator)
    return Signed(value + header + block.header_bytes, bytes(signature.signature), creator)

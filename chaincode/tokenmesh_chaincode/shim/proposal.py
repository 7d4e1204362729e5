"""What a proposal says, read when it is asked for: most chaincode needs little of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2


class ProposalFacts:
    """The signed proposal behind an invocation."""

    def __init__(self, signed_proposal: Any) -> None:
        self.signed_proposal = signed_proposal

    @cached_property
    def proposal(self) -> Any:
        return proposal_pb2.Proposal.FromString(self.signed_proposal.proposal_bytes)

    @cached_property
    def header(self) -> Any:
        return common_pb2.Header.FromString(self.proposal.header)

    @cached_property
    def channel_header(self) -> Any:
        return common_pb2.ChannelHeader.FromString(self.header.channel_header)

    @cached_property
    def signature_header(self) -> Any:
        return common_pb2.SignatureHeader.FromString(self.header.signature_header)

    @cached_property
    def transient(self) -> Mapping[str, bytes]:
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(self.proposal.payload)
        return MappingProxyType(dict(payload.TransientMap))

    @cached_property
    def timestamp_ns(self) -> int:
        stamp = self.channel_header.timestamp
        return int(stamp.seconds * 1_000_000_000 + stamp.nanos)

    @property
    def creator(self) -> bytes:
        return bytes(self.signature_header.creator)

    @cached_property
    def binding(self) -> str:
        """SHA-256 over nonce, creator and epoch, in hexadecimal: binds transient data to this proposal."""
        epoch = int(self.channel_header.epoch).to_bytes(8, "little")
        return hashlib.sha256(self.signature_header.nonce + self.creator + epoch).hexdigest()

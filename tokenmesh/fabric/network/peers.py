"""What an organisation's admin asks of its peer: join a channel, and who else is there.

The system chaincode ``cscc`` is asked as Fabric's own ``peer channel join`` does it, the discovery service as
its ``discover`` does; so neither program is needed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.discovery import protocol_pb2, protocol_pb2_grpc
from fabric_protos.gossip import message_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import (
    chaincode_pb2,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    query_pb2,
)

from tokenmesh.fabric.ca import Enrollment
from tokenmesh.fabric.errors import NetworkError, NodeFailed
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.msp import TlsFiles, read_msp, tls_files
from tokenmesh.fabric.network.organisations import ADMIN
from tokenmesh.fabric.network.plan import Node, msp_id
from tokenmesh.fabric.signing import sign

CALL_TIMEOUT_S = 30.0
NONCE_BYTES = 24
MESSAGE_BYTES_MAX = 100 * 2**20


def open_channel(address: str, tls: TlsFiles) -> grpc.Channel:
    """A connection by mutual TLS."""
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    sizes = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    # Networks must not share a connection: their certificates differ, their addresses perhaps not.
    return grpc.secure_channel(address, credentials, options=[*sizes, ("grpc.use_local_subchannel_pool", 1)])


class Member(NamedTuple):
    """Somebody of an organisation: an identity in Fabric's own form, and what it signs with."""

    creator: bytes
    enrollment: Enrollment

    @classmethod
    def load(cls, folder: Path, msp: str) -> Self:
        """The identity in ``folder/msp``."""
        enrollment = read_msp(folder / "msp")
        identity = identities_pb2.SerializedIdentity(mspid=msp, id_bytes=enrollment.certificate.encode())
        return cls(identity.SerializeToString(), enrollment)

    def sign(self, message: bytes) -> bytes:
        return sign(self.enrollment.key, message)


class PeerAdmin:
    """One peer, as the admin of its organisation."""

    def __init__(self, layout: Layout, node: Node) -> None:
        folder = layout.identity(node.organisation, ADMIN)
        tls = tls_files(folder / "tls")
        self._node = node
        self._admin = Member.load(folder, msp_id(node.organisation))
        self._tls_hash = _certificate_hash(tls.certificate)
        self._channel = open_channel(node.address, tls)

    def answers(self) -> bool:
        """Whether the peer answers yet."""
        try:
            self.channels()
        except NodeFailed:
            return False
        return True

    def channels(self) -> list[str]:
        """The channels that the peer has joined."""
        told = query_pb2.ChannelQueryResponse.FromString(self._cscc("GetChannels"))
        return [str(one.channel_id) for one in told.channels]

    def join(self, block: bytes) -> None:
        """Join the channel whose first block this is."""
        self._cscc("JoinChain", block)

    def channel_config(self, channel: str) -> bytes:
        """The configuration of a channel (``common.Config``) that this peer goes by."""
        return self._cscc("GetChannelConfig", channel.encode())

    def members(self, channel: str) -> set[str]:
        """The MSP ids of the organisations whose peers this peer sees on the channel, its own among them."""
        result = self._discover(
            protocol_pb2.Query(channel=channel, peer_query=protocol_pb2.PeerMembershipQuery())
        )
        found = result.members.peers_by_org
        return {str(msp) for msp, peers in found.items() if any(_has_joined(peer) for peer in peers.peers)}

    def plans(self, channel: str, chaincode: str) -> bool:
        """Whether this peer knows peers enough to have a transaction of the chaincode endorsed."""
        call = proposal_response_pb2.ChaincodeCall(name=chaincode)
        interest = proposal_response_pb2.ChaincodeInterest(chaincodes=[call])
        query = protocol_pb2.ChaincodeQuery(interests=[interest])
        result = self._discover(protocol_pb2.Query(channel=channel, cc_query=query))
        return bool(result.WhichOneof("result") == "cc_query_res")

    def close(self) -> None:
        self._channel.close()

    def _discover(self, query: Any) -> Any:
        """Ask the peer's discovery service, as its organisation's admin."""
        authentication = protocol_pb2.AuthInfo(
            client_identity=self._admin.creator, client_tls_cert_hash=self._tls_hash
        )
        payload = protocol_pb2.Request(authentication=authentication, queries=[query]).SerializeToString()
        request = protocol_pb2.SignedRequest(payload=payload, signature=self._admin.sign(payload))
        return self._call(protocol_pb2_grpc.DiscoveryStub(self._channel).Discover, request).results[0]

    def _cscc(self, function: str, *arguments: bytes) -> bytes:
        response = self._call(
            peer_pb2_grpc.EndorserStub(self._channel).ProcessProposal,
            self._proposal([function.encode(), *arguments]),
        ).response
        if response.status != 200:
            raise NetworkError(f"{self._node.name} refused {function}: {response.message}")
        return bytes(response.payload)

    def _proposal(self, arguments: Sequence[bytes]) -> Any:
        """A signed proposal to ``cscc``, on no channel."""
        chaincode = chaincode_pb2.ChaincodeID(name="cscc")
        nonce = secrets.token_bytes(NONCE_BYTES)
        header = common_pb2.ChannelHeader(
            type=common_pb2.ENDORSER_TRANSACTION,
            tx_id=hashlib.sha256(nonce + self._admin.creator).hexdigest(),
            extension=proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode).SerializeToString(),
            tls_cert_hash=self._tls_hash,
        )
        header.timestamp.FromNanoseconds(time.time_ns())
        spec = chaincode_pb2.ChaincodeSpec(
            type=chaincode_pb2.ChaincodeSpec.GOLANG,
            chaincode_id=chaincode,
            input=chaincode_pb2.ChaincodeInput(args=arguments),
        )
        invocation = chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec).SerializeToString()
        proposal = proposal_pb2.Proposal(
            header=common_pb2.Header(
                channel_header=header.SerializeToString(),
                signature_header=common_pb2.SignatureHeader(
                    creator=self._admin.creator, nonce=nonce
                ).SerializeToString(),
            ).SerializeToString(),
            payload=proposal_pb2.ChaincodeProposalPayload(input=invocation).SerializeToString(),
        ).SerializeToString()
        return proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=self._admin.sign(proposal))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise NodeFailed(
                f"{self._node.name} does not answer: {error.details()}", node=self._node.name
            ) from error


def _has_joined(peer: Any) -> bool:
    """Whether the peer tells its height on the channel: only then endorsement is planned with it."""
    if not peer.state_info.payload:
        return False
    message = message_pb2.GossipMessage.FromString(peer.state_info.payload)
    return bool(message.state_info.properties.ledger_height)


def _certificate_hash(certificate: Path) -> bytes:
    """What binds a request to the TLS connection it comes by: SHA-256 of the client's certificate."""
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return hashlib.sha256(der).digest()

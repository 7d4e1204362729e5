"""The messages a client sends to a Fabric peer, built and taken apart. Pure functions, no I/O.

Fabric signs bytes, not structures, so everything is serialised once here and handed on as bytes.
Where the rules come from: ``protoutil/`` and ``internal/pkg/gateway/`` in Fabric's source.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from hashlib import sha256
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

NONCE_BYTES = 24
LARGEST_BLOCK = 2**63 - 1

Argument: TypeAlias = str | bytes
P = ParamSpec("P")
T = TypeVar("T")


class Unreadable(Exception):
    """What a peer answered is not the message that it should be. Never leaves this package."""


def readable(read: Callable[P, T]) -> Callable[P, T]:
    """Whatever protobuf says of bytes that it cannot read becomes :class:`Unreadable`."""

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (DecodeError, ValueError, IndexError) as error:
            raise Unreadable(f"what the peer answered cannot be read: {error}") from error

    return reading


class Draft(NamedTuple):
    """A proposal, not signed: its transaction's id, and the bytes that are to be signed."""

    transaction_id: str
    proposal: bytes


class Prepared(NamedTuple):
    """A transaction as endorsed: on which channel, and the payload that is to be signed."""

    transaction_id: str
    channel: str
    payload: bytes


@lru_cache(maxsize=1024)
def _extension(chaincode: str) -> bytes:
    name = chaincode_pb2.ChaincodeID(name=chaincode)
    return bytes(proposal_pb2.ChaincodeHeaderExtension(chaincode_id=name).SerializeToString())


def new_proposal(
    creator: bytes,
    channel: str,
    chaincode: str,
    arguments: Sequence[Argument],
    transient: Mapping[str, Argument] | None = None,
    *,
    now_ns: int,
    tls_certificate_hash: bytes = b"",
    nonce: Callable[[int], bytes] = secrets.token_bytes,
) -> Draft:
    """A proposal to run ``arguments[0]`` of a chaincode with the arguments that follow.

    Transient data goes to the endorsing peers and never into the transaction.
    """
    fresh = nonce(NONCE_BYTES)
    transaction_id = sha256(fresh + creator).hexdigest()
    header = common_pb2.Header(
        channel_header=_channel_header(
            common_pb2.ENDORSER_TRANSACTION,
            channel,
            now_ns,
            tls_certificate_hash,
            tx_id=transaction_id,
            extension=_extension(chaincode),
        ),
        signature_header=_signature_header(creator, fresh),
    )
    spec = chaincode_pb2.ChaincodeSpec(
        type=chaincode_pb2.ChaincodeSpec.GOLANG,  # what all clients send, whatever it is written in
        chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode),
        input=chaincode_pb2.ChaincodeInput(args=[_octets(argument) for argument in arguments]),
    )
    payload = proposal_pb2.ChaincodeProposalPayload(
        input=chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec).SerializeToString(),
        TransientMap={key: _octets(value) for key, value in (transient or {}).items()},
    )
    proposal = proposal_pb2.Proposal(header=header.SerializeToString(), payload=payload.SerializeToString())
    return Draft(transaction_id, proposal.SerializeToString())


def channel_of(proposal: bytes) -> str:
    """The channel that a proposal is for."""
    header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(proposal).header)
    return str(common_pb2.ChannelHeader.FromString(header.channel_header).channel_id)


def signed_proposal(proposal: bytes, signature: bytes) -> bytes:
    """``SignedProposal``, as a peer's endorser service takes it."""
    message = proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=signature)
    return bytes(message.SerializeToString())


def evaluate_request(
    transaction_id: str, channel: str, proposal: bytes, signature: bytes, organizations: Iterable[str]
) -> bytes:
    message = gateway_pb2.EvaluateRequest(
        transaction_id=transaction_id,
        channel_id=channel,
        proposed_transaction=proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=signature),
        target_organizations=organizations,
    )
    return bytes(message.SerializeToString())


@readable
def evaluate_result(response: bytes) -> bytes:
    return bytes(gateway_pb2.EvaluateResponse.FromString(response).result.payload)


def endorse_request(
    transaction_id: str, channel: str, proposal: bytes, signature: bytes, organizations: Iterable[str]
) -> bytes:
    message = gateway_pb2.EndorseRequest(
        transaction_id=transaction_id,
        channel_id=channel,
        proposed_transaction=proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=signature),
        endorsing_organizations=organizations,
    )
    return bytes(message.SerializeToString())


@readable
def endorsed_payload(response: bytes) -> bytes:
    """The payload of the transaction that the gateway made from the endorsements: what is signed next."""
    return bytes(gateway_pb2.EndorseResponse.FromString(response).prepared_transaction.payload)


def submit_request(prepared: Prepared, signature: bytes) -> bytes:
    message = gateway_pb2.SubmitRequest(
        transaction_id=prepared.transaction_id,
        channel_id=prepared.channel,
        prepared_transaction=common_pb2.Envelope(payload=prepared.payload, signature=signature),
    )
    return bytes(message.SerializeToString())


def read_payload(payload: bytes) -> Prepared:
    """A transaction's payload with the ids that its header names."""
    header = common_pb2.Payload.FromString(payload).header
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    return Prepared(channel.tx_id, channel.channel_id, payload)


@readable
def result_of(payload: bytes) -> bytes:
    """What the chaincode answered, out of an endorsed transaction's payload."""
    transaction = transaction_pb2.Transaction.FromString(common_pb2.Payload.FromString(payload).data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload).action
    response = proposal_response_pb2.ProposalResponsePayload.FromString(action.proposal_response_payload)
    return bytes(proposal_pb2.ChaincodeAction.FromString(response.extension).response.payload)


@readable
def endorsers_of(payload: bytes) -> tuple[str, ...]:
    """The MSP ids of those who have endorsed a transaction, out of its payload."""
    transaction = transaction_pb2.Transaction.FromString(common_pb2.Payload.FromString(payload).data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload).action
    found = (identities_pb2.SerializedIdentity.FromString(one.endorser) for one in action.endorsements)
    return tuple(sorted({str(identity.mspid) for identity in found}))


@readable
def verdict_of(response: bytes) -> tuple[int, int]:
    """What became of a transaction, by its number, and in which block."""
    answer = gateway_pb2.CommitStatusResponse.FromString(response)
    return int(answer.result), int(answer.block_number)


def commit_status_request(creator: bytes, channel: str, transaction_id: str) -> bytes:
    """The bytes to sign in order to ask what became of a transaction."""
    message = gateway_pb2.CommitStatusRequest(
        transaction_id=transaction_id, channel_id=channel, identity=creator
    )
    return bytes(message.SerializeToString())


def signed_commit_status_request(request: bytes, signature: bytes) -> bytes:
    message = gateway_pb2.SignedCommitStatusRequest(request=request, signature=signature)
    return bytes(message.SerializeToString())


def chaincode_events_request(
    creator: bytes, channel: str, chaincode: str, start_block: int | None, after_transaction_id: str
) -> bytes:
    """The bytes to sign for a chaincode's events from a block on (None: from the next one)."""
    message = gateway_pb2.ChaincodeEventsRequest(
        channel_id=channel,
        chaincode_id=chaincode,
        identity=creator,
        start_position=_seek(start_block),
        after_transaction_id=after_transaction_id,
    )
    return bytes(message.SerializeToString())


def signed_chaincode_events_request(request: bytes, signature: bytes) -> bytes:
    message = gateway_pb2.SignedChaincodeEventsRequest(request=request, signature=signature)
    return bytes(message.SerializeToString())


def deliver_payload(
    creator: bytes,
    channel: str,
    start: ab_pb2.SeekPosition,
    *,
    now_ns: int,
    tls_certificate_hash: bytes = b"",
    stop: int = LARGEST_BLOCK,
) -> bytes:
    """The payload to sign for a channel's blocks from a position on."""
    info = ab_pb2.SeekInfo(
        start=start,
        stop=ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=stop)),
        behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY,
    )
    header = common_pb2.Header(
        channel_header=_channel_header(common_pb2.DELIVER_SEEK_INFO, channel, now_ns, tls_certificate_hash),
        signature_header=_signature_header(creator, secrets.token_bytes(NONCE_BYTES)),
    )
    return bytes(common_pb2.Payload(header=header, data=info.SerializeToString()).SerializeToString())


def envelope(payload: bytes, signature: bytes) -> bytes:
    return bytes(common_pb2.Envelope(payload=payload, signature=signature).SerializeToString())


def seek(block: int | None) -> ab_pb2.SeekPosition:
    """From a block's number on; None: from the next block to be committed."""
    return _seek(block)


def seek_newest() -> ab_pb2.SeekPosition:
    """From the last block there is: it comes at once, so the answer also shows that the stream is open."""
    return ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())


def _seek(block: int | None) -> ab_pb2.SeekPosition:
    if block is None:
        return ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit())
    return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=block))


def _channel_header(
    kind: int,
    channel: str,
    now_ns: int,
    tls_certificate_hash: bytes,
    tx_id: str = "",
    extension: bytes = b"",
) -> bytes:
    message = common_pb2.ChannelHeader(
        type=kind,
        timestamp=Timestamp(seconds=now_ns // 10**9, nanos=now_ns % 10**9),
        channel_id=channel,
        tx_id=tx_id,
        extension=extension,
        tls_cert_hash=tls_certificate_hash,
    )
    return bytes(message.SerializeToString())


def _signature_header(creator: bytes, nonce: bytes) -> bytes:
    return bytes(common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString())


def _octets(value: Argument) -> bytes:
    return value.encode() if isinstance(value, str) else value

"""What stands in a block: envelopes, and in them endorsed transactions, taken apart down to their read and
write sets.

Nothing is believed here, only read; whether signatures hold is asked in
:mod:`tokenmesh.fabric.blocks.validation`. What is signed or hashed is kept as the bytes it came in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.rwsets import Namespace, read_write_set
from tokenmesh.fabric.errors import BlockError

CONFIG = 1
ENDORSER_TRANSACTION = 3

P = ParamSpec("P")
T = TypeVar("T")


class Creator(NamedTuple):
    """Who signed: an organisation's MSP id and a certificate in PEM."""

    msp_id: str
    certificate: bytes


@dataclass(frozen=True)
class Envelope:
    """One entry of a block: who handed it in, and what is in it (``data``, of the kind ``type``).

    ``creator`` is a ``SerializedIdentity`` in its bytes. ``header`` and ``payload`` are as they were signed.
    """

    payload: bytes
    signature: bytes
    type: int
    epoch: int
    channel: str
    tx_id: str
    timestamp_ns: int
    extension: bytes
    creator: bytes
    nonce: bytes
    channel_header: bytes
    signature_header: bytes
    data: bytes

    @property
    def is_config(self) -> bool:
        return self.type == CONFIG

    @property
    def is_transaction(self) -> bool:
        """Whether a chaincode was called; :func:`read_transaction` takes it apart."""
        return self.type == ENDORSER_TRANSACTION


class Endorsement(NamedTuple):
    """One peer's signature over the proposal response payload followed by its own ``endorser`` bytes."""

    endorser: bytes
    signature: bytes


class Event(NamedTuple):
    """What a chaincode emitted."""

    chaincode: str
    tx_id: str
    name: str
    payload: bytes


@dataclass(frozen=True)
class Transaction:
    """What a chaincode was asked, what it answered and wrote, and who endorsed that.

    ``chaincode`` is the one that was endorsed, ``invoked`` the one that the client asked for: they are to be
    the same. ``arguments`` are ``[function, …]``.
    """

    header_chaincode: str
    invoked: str
    chaincode: str
    version: str
    arguments: tuple[bytes, ...]
    status: int
    message: str
    payload: bytes
    event: Event | None
    event_bytes: bytes
    results: bytes
    namespaces: tuple[Namespace, ...]
    endorsements: tuple[Endorsement, ...]
    proposal_hash: bytes
    proposal_payload: bytes
    response_payload: bytes
    action_header: bytes
    actions: int


def _readable(read: Callable[P, T]) -> Callable[P, T]:
    """Whatever protobuf says of bytes that it cannot read becomes a BlockError."""

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (DecodeError, ValueError) as error:
            raise BlockError(f"an entry of the block cannot be read: {error}") from error

    return reading


@_readable
def read_envelope(octets: bytes) -> Envelope:
    """An entry of a block. Raises :class:`BlockError`."""
    envelope = common_pb2.Envelope.FromString(octets)
    payload = common_pb2.Payload.FromString(envelope.payload)
    channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
    return Envelope(
        payload=bytes(envelope.payload),
        signature=bytes(envelope.signature),
        type=int(channel.type),
        epoch=int(channel.epoch),
        channel=str(channel.channel_id),
        tx_id=str(channel.tx_id),
        timestamp_ns=channel.timestamp.seconds * 10**9 + channel.timestamp.nanos,
        extension=bytes(channel.extension),
        creator=bytes(signature.creator),
        nonce=bytes(signature.nonce),
        channel_header=bytes(payload.header.channel_header),
        signature_header=bytes(payload.header.signature_header),
        data=bytes(payload.data),
    )


@_readable
def read_transaction(envelope: Envelope) -> Transaction:
    """The endorsed transaction in an envelope. Raises :class:`BlockError`."""
    if not envelope.is_transaction:
        raise BlockError(f"an envelope of type {envelope.type} holds no endorsed transaction")
    actions = transaction_pb2.Transaction.FromString(envelope.data).actions
    if not actions:
        raise BlockError("a transaction without any action")
    asked = transaction_pb2.ChaincodeActionPayload.FromString(actions[0].payload)
    response_payload = bytes(asked.action.proposal_response_payload)
    response = proposal_response_pb2.ProposalResponsePayload.FromString(response_payload)
    action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    spec = _spec(asked.chaincode_proposal_payload)
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(envelope.extension)
    return Transaction(
        header_chaincode=str(extension.chaincode_id.name),
        invoked=str(spec.chaincode_id.name),
        chaincode=str(action.chaincode_id.name),
        version=str(action.chaincode_id.version),
        arguments=tuple(bytes(one) for one in spec.input.args),
        status=int(action.response.status),
        message=str(action.response.message),
        payload=bytes(action.response.payload),
        event=_event(bytes(action.events)),
        event_bytes=bytes(action.events),
        results=bytes(action.results),
        namespaces=read_write_set(bytes(action.results)),
        endorsements=tuple(
            Endorsement(bytes(one.endorser), bytes(one.signature)) for one in asked.action.endorsements
        ),
        proposal_hash=bytes(response.proposal_hash),
        proposal_payload=bytes(asked.chaincode_proposal_payload),
        response_payload=response_payload,
        action_header=bytes(actions[0].header),
        actions=len(actions),
    )


@_readable
def read_creator(serialized: bytes) -> Creator:
    """Who a ``SerializedIdentity`` is. Raises :class:`BlockError`."""
    message = identities_pb2.SerializedIdentity.FromString(serialized)
    return Creator(str(message.mspid), bytes(message.id_bytes))


def _spec(proposal_payload: bytes) -> Any:
    proposal = proposal_pb2.ChaincodeProposalPayload.FromString(proposal_payload)
    return chaincode_pb2.ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec


def _event(octets: bytes) -> Event | None:
    if not octets:
        return None
    event = chaincode_event_pb2.ChaincodeEvent.FromString(octets)
    return Event(str(event.chaincode_id), str(event.tx_id), str(event.event_name), bytes(event.payload))

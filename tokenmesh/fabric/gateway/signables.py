"""Proposals, transactions and commits as data: their bytes, their digests, and the way back from bytes.

The bytes are those of Fabric's own clients, so what one client made another can sign, and send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import flows, messages
from tokenmesh.fabric.gateway.flows import Caller, Submitted
from tokenmesh.fabric.gateway.messages import Draft, Prepared

Octets: TypeAlias = bytes


class ProposalData:
    """A proposal: what is to be run, before anyone has endorsed it."""

    def __init__(
        self,
        caller: Caller,
        draft: Draft,
        channel: str,
        organizations: Sequence[str] = (),
        signature: Octets | None = None,
    ) -> None:
        self._caller = caller
        self._draft = draft
        self._channel = channel
        self._organizations = organizations
        self._signature = signature

    @property
    def transaction_id(self) -> str:
        return self._draft.transaction_id

    @property
    def digest(self) -> Octets:
        """What is to be signed."""
        return self._caller.hash(self._draft.proposal)

    @property
    def bytes(self) -> Octets:
        """The whole proposal, to be kept, or carried to whoever signs it."""
        message = gateway_pb2.ProposedTransaction(
            transaction_id=self._draft.transaction_id,
            proposal=proposal_pb2.SignedProposal(
                proposal_bytes=self._draft.proposal, signature=self._signature or b""
            ),
            endorsing_organizations=self._organizations,
        )
        return Octets(message.SerializeToString())

    def _evaluation(self, timeout_s: float | None) -> flows.Flow[Octets]:
        return flows.evaluate(
            self._caller, self._draft, self._channel, self._organizations, self._signature, timeout_s
        )

    def _endorsement(self, timeout_s: float | None) -> flows.Flow[Prepared]:
        return flows.endorse(
            self._caller, self._draft, self._channel, self._organizations, self._signature, timeout_s
        )


class TransactionData:
    """A transaction that is endorsed and not yet handed in."""

    def __init__(self, caller: Caller, prepared: Prepared, signature: Octets | None = None) -> None:
        self._caller = caller
        self._prepared = prepared
        self._signature = signature

    @property
    def transaction_id(self) -> str:
        return self._prepared.transaction_id

    @property
    def result(self) -> Octets:
        """What the chaincode answered. It counts once the transaction is committed."""
        return messages.result_of(self._prepared.payload)

    @property
    def digest(self) -> Octets:
        """What is to be signed."""
        return self._caller.hash(self._prepared.payload)

    @property
    def bytes(self) -> Octets:
        """The whole transaction, to be kept, or carried to whoever signs it."""
        message = gateway_pb2.PreparedTransaction(
            transaction_id=self._prepared.transaction_id,
            envelope=common_pb2.Envelope(payload=self._prepared.payload, signature=self._signature or b""),
        )
        return Octets(message.SerializeToString())

    def _submission(self, timeout_s: float | None) -> flows.Flow[Submitted]:
        return flows.submit(self._caller, self._prepared, self._signature, timeout_s)


class CommitData:
    """A transaction that was handed in; ask it what became of it."""

    def __init__(
        self,
        caller: Caller,
        submitted: Submitted,
        request: Octets | None = None,
        signature: Octets | None = None,
    ) -> None:
        self._caller = caller
        self._submitted = submitted
        self._request = request or flows.status_request(caller, submitted.prepared)
        self._signature = signature

    @property
    def transaction_id(self) -> str:
        return self._submitted.prepared.transaction_id

    @property
    def digest(self) -> Octets:
        """What is to be signed."""
        return self._caller.hash(self._request)

    @property
    def bytes(self) -> Octets:
        """The whole question, to be kept, or carried to whoever signs it."""
        return messages.signed_commit_status_request(self._request, self._signature or b"")

    def _status(self, timeout_s: float | None) -> flows.Flow[flows.Status]:
        return flows.commit_status(self._caller, self._submitted, self._request, self._signature, timeout_s)


def read_proposal(octets: Octets) -> tuple[Draft, str, list[str], Octets | None]:
    """Draft, channel, organisations and signature out of :attr:`ProposalData.bytes`."""
    try:
        message = gateway_pb2.ProposedTransaction.FromString(octets)
        proposal = message.proposal.proposal_bytes
        draft = Draft(message.transaction_id, proposal)
        organizations = list(message.endorsing_organizations)
        return draft, messages.channel_of(proposal), organizations, message.proposal.signature or None
    except DecodeError as error:
        raise FabricError("these bytes are not those of a proposal") from error


def read_transaction(octets: Octets) -> tuple[Prepared, Octets | None]:
    """What was endorsed, and the signature, out of :attr:`TransactionData.bytes`."""
    try:
        message = gateway_pb2.PreparedTransaction.FromString(octets)
        return messages.read_payload(message.envelope.payload), message.envelope.signature or None
    except DecodeError as error:
        raise FabricError("these bytes are not those of a transaction") from error


def read_commit(octets: Octets) -> tuple[Submitted, Octets, Octets | None]:
    """Whose commit is asked for, the signed request, and the signature, out of :attr:`CommitData.bytes`."""
    try:
        message = gateway_pb2.SignedCommitStatusRequest.FromString(octets)
        asked = gateway_pb2.CommitStatusRequest.FromString(message.request)
    except DecodeError as error:
        raise FabricError("these bytes are not those of a commit") from error
    submitted = Submitted(Prepared(asked.transaction_id, asked.channel_id, b""), None)
    return submitted, message.request, message.signature or None

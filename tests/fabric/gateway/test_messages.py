"""The messages are what Fabric's protocol says, to the byte."""

from __future__ import annotations

from hashlib import sha256

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from tokenmesh.fabric.gateway import messages

CREATOR = b"creator"
NONCE = bytes(range(24))


def draft(transient: dict[str, str | bytes] | None = None) -> messages.Draft:
    return messages.new_proposal(
        CREATOR,
        "mesh",
        "kv",
        ["put", b"\x00\xff", "ä"],
        transient,
        now_ns=1_700_000_000_000_000_007,
        tls_certificate_hash=b"hash",
        nonce=lambda size: NONCE[:size],
    )


def headers(proposal: bytes) -> tuple[common_pb2.ChannelHeader, common_pb2.SignatureHeader]:
    header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(proposal).header)
    return (
        common_pb2.ChannelHeader.FromString(header.channel_header),
        common_pb2.SignatureHeader.FromString(header.signature_header),
    )


def test_a_transaction_id_is_the_hash_of_nonce_and_creator() -> None:
    made = draft()
    channel, signature = headers(made.proposal)
    assert made.transaction_id == sha256(NONCE + CREATOR).hexdigest() == channel.tx_id
    assert (signature.nonce, signature.creator) == (NONCE, CREATOR)


def test_every_proposal_has_a_nonce_of_its_own() -> None:
    ids = {messages.new_proposal(CREATOR, "c", "kv", ["f"], now_ns=0).transaction_id for _ in range(100)}
    assert len(ids) == 100


def test_the_channel_header_says_where_and_what() -> None:
    channel, _ = headers(draft().proposal)
    assert (channel.type, channel.channel_id, channel.epoch) == (3, "mesh", 0)
    assert (channel.timestamp.seconds, channel.timestamp.nanos) == (1_700_000_000, 7)
    assert channel.tls_cert_hash == b"hash"
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(channel.extension)
    assert extension.chaincode_id.name == "kv"


def test_arguments_are_bytes_or_text() -> None:
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(
        proposal_pb2.Proposal.FromString(draft().proposal).payload
    )
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    assert list(spec.input.args) == [b"put", b"\x00\xff", "ä".encode()]


def test_transient_data_is_beside_the_input_and_not_in_it() -> None:
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(
        proposal_pb2.Proposal.FromString(draft({"key": "secret"}).proposal).payload
    )
    assert dict(payload.TransientMap) == {"key": b"secret"}
    assert b"secret" not in payload.input


def test_the_result_is_found_in_an_endorsed_transaction() -> None:
    response = proposal_response_pb2.Response(status=200, payload=b"answer")
    action = proposal_pb2.ChaincodeAction(response=response)
    answer = proposal_response_pb2.ProposalResponsePayload(extension=action.SerializeToString())
    endorsed = transaction_pb2.ChaincodeActionPayload(
        action=transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=answer.SerializeToString())
    )
    transaction = transaction_pb2.Transaction(
        actions=[transaction_pb2.TransactionAction(payload=endorsed.SerializeToString())]
    )
    header = common_pb2.ChannelHeader(tx_id="id", channel_id="mesh").SerializeToString()
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=header), data=transaction.SerializeToString()
    ).SerializeToString()
    assert messages.result_of(payload) == b"answer"
    assert messages.read_payload(payload) == messages.Prepared("id", "mesh", payload)


def test_blocks_are_asked_for_from_a_number_the_newest_or_the_next() -> None:
    for start, kind in (
        (messages.seek(7), "specified"),
        (messages.seek(None), "next_commit"),
        (messages.seek_newest(), "newest"),
    ):
        payload = common_pb2.Payload.FromString(messages.deliver_payload(CREATOR, "mesh", start, now_ns=0))
        info = ab_pb2.SeekInfo.FromString(payload.data)
        channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        assert info.start.WhichOneof("Type") == kind
        assert (channel.type, channel.channel_id) == (5, "mesh")


def test_chaincode_events_are_asked_for_behind_a_transaction() -> None:
    request = gateway_pb2.ChaincodeEventsRequest.FromString(
        messages.chaincode_events_request(CREATOR, "mesh", "kv", 3, "id")
    )
    assert (request.channel_id, request.chaincode_id, request.identity) == ("mesh", "kv", CREATOR)
    assert (request.start_position.specified.number, request.after_transaction_id) == (3, "id")

"""From a gRPC status to an error that says what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from cryptography import x509
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped]

from tokenmesh.fabric.errors import CommitError, ErrorDetail, GatewayError

DETAILS_KEY = "grpc-status-details-bin"
DEADLINE_SLACK_S = 0.1
"""A call that ends so shortly before its deadline ended because of it."""
CONFLICTS = ("MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT")
DIFFERENT_RESULTS = "ProposalResponsePayloads do not match"
VALID = transaction_pb2.TxValidationCode.VALID
VALIDATION_CODES = {number: name for name, number in transaction_pb2.TxValidationCode.items()}

Kind = TypeVar("Kind", bound=GatewayError)


class Failure(NamedTuple):
    """How a call ended, if not well; gRPC's status, apart from gRPC's classes."""

    code: str
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


class Reading(NamedTuple):
    """What a status means to the caller."""

    advice: str
    retryable: bool = False
    never_arrived: bool = False


ADVICE: tuple[tuple[str, Reading], ...] = (
    (
        "too many requests",
        Reading(
            "the peer serves as many gateway calls as peer.limits.concurrency.gatewayService allows; "
            "call it less at once, or raise that limit",
            retryable=True,
            never_arrived=True,
        ),
    ),
    (
        DIFFERENT_RESULTS,
        Reading(
            "the endorsing peers gave different results: one was a block behind (try again), or the "
            "chaincode is not deterministic",
            retryable=True,
        ),
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        Reading(
            "the peer's TLS certificate is not of the CA you gave (a profile's tls_ca): take that of the "
            "peer's own organisation, and check the address"
        ),
    ),
    (
        "is not in peer certificate",
        Reading("the peer's TLS certificate is for another name: set server_name to one that is in it"),
    ),
    (
        "WRONG_VERSION_NUMBER",
        Reading("there is no TLS at this address: is it the right port?"),
    ),
    (
        "handshake failed",
        Reading(
            "the TLS handshake failed: is it the right port, and does the peer demand a client certificate?"
        ),
    ),
    (
        "Unwrap failed",
        Reading(
            "the peer ended the TLS connection: it demands a client certificate of a CA that it knows, one "
            "that has not expired (a profile's identities/NAME/tls)",
            retryable=True,  # a peer that is going down may leave with the same words
        ),
    ),
    (
        "Failed to create security handshaker",
        Reading("TLS cannot be used with these certificates: check the CA's, and our own with its key"),
    ),
    (
        "Domain name not found",
        Reading("there is no host of this name: check the peer's address", retryable=True),
    ),
    (
        "missing selected ALPN property",
        Reading("what listens there is no peer: check its address, and the port in it"),
    ),
    (
        "does not exist on peer",
        Reading("check the channel's name, and that this peer has joined it"),
    ),
    (
        "client identity expired",
        Reading("this identity's certificate has expired: enroll it anew, and check this machine's clock"),
    ),
    (
        "creator org unknown",
        Reading(
            "no organisation of the channel knows this identity: either none has its MSP id, or the "
            "certificate is of another CA than that organisation's (of a network that is no more?)"
        ),
    ),
    (
        "access denied",
        Reading(
            "the channel does not accept this identity though it knows its MSP id: its certificate is "
            "revoked, or has expired, or its key is another one's; or this machine's clock is wrong"
        ),
    ),
    (
        "timestamp",
        Reading("this machine's clock and the peer's differ too much: set the clock"),
    ),
    (
        "chaincode definition for",
        Reading("no such chaincode is committed on this channel: check its name, or deploy it"),
    ),
    (
        "No metadata was found for chaincode",
        Reading("no such chaincode is committed on this channel: check both names, or deploy it"),
    ),
    (
        "no peers available to evaluate chaincode",
        Reading(
            "no peer runs this chaincode on this channel: check its name, that it is deployed, and running"
        ),
    ),
    (
        "failed to get config for channel",
        Reading("the peer does not know this channel: check its name, and that the peer has joined it", True),
    ),
    (
        "no combination of peers can be derived",
        Reading(
            "too few peers of the endorsing organisations are up with this chaincode installed and approved",
            retryable=True,
        ),
    ),
    (
        "failed to find any endorsing peers",
        Reading(
            "no peer is up with this chaincode installed and approved: check its name and that it is running",
            retryable=True,
        ),
    ),
    (
        "could not launch chaincode",
        Reading("the peer cannot reach the chaincode: start it, and check the address in its package", True),
    ),
    (
        "chaincode stream terminated",
        Reading("the chaincode ended or lost its connection while it worked on this", retryable=True),
    ),
    (
        "timeout expired while executing transaction",
        Reading("the chaincode did not answer in the time that the peer gives it (chaincode.executetimeout)"),
    ),
    (
        "connection to",
        Reading(
            "the peer has lost its connection to the chaincode: is the chaincode running?", retryable=True
        ),
    ),
)

BY_CODE = {
    "DEADLINE_EXCEEDED": Reading(
        "no answer in time: the peer is busy or gone; `timeout_s` sets how long to wait"
    ),
    "UNAVAILABLE": Reading(
        "the peer could not be reached, or could not reach others: check its address, and that it is running",
        retryable=True,
    ),
    "CANCELLED": Reading("the call was cancelled, here or by a peer that is going down", retryable=True),
    "RESOURCE_EXHAUSTED": Reading(
        "a message is larger than this client or the peer takes: check message_bytes_max"
    ),
    "UNIMPLEMENTED": Reading(
        "this peer has no gateway service: is it Fabric 2.4 or newer, and is it a peer?"
    ),
}
REFUSALS = ("chaincode response", "rejected by chaincode", "transaction returned with failure")
"""The chaincode itself said no: trying again brings the same answer."""


def gateway_error(
    kind: type[Kind], what: str, failure: Failure, transaction_id: str, doubts: Sequence[str] = ()
) -> Kind:
    """The error for a call that failed: what to make of it, what each peer said, and gRPC's own words.

    ``doubts`` is what this side finds wrong with itself; where the chaincode has refused, it is not that.
    """
    details = read_details(failure.trailers)
    reading = _reading(failure, details)
    said = "; ".join(f"{one.msp_id} {one.address}: {one.message}" for one in details)
    about = f" (transaction {transaction_id})" if transaction_id else ""
    parts = [
        f"{what}: {reading.advice}" if reading.advice else what,
        *([] if _is_refused(said + failure.message) else doubts),
        *([f"peers said: {said}"] if said else []),
        f"{failure.code}: {failure.message}{about}",
    ]
    return kind(
        " | ".join(parts),
        code=failure.code,
        status_message=failure.message,
        details=details,
        transaction_id=transaction_id,
        retryable=reading.retryable,
        outcome_unknown=_outcome_unknown(failure, reading),
    )


def commit_error(transaction_id: str, number: int, block_number: int) -> CommitError:
    """The error for a transaction that the peers found invalid."""
    code = VALIDATION_CODES.get(number, str(number))
    advice = {
        "MVCC_READ_CONFLICT": "another transaction changed what this one had read: submit a new proposal",
        "PHANTOM_READ_CONFLICT": "another transaction changed a range that this had read: submit anew",
        "ENDORSEMENT_POLICY_FAILURE": "not endorsed by the organisations that the policy demands",
        "EXPIRED_CHAINCODE": "the chaincode was upgraded meanwhile: submit a new proposal",
        "DUPLICATE_TXID": "this very transaction was on the ledger before",
        "BAD_CREATOR_SIGNATURE": "the signature is not of this identity's key, or has a high s",
    }.get(code, "see Fabric's TxValidationCode")
    return CommitError(
        f"transaction {transaction_id} was found invalid in block {block_number}: {code}: {advice}",
        transaction_id=transaction_id,
        code=code,
        number=number,
        block_number=block_number,
        retryable=code in (*CONFLICTS, "EXPIRED_CHAINCODE"),
    )


def is_refusal(error: GatewayError) -> bool:
    """Has the chaincode itself said no?"""
    return _is_refused("\n".join([error.status_message, *(one.message for one in error.details)]))


def doubts_about(certificates: Iterable[tuple[str, bytes]], now_s: float) -> list[str]:
    """What is wrong with our own certificates (name and PEM) at the time that this machine thinks it is."""
    now = datetime.fromtimestamp(now_s, UTC)
    found = []
    for name, pem in certificates:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            continue  # not of X.509, or none at all
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            found.append(f"{name} expired on {end:%Y-%m-%d %H:%MZ}")
        elif now < begin:
            found.append(f"{name} is good only from {begin:%Y-%m-%d %H:%MZ} on, says this machine's clock")
    return found


def read_details(trailers: tuple[tuple[str, str | bytes], ...]) -> tuple[ErrorDetail, ...]:
    """What the peers said, out of the call's trailing metadata; nothing if that cannot be read."""
    found: list[ErrorDetail] = []
    for key, value in trailers:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for packed in status_pb2.Status.FromString(value).details:
                detail = gateway_pb2.ErrorDetail.FromString(packed.value)
                found.append(ErrorDetail(detail.address, detail.msp_id, detail.message))
        except DecodeError:
            continue
    return tuple(found)


def failure_of(error: Any) -> Failure:
    """The status of a ``grpc.RpcError``, of the sync or the asyncio API."""
    trailers = tuple((key, value) for key, value in error.trailing_metadata() or ())
    return Failure(error.code().name, error.details() or "", trailers)


def on_time(failure: Failure, spent_s: float, timeout_s: float) -> Failure:
    """A call's deadline may be noticed by the peer before it is here: gRPC says CANCELLED then."""
    if failure.code != "CANCELLED" or spent_s < timeout_s - min(DEADLINE_SLACK_S, timeout_s / 10):
        return failure
    return failure._replace(code="DEADLINE_EXCEEDED", message=failure.message or "Deadline Exceeded")


def _reading(failure: Failure, details: tuple[ErrorDetail, ...]) -> Reading:
    text = "\n".join([failure.message, *(one.message for one in details)])
    if _is_refused(text):
        return Reading("")
    for mark, reading in ADVICE:
        if mark in text:
            return reading
    return BY_CODE.get(failure.code, Reading(""))


def _is_refused(text: str) -> bool:
    return any(refusal in text for refusal in REFUSALS) and "could not launch" not in text


def _outcome_unknown(failure: Failure, reading: Reading) -> bool:
    return failure.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL") and not (
        reading.never_arrived
    )

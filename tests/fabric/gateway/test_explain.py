"""A status of gRPC becomes an error that says what happened, why, what to do, and whether to try again."""

from __future__ import annotations

import pytest
from fabric_protos.gateway import gateway_pb2
from google.protobuf.any_pb2 import Any
from google.rpc import status_pb2

from tokenmesh.fabric.errors import EndorseError, ErrorDetail, GatewayError, SubmitError
from tokenmesh.fabric.gateway.explain import DETAILS_KEY, Failure, commit_error, gateway_error, on_time


def trailers(*said: ErrorDetail) -> tuple[tuple[str, str | bytes], ...]:
    status = status_pb2.Status(code=10)
    for one in said:
        packed = Any()
        packed.Pack(gateway_pb2.ErrorDetail(address=one.address, msp_id=one.msp_id, message=one.message))
        status.details.append(packed)
    return (("other", "thing"), (DETAILS_KEY, status.SerializeToString()))


def endorse_error(code: str, message: str, *said: ErrorDetail) -> EndorseError:
    return gateway_error(EndorseError, "not endorsed", Failure(code, message, trailers(*said)), "abc")


def test_what_each_peer_said_is_in_the_error() -> None:
    said = ErrorDetail("peer0:7051", "Org1MSP", "chaincode response 500, no funds")
    error = endorse_error("ABORTED", "failed to endorse transaction", said)
    assert error.details == (said,)
    assert (error.code, error.transaction_id) == ("ABORTED", "abc")
    for part in ("abc", "failed to endorse", "peer0:7051", "no funds"):
        assert part in str(error)


@pytest.mark.parametrize(
    "message", ["chaincode response 500, timestamp is off", "chaincode response 400, too many requests"]
)
def test_a_chaincodes_own_error_is_never_tried_again_whatever_it_says(message: str) -> None:
    assert not endorse_error("ABORTED", "failed", ErrorDetail("p", "m", message)).retryable
    assert not endorse_error("UNKNOWN", message).retryable


def test_a_deadline_that_the_peer_noticed_first_is_a_deadline() -> None:
    """CANCELLED just at the deadline is the deadline; well before it, or of another kind, it is not."""
    cancelled, gone = Failure("CANCELLED", "", ()), Failure("UNAVAILABLE", "", ())
    assert on_time(cancelled, 0.999, 1.0).code == "DEADLINE_EXCEEDED"
    assert on_time(cancelled, 4.95, 5.0).code == "DEADLINE_EXCEEDED"
    assert on_time(cancelled, 0.5, 1.0) == cancelled
    assert on_time(gone, 1.0, 1.0) == gone


def test_a_full_gateway_has_not_taken_the_call_and_may_be_asked_again() -> None:
    failure = Failure(
        "UNKNOWN", "too many requests for /gateway.Gateway, exceeding concurrency limit (500)", ()
    )
    error = gateway_error(SubmitError, "not submitted", failure, "abc")
    assert error.retryable
    assert not error.outcome_unknown
    assert "gatewayService" in str(error)


def test_endorsers_at_different_blocks_are_asked_again() -> None:
    said = ErrorDetail("p", "m", "ProposalResponsePayloads do not match")
    assert endorse_error("ABORTED", "failed to collect enough", said).retryable


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN"])
def test_a_submit_without_an_answer_may_have_happened(code: str) -> None:
    assert gateway_error(SubmitError, "not submitted", Failure(code, "", ()), "abc").outcome_unknown


def test_a_refusal_of_the_orderer_did_not_happen() -> None:
    error = gateway_error(SubmitError, "not submitted", Failure("ABORTED", "BAD_REQUEST", ()), "abc")
    assert not error.outcome_unknown
    assert not error.retryable


def test_details_that_cannot_be_read_are_left_out() -> None:
    error = gateway_error(
        GatewayError, "not evaluated", Failure("UNKNOWN", "broken", ((DETAILS_KEY, b"\xff\xff"),)), "abc"
    )
    assert error.details == ()


def test_conflicts_may_be_tried_again_and_other_invalid_transactions_not() -> None:
    assert commit_error("abc", 11, 7).retryable
    assert commit_error("abc", 12, 7).retryable
    error = commit_error("abc", 10, 7)
    assert (error.code, error.number, error.block_number) == ("ENDORSEMENT_POLICY_FAILURE", 10, 7)
    assert not error.retryable
    assert "abc" in str(error)
    assert commit_error("abc", 199, 7).code == "199"

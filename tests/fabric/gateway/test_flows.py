"""The rules of retrying, on a peer that is played: what is sent again as it is, what anew, and what never."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

from tokenmesh.fabric.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    FabricError,
    GatewayError,
    IdentityError,
    SubmitError,
)
from tokenmesh.fabric.gateway import NO_RETRY, Deadlines, Identity, Retry, flows, retrying
from tokenmesh.fabric.gateway.explain import Failure
from tokenmesh.fabric.gateway.flows import (
    COMMIT_STATUS,
    ENDORSE,
    EVALUATE,
    SUBMIT,
    Call,
    Caller,
    CallFailed,
    Endorsers,
    Invocation,
    Sign,
    Sleep,
    Status,
    Track,
    Verdict,
    Wait,
)

T = TypeVar("T")
VALID, MVCC, POLICY = 0, 11, 10
WHAT = Invocation("mesh", "kv", ("put", "a"))
BUSY = Failure("UNKNOWN", "too many requests for /gateway.Gateway, exceeding concurrency limit (500)", ())
TIMEOUT = Failure("DEADLINE_EXCEEDED", "", ())
GONE = Failure("UNAVAILABLE", "connection refused", ())
REFUSED = Failure("ABORTED", "chaincode response 500, no", ())


class Peer:
    """Answers effects. ``fails`` names, by method, how its next calls fail; None lets one through."""

    def __init__(self, *verdicts: int, tracks: bool = True) -> None:
        self.now = 0.0
        self.fails: dict[str, list[Failure | None]] = {}
        self.calls: list[Call] = []
        self.verdicts = list(verdicts) or [VALID]
        self.tracks = tracks
        self.ordered: list[str] = []
        self.orders_although: bool = False
        """A Submit that fails was ordered all the same."""
        self.forgets = 0
        """How often the orderer loses what it has taken."""
        self.slept: list[float] = []

    @property
    def caller(self) -> Caller:
        return Caller(
            Identity("Org1MSP", b"PEM"),
            lambda digest: b"signed " + digest,
            retry=Retry(random=random.Random(1).random),
            clock=lambda: self.now,
            now_ns=lambda: 0,
        )

    def run(self, flow: flows.Flow[T]) -> T:
        result: Any = None
        failure: Exception | None = None
        while True:
            try:
                effect = flow.throw(failure) if failure is not None else flow.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            result, failure = None, None
            try:
                result = self.perform(effect)
            except (CallFailed, TimeoutError) as error:
                failure = error

    def perform(self, effect: flows.Effect) -> Any:
        if isinstance(effect, Sign):
            return b"signed " + effect.digest
        if isinstance(effect, Sleep):
            self.now += effect.seconds
            self.slept.append(effect.seconds)
            return None
        if isinstance(effect, Track):
            return effect.transaction_id if self.tracks else None
        if isinstance(effect, Wait):
            return self.wait(effect)
        return self.call(effect)

    def wait(self, effect: Wait) -> Verdict:
        if self.forgets and effect.waiter in self.ordered:
            self.forgets -= 1
            self.ordered.remove(effect.waiter)
        if effect.waiter not in self.ordered:
            self.now += effect.timeout_s
            raise TimeoutError
        return Verdict(self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0], 5)

    def call(self, call: Call) -> bytes:
        self.calls.append(call)
        failing = self.fails.get(call.method, [])
        failure = failing.pop(0) if failing else None
        if call.method == SUBMIT and (failure is None or self.orders_although):
            self.ordered.append(gateway_pb2.SubmitRequest.FromString(call.request).transaction_id)
        if failure is not None:
            raise CallFailed(failure)
        if call.method == EVALUATE:
            response = proposal_response_pb2.Response(payload=b"answer")
            return bytes(gateway_pb2.EvaluateResponse(result=response).SerializeToString())
        if call.method == ENDORSE:
            payload = common_pb2.Payload(data=endorsed(b"answer"))
            prepared = common_pb2.Envelope(payload=payload.SerializeToString())
            return bytes(gateway_pb2.EndorseResponse(prepared_transaction=prepared).SerializeToString())
        if call.method == COMMIT_STATUS:
            return bytes(
                gateway_pb2.CommitStatusResponse(result=self.verdicts[0], block_number=5).SerializeToString()
            )
        return b""

    @property
    def counts(self) -> Counter[str]:
        return Counter(call.method for call in self.calls)

    @property
    def transactions(self) -> set[str]:
        """The ids that were endorsed."""
        return {
            gateway_pb2.EndorseRequest.FromString(call.request).transaction_id
            for call in self.calls
            if call.method == ENDORSE
        }

    @property
    def submitted(self) -> set[bytes]:
        return {call.request for call in self.calls if call.method == SUBMIT}


def endorsed(answer: bytes) -> bytes:
    response = proposal_response_pb2.Response(status=200, payload=answer)
    action = proposal_pb2.ChaincodeAction(response=response).SerializeToString()
    payload = transaction_pb2.ChaincodeActionPayload(
        action=transaction_pb2.ChaincodeEndorsedAction(
            endorsements=[
                proposal_response_pb2.Endorsement(endorser=Identity(msp_id, b"PEM").serialized)
                for msp_id in ("Org2MSP", "Org1MSP")
            ],
            proposal_response_payload=proposal_response_pb2.ProposalResponsePayload(
                extension=action
            ).SerializeToString(),
        )
    )
    actions = [transaction_pb2.TransactionAction(payload=payload.SerializeToString())]
    return bytes(transaction_pb2.Transaction(actions=actions).SerializeToString())


def submit(peer: Peer, retry: Retry | None = None) -> bytes:
    caller = peer.caller
    return peer.run(retrying.submit_and_wait(caller, WHAT, retry or caller.retry))


def fails(kind: type[FabricError], run: Callable[[], object]) -> Any:
    with pytest.raises(kind) as caught:
        run()
    return caught.value


def test_a_submit_is_three_steps_and_asks_the_gateway_for_no_status() -> None:
    peer = Peer()
    assert submit(peer) == b"answer"
    assert peer.counts == {ENDORSE: 1, SUBMIT: 1}


def test_without_a_stream_the_gateway_is_asked() -> None:
    peer = Peer(tracks=False)
    assert submit(peer) == b"answer"
    assert peer.counts == {ENDORSE: 1, SUBMIT: 1, COMMIT_STATUS: 1}


def test_each_call_has_its_deadline() -> None:
    peer = Peer(tracks=False)
    submit(peer, NO_RETRY)
    peer.run(retrying.evaluate_with_retry(peer.caller, WHAT, NO_RETRY, None))
    limits = {call.method: call.timeout_s for call in peer.calls}
    assert limits == {EVALUATE: 5.0, ENDORSE: 15.0, SUBMIT: 5.0, COMMIT_STATUS: 60.0}
    assert Deadlines() == Deadlines(5, 15, 5, 60)


def test_a_conflict_gets_a_new_proposal() -> None:
    peer = Peer(MVCC, MVCC, VALID)
    assert submit(peer) == b"answer"
    assert len(peer.transactions) == 3
    assert len(peer.slept) == 2


def test_conflicts_end_with_the_budget_and_the_last_error() -> None:
    peer = Peer(MVCC)
    error = fails(CommitError, lambda: submit(peer))
    assert error.code == "MVCC_READ_CONFLICT"
    assert peer.counts[ENDORSE] == Retry().attempts
    peer = Peer(MVCC)
    fails(CommitError, lambda: submit(peer, Retry(attempts=10**6, budget_s=10)))
    assert peer.now <= 10


def test_pauses_grow_and_are_never_above_their_limit() -> None:
    retry = Retry(attempts=100, wait_s=0.1, wait_s_max=1.0, budget_s=10**6, random=lambda: 1.0)
    pauses = [retry.pause(attempt, 0) for attempt in range(1, 100)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert set(pauses[4:]) == {1.0}
    assert retry.pause(100, 0) is None


def test_other_invalid_transactions_are_not_tried_again() -> None:
    peer = Peer(POLICY)
    assert fails(CommitError, lambda: submit(peer)).code == "ENDORSEMENT_POLICY_FAILURE"
    assert peer.counts[ENDORSE] == 1


def test_what_the_chaincode_refuses_is_asked_once() -> None:
    peer = Peer()
    peer.fails = {ENDORSE: [REFUSED], EVALUATE: [REFUSED]}
    fails(EndorseError, lambda: submit(peer))
    fails(GatewayError, lambda: peer.run(retrying.evaluate_with_retry(peer.caller, WHAT, Retry(), None)))
    assert peer.counts == {ENDORSE: 1, EVALUATE: 1}


@pytest.mark.parametrize("failure", [BUSY, GONE], ids=["busy", "gone"])
def test_endorsement_and_evaluation_wait_for_a_peer_that_comes_back(failure: Failure) -> None:
    peer = Peer()
    peer.fails = {ENDORSE: [failure, failure], EVALUATE: [failure]}
    assert submit(peer) == b"answer"
    assert peer.run(retrying.evaluate_with_retry(peer.caller, WHAT, Retry(), None)) == b"answer"
    assert peer.counts == {ENDORSE: 3, SUBMIT: 1, EVALUATE: 2}


@pytest.mark.parametrize("failure", [BUSY, TIMEOUT, GONE], ids=["busy", "timeout", "gone"])
def test_the_very_same_transaction_is_handed_in_again(failure: Failure) -> None:
    peer = Peer()
    peer.fails = {SUBMIT: [failure, failure]}
    assert submit(peer) == b"answer"
    assert (peer.counts[SUBMIT], len(peer.submitted), len(peer.transactions)) == (3, 1, 1)


@pytest.mark.parametrize("tracks", [True, False])
def test_a_transaction_that_was_taken_without_an_answer_is_not_handed_in_again(tracks: bool) -> None:
    peer = Peer(tracks=tracks)
    peer.fails, peer.orders_although = {SUBMIT: [TIMEOUT]}, True
    assert submit(peer) == b"answer"
    assert peer.counts[SUBMIT] == 1


def test_a_submit_that_stays_without_an_answer_says_that_the_outcome_is_unknown() -> None:
    peer = Peer()
    peer.fails = {SUBMIT: [TIMEOUT] * 100}
    error = fails(SubmitError, lambda: submit(peer))
    assert error.outcome_unknown
    assert {error.transaction_id} == peer.transactions, "no new proposal while the old one may be committed"


def test_a_refusal_after_an_attempt_without_an_answer_is_no_certainty() -> None:
    """The second attempt is refused for good; but the first one may have been taken."""
    peer = Peer()
    peer.fails = {SUBMIT: [TIMEOUT, REFUSED]}
    assert fails(SubmitError, lambda: submit(peer)).outcome_unknown
    peer.fails = {SUBMIT: [REFUSED]}
    assert not fails(SubmitError, lambda: submit(peer)).outcome_unknown


def test_what_a_killed_orderer_forgot_is_handed_in_again_as_it_was() -> None:
    peer = Peer()
    peer.forgets = 2
    assert submit(peer) == b"answer"
    assert (peer.counts[SUBMIT], len(peer.submitted), len(peer.transactions)) == (3, 1, 1)
    peer = Peer()
    peer.forgets = 10**6
    error = fails(CommitStatusError, lambda: submit(peer))
    assert error.code == "DEADLINE_EXCEEDED"
    assert peer.now <= Deadlines().commit_status_s
    assert peer.counts[SUBMIT] < 6, "ever more rarely"


def test_what_is_not_wanted_is_endorsed_and_not_handed_in() -> None:
    """The caller sees the transaction's id and the answer first, and says so."""
    peer, seen = Peer(), []

    def is_wanted(transaction_id: str, answer: bytes) -> bool:
        seen.append((transaction_id, answer))
        return False

    assert peer.run(retrying.submit_and_wait(peer.caller, WHAT, NO_RETRY, is_wanted)) == b"answer"
    assert peer.counts == {ENDORSE: 1}
    assert seen == [(*peer.transactions, b"answer")]
    committed: list[Status] = []
    flow = retrying.submit_and_wait(peer.caller, WHAT, NO_RETRY, lambda *_: True, committed.append)
    assert peer.run(flow) == b"answer"
    assert peer.counts == {ENDORSE: 2, SUBMIT: 1}
    assert [(one.successful, one.block_number) for one in committed] == [(True, 5)]


def test_what_is_not_endorsed_in_its_time_is_proposed_anew() -> None:
    """With a later time, to the endorsers of before and to others: none is handed in that was too slow."""
    peer, endorsers = Peer(), Endorsers()
    ticks = iter(range(1_800_000_000, 1_900_000_000))
    what = Invocation("mesh", "kv", ("put", "a"), None, (), lambda: next(ticks), endorsers, 0.5)
    endorsers.msp_ids = ("Org1MSP", "Org2MSP")
    peer.fails = {ENDORSE: [TIMEOUT, TIMEOUT, TIMEOUT]}
    assert peer.run(retrying.submit_and_wait(peer.caller, what, Retry())) == b"answer"
    asked = [call for call in peer.calls if call.method == ENDORSE]
    assert [call.timeout_s for call in asked] == [0.5] * 4
    requests = [gateway_pb2.EndorseRequest.FromString(call.request) for call in asked]
    assert len({one.transaction_id for one in requests}) == 4
    assert len({one.proposed_transaction.proposal_bytes for one in requests}) == 4
    assert peer.counts[SUBMIT] == 1


def test_those_who_have_endorsed_are_asked_at_once_the_next_time() -> None:
    """Named in the next proposal; the gateway chooses anew when they cannot, or do not suffice any more."""
    peer = Peer(VALID)
    what = Invocation("mesh", "kv", ("put", "a"), endorsers=Endorsers())

    def asked() -> list[list[str]]:
        requests = [call.request for call in peer.calls if call.method == ENDORSE]
        peer.calls.clear()
        return [list(gateway_pb2.EndorseRequest.FromString(one).endorsing_organizations) for one in requests]

    def run() -> list[list[str]]:
        peer.run(retrying.submit_and_wait(peer.caller, what, Retry()))
        return asked()

    assert run() == [[]]
    assert run() == [["Org1MSP", "Org2MSP"]]
    peer.fails = {ENDORSE: [GONE]}
    assert run() == [["Org1MSP", "Org2MSP"], []], "a new proposal, to whomever the gateway chooses"
    peer.verdicts = [POLICY, VALID]
    assert run() == [["Org1MSP", "Org2MSP"], []]
    peer.fails = {ENDORSE: [REFUSED]}
    with pytest.raises(EndorseError):
        run()
    assert asked() == [["Org1MSP", "Org2MSP"]], "what the chaincode refuses, others refuse too"


def test_a_proposal_bears_the_time_of_its_contracts_clock() -> None:
    """Without one, it is the gateway's."""
    for clock, seconds, nanos in ((lambda: 1_800_000_000.25, 1_800_000_000, 250_000_000), (None, 0, 0)):
        draft = Invocation("mesh", "kv", ("put",), clock=clock).draft(Peer().caller)
        header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(draft.proposal).header)
        stamp = common_pb2.ChannelHeader.FromString(header.channel_header).timestamp
        assert (stamp.seconds, stamp.nanos) == (seconds, nanos)


def test_no_retry_does_everything_once() -> None:
    peer = Peer(MVCC)
    fails(CommitError, lambda: submit(peer, NO_RETRY))
    assert peer.counts == {ENDORSE: 1, SUBMIT: 1}


def test_a_commit_that_is_not_seen_in_time_is_not_called_failed() -> None:
    peer = Peer()
    prepared = flows.Prepared("abc", "mesh", b"payload")
    flow = flows.commit_status(peer.caller, flows.Submitted(prepared, "abc"), b"request", None, 7.0)
    error = fails(CommitStatusError, lambda: peer.run(flow))
    assert (error.code, error.transaction_id, peer.now) == ("DEADLINE_EXCEEDED", "abc", 7.0)


def test_a_gateway_without_a_signer_says_how_to_sign() -> None:
    peer = Peer()
    caller = Caller(Identity("Org1MSP", b"PEM"))
    with pytest.raises(IdentityError, match="new_signed_proposal"):
        peer.run(retrying.submit_and_wait(caller, WHAT, NO_RETRY))

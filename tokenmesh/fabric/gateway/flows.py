"""What the client does, step by step, without doing any of it: generators that yield what is to be done next.

The sync and the asyncio gateway drive the very same flows (:mod:`.sync`, :mod:`.aio`): each effect that a
flow yields is carried out, and its result or its exception is sent back in. So the rules of the protocol, of
deadlines and of retrying stand here once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import Any, NamedTuple, TypeAlias, TypeVar

from fabric_protos.gateway import gateway_pb2

from tokenmesh.fabric.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    FabricError,
    GatewayError,
    IdentityError,
    SubmitError,
)
from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.explain import (
    DIFFERENT_RESULTS,
    VALID,
    VALIDATION_CODES,
    Failure,
    commit_error,
    gateway_error,
    is_refusal,
)
from tokenmesh.fabric.gateway.identity import AsyncSigner, Hash, Identity, Signer, hash_sha256
from tokenmesh.fabric.gateway.messages import Argument, Draft, Prepared
from tokenmesh.fabric.gateway.options import Deadlines, Retry

EVALUATE = "/gateway.Gateway/Evaluate"
ENDORSE = "/gateway.Gateway/Endorse"
SUBMIT = "/gateway.Gateway/Submit"
COMMIT_STATUS = "/gateway.Gateway/CommitStatus"
PROCESS_PROPOSAL = "/protos.Endorser/ProcessProposal"
METHODS = (EVALUATE, ENDORSE, SUBMIT, COMMIT_STATUS, PROCESS_PROPOSAL)

POLICY_FAILURE = "ENDORSEMENT_POLICY_FAILURE"
CONFIRM_SUBMIT_S = 2.0
"""How long a transaction whose Submit went unanswered is looked for on the ledger before it is sent again."""

T = TypeVar("T")
Clock: TypeAlias = Callable[[], float]
"""Gives Unix seconds."""
Wanted: TypeAlias = Callable[[str, bytes], bool]
"""Says, of a transaction's id and the chaincode's answer, whether it is to be handed in at all."""


class Sign(NamedTuple):
    """Have the signer sign a digest; sends in the signature."""

    digest: bytes


class Call(NamedTuple):
    """Call the gateway; sends in the response's bytes, or throws :class:`CallFailed`."""

    method: str
    request: bytes
    timeout_s: float


class Track(NamedTuple):
    """Look out for a transaction on its channel's stream of blocks; sends in a waiter, or None if that can't
    be.
    """

    channel: str
    transaction_id: str
    timeout_s: float


class Wait(NamedTuple):
    """Wait for a tracked transaction; sends in a :class:`Verdict`, None if the stream is lost; or
    TimeoutError.
    """

    waiter: Any
    timeout_s: float


class Sleep(NamedTuple):
    seconds: float


Effect: TypeAlias = Sign | Call | Track | Wait | Sleep
Flow: TypeAlias = Generator[Effect, Any, T]


class CallFailed(Exception):
    """A call that did not end well, as the transport reports it to a flow. Never leaves this package."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Verdict(NamedTuple):
    """What the peers found about a transaction, and in which block."""

    code: int
    block_number: int


@dataclass(frozen=True)
class Status:
    """What became of a transaction. ``code`` is the name of its validation code, ``"VALID"`` if it took
    effect.
    """

    transaction_id: str
    code: str
    number: int
    block_number: int

    @property
    def successful(self) -> bool:
        return self.number == int(VALID)


@dataclass(frozen=True)
class Caller:
    """Who calls, and by which rules."""

    identity: Identity
    signer: Signer | AsyncSigner | None = None
    hash: Hash = hash_sha256
    deadlines: Deadlines = field(default_factory=Deadlines)
    retry: Retry = field(default_factory=Retry)
    tls_certificate_hash: bytes = b""
    clock: Callable[[], float] = monotonic
    now_ns: Callable[[], int] = time_ns

    def sign(self, message: bytes, made_by: str) -> Flow[bytes]:
        """Sign a message, or say how it can be signed elsewhere."""
        if self.signer is None:
            raise IdentityError(
                f"this gateway has no signer: sign the digest elsewhere and hand it in by {made_by}"
            )
        signature: bytes = yield Sign(self.hash(message))
        return signature


@dataclass(frozen=True)
class Invocation:
    """What is to be run, where, and by whose peers."""

    channel: str
    chaincode: str
    arguments: Sequence[Argument]
    transient: Mapping[str, Argument] | None = None
    organizations: Sequence[str] = ()
    clock: Clock | None = None
    endorsers: Endorsers | None = None

    def draft(self, caller: Caller) -> Draft:
        return messages.new_proposal(
            caller.identity.serialized,
            self.channel,
            self.chaincode,
            self.arguments,
            self.transient,
            now_ns=caller.now_ns() if self.clock is None else _ns(self.clock()),
            tls_certificate_hash=caller.tls_certificate_hash,
        )


class Endorsers:
    """Whose peers have endorsed a contract's last valid transaction.

    A gateway that is not told asks one peer first and then, by what that one has touched, the others. Told
    whom to ask it asks all at once: half the time. So what it chose once is named from then on, until that
    does not serve any more.
    """

    def __init__(self) -> None:
        self.msp_ids: tuple[str, ...] = ()

    def learn(self, payload: bytes) -> None:
        if not self.msp_ids:
            self.msp_ids = messages.endorsers_of(payload)

    def forget(self) -> None:
        self.msp_ids = ()


class Submitted(NamedTuple):
    """A transaction that was handed in for ordering, and what waits for it, if anything does."""

    prepared: Prepared
    waiter: Any


def evaluate(
    caller: Caller,
    draft: Draft,
    channel: str,
    organizations: Sequence[str],
    signature: bytes | None,
    timeout_s: float | None,
) -> Flow[bytes]:
    """Run a proposal on one peer and give its answer; the ledger stays as it is."""
    signed = signature or (yield from caller.sign(draft.proposal, "new_signed_proposal"))
    request = messages.evaluate_request(draft.transaction_id, channel, draft.proposal, signed, organizations)
    try:
        response = yield Call(EVALUATE, request, _or(timeout_s, caller.deadlines.evaluate_s))
    except CallFailed as error:
        raise gateway_error(GatewayError, "not evaluated", error.failure, draft.transaction_id) from error
    return messages.evaluate_result(response)


def endorse(
    caller: Caller,
    draft: Draft,
    channel: str,
    organizations: Sequence[str],
    signature: bytes | None,
    timeout_s: float | None,
) -> Flow[Prepared]:
    """Collect the endorsements that the chaincode's policy demands, as a transaction to be signed."""
    signed = signature or (yield from caller.sign(draft.proposal, "new_signed_proposal"))
    request = messages.endorse_request(draft.transaction_id, channel, draft.proposal, signed, organizations)
    try:
        response = yield Call(ENDORSE, request, _or(timeout_s, caller.deadlines.endorse_s))
    except CallFailed as error:
        raise gateway_error(EndorseError, "not endorsed", error.failure, draft.transaction_id) from error
    return Prepared(draft.transaction_id, channel, messages.endorsed_payload(response))


def submit(
    caller: Caller, prepared: Prepared, signature: bytes | None, timeout_s: float | None
) -> Flow[Submitted]:
    """Hand an endorsed transaction in for ordering, once."""
    signed = signature or (yield from caller.sign(prepared.payload, "new_signed_transaction"))
    limit_s = _or(timeout_s, caller.deadlines.submit_s)
    waiter = yield Track(prepared.channel, prepared.transaction_id, limit_s)
    yield from _hand_in(prepared, signed, limit_s)
    return Submitted(prepared, waiter)


def commit_status(
    caller: Caller, submitted: Submitted, request: bytes, signature: bytes | None, timeout_s: float | None
) -> Flow[Status]:
    """Wait until a transaction is committed: by the stream of blocks if it is tracked, else by asking the
    peer.
    """
    limit_s = _or(timeout_s, caller.deadlines.commit_status_s)
    transaction_id = submitted.prepared.transaction_id
    since = caller.clock()
    if submitted.waiter is not None:
        try:
            verdict: Verdict | None = yield Wait(submitted.waiter, limit_s)
        except TimeoutError as error:
            raise _not_seen(transaction_id, limit_s) from error
        if verdict is not None:
            return _status(transaction_id, verdict)
    signed = signature or (yield from caller.sign(request, "new_signed_commit"))
    left_s = max(0.001, limit_s - (caller.clock() - since))
    try:
        response = yield Call(COMMIT_STATUS, messages.signed_commit_status_request(request, signed), left_s)
    except CallFailed as error:
        raise gateway_error(
            CommitStatusError, "commit status unknown", error.failure, transaction_id
        ) from error
    answer = gateway_pb2.CommitStatusResponse.FromString(response)
    return _status(transaction_id, Verdict(answer.result, answer.block_number))


def evaluate_with_retry(
    caller: Caller, what: Invocation, retry: Retry, timeout_s: float | None
) -> Flow[bytes]:
    """Evaluate; again, where a busy or absent peer was the reason that it did not work."""

    def once() -> Flow[bytes]:
        draft = what.draft(caller)
        return (yield from evaluate(caller, draft, what.channel, what.organizations, None, timeout_s))

    return (yield from _retrying(caller, retry, once))


def endorse_and_submit(caller: Caller, what: Invocation, retry: Retry) -> Flow[Submitted]:
    """Endorse and hand in, each as often as is safe and as the budget allows."""

    def once() -> Flow[Prepared]:
        draft = what.draft(caller)
        return (yield from endorse(caller, draft, what.channel, what.organizations, None, None))

    prepared = yield from _retrying(caller, retry, once)
    signed = yield from caller.sign(prepared.payload, "new_signed_transaction")
    return (yield from _submit_surely(caller, prepared, signed, retry))


def submit_and_wait(
    caller: Caller,
    what: Invocation,
    retry: Retry,
    is_wanted: Wanted | None = None,
    on_commit: Callable[[Status], None] | None = None,
) -> Flow[bytes]:
    """The whole way: endorse, hand in, wait; a transaction invalid by a conflict gets a new proposal."""

    def once() -> Flow[bytes]:
        guess = what.endorsers.msp_ids if what.endorsers is not None and not what.organizations else ()
        prepared = yield from _endorse_as_before(caller, what, guess)
        result = messages.result_of(prepared.payload)
        if is_wanted is not None and not is_wanted(prepared.transaction_id, result):
            return result
        signed = yield from caller.sign(prepared.payload, "new_signed_transaction")
        submitted = yield from _submit_surely(caller, prepared, signed, retry)
        status = yield from _see_through(caller, submitted, signed, retry)
        if not status.successful:
            invalid = commit_error(status.transaction_id, status.number, status.block_number)
            if what.endorsers is not None and invalid.code == POLICY_FAILURE:
                what.endorsers.forget()
                invalid.retryable = bool(guess)
            raise invalid
        if what.endorsers is not None:
            what.endorsers.learn(prepared.payload)
        if on_commit is not None:
            on_commit(status)
        return result

    return (yield from _retrying(caller, retry, once))


def _endorse_as_before(caller: Caller, what: Invocation, guess: Sequence[str]) -> Flow[Prepared]:
    """Endorse by those who have done so before; if they cannot, by whomever the gateway chooses."""
    draft = what.draft(caller)
    if not guess:
        return (yield from endorse(caller, draft, what.channel, what.organizations, None, None))
    try:
        return (yield from endorse(caller, draft, what.channel, guess, None, None))
    except EndorseError as error:
        if DIFFERENT_RESULTS in str(error) or is_refusal(error):
            raise
    if what.endorsers is not None:
        what.endorsers.forget()
    return (yield from endorse(caller, draft, what.channel, (), None, None))


def status_request(caller: Caller, prepared: Prepared) -> bytes:
    """The bytes to be signed for asking what became of a transaction."""
    return messages.commit_status_request(
        caller.identity.serialized, prepared.channel, prepared.transaction_id
    )


def _retrying(caller: Caller, retry: Retry, once: Callable[[], Flow[T]]) -> Flow[T]:
    """Again with a new proposal, but only after failures that certainly left the ledger as it was."""
    since, attempt = caller.clock(), 0
    while True:
        attempt += 1
        try:
            return (yield from once())
        except FabricError as error:
            harmless = isinstance(error, CommitError | EndorseError) or type(error) is GatewayError
            pause = retry.pause(attempt, caller.clock() - since)
            if not (harmless and error.retryable) or pause is None:
                raise
        yield Sleep(pause)


def _submit_surely(caller: Caller, prepared: Prepared, signed: bytes, retry: Retry) -> Flow[Submitted]:
    """Hand in the same transaction until it is known to be taken: twice the same is committed once.

    An attempt without an answer may have succeeded, so the ledger is watched for a while before the next.
    """
    waiter = yield Track(prepared.channel, prepared.transaction_id, caller.deadlines.submit_s)
    since, attempt, unknown = caller.clock(), 0, False
    while True:
        attempt += 1
        try:
            yield from _hand_in(prepared, signed, caller.deadlines.submit_s)
        except SubmitError as error:
            pause = retry.pause(attempt, caller.clock() - since)
            refused = not (error.retryable or error.outcome_unknown)
            # Whatever is said of this attempt, an earlier one may have been taken.
            unknown = error.outcome_unknown = unknown or error.outcome_unknown
            if refused:
                raise
            if error.outcome_unknown and (yield from _committed(caller, Submitted(prepared, waiter))):
                return Submitted(prepared, waiter)
            if pause is None:
                raise
        else:
            return Submitted(prepared, waiter)
        yield Sleep(pause)


def _see_through(caller: Caller, submitted: Submitted, signed: bytes, retry: Retry) -> Flow[Status]:
    """Wait for the commit; hand the same transaction in again where it is long in coming.

    An orderer acknowledges what it only holds in memory yet, so one that is killed loses what it had taken.
    """
    request = status_request(caller, submitted.prepared)
    limit_s, since, patience_s = caller.deadlines.commit_status_s, caller.clock(), retry.resend_s
    if retry.attempts == 1:
        return (yield from commit_status(caller, submitted, request, None, limit_s))
    while True:
        left_s = limit_s - (caller.clock() - since)
        try:
            return (yield from commit_status(caller, submitted, request, None, min(left_s, patience_s)))
        except CommitStatusError as error:
            late = error.code == "DEADLINE_EXCEEDED"
            if left_s <= patience_s or not (late or error.retryable):
                raise
        if late:
            patience_s *= 2
            with suppress(SubmitError):
                yield from _hand_in(submitted.prepared, signed, caller.deadlines.submit_s)
        else:
            yield Sleep(retry.wait_s_max)


def _committed(caller: Caller, submitted: Submitted) -> Flow[bool]:
    """Is a transaction on the ledger, valid or not? A short look."""
    request = status_request(caller, submitted.prepared)
    try:
        yield from commit_status(caller, submitted, request, None, CONFIRM_SUBMIT_S)
    except CommitStatusError:
        return False
    return True


def _hand_in(prepared: Prepared, signature: bytes, timeout_s: float) -> Flow[None]:
    try:
        yield Call(SUBMIT, messages.submit_request(prepared, signature), timeout_s)
    except CallFailed as error:
        raise gateway_error(SubmitError, "not submitted", error.failure, prepared.transaction_id) from error


def _status(transaction_id: str, verdict: Verdict) -> Status:
    code = VALIDATION_CODES.get(verdict.code, str(verdict.code))
    return Status(transaction_id, code, verdict.code, verdict.block_number)


def _not_seen(transaction_id: str, limit_s: float) -> CommitStatusError:
    failure = Failure(
        "DEADLINE_EXCEEDED", f"not in any block that the peer committed within {limit_s:g} s", ()
    )
    return gateway_error(CommitStatusError, "commit status unknown", failure, transaction_id)


def _ns(seconds: float) -> int:
    """A float cannot hold a time of today in nanoseconds, so the fraction goes apart."""
    return int(seconds) * 10**9 + round(seconds % 1 * 10**9)


def _or(given: float | None, default: float) -> float:
    return default if given is None else given

"""What the client does, step by step, without doing any of it: generators that yield what is to be done next.

The sync and the asyncio gateway drive the very same flows (:mod:`.sync`, :mod:`.aio`): each effect that a
flow yields is carried out, and its result or its exception is sent back in. So the rules of the protocol, of
deadlines stand here once; those of trying again in :mod:`.retrying`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

from tokenmesh.fabric.errors import (
    CommitStatusError,
    EndorseError,
    GatewayError,
    IdentityError,
    SubmitError,
)
from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.explain import (
    VALID,
    VALIDATION_CODES,
    Failure,
    Kind,
    doubts_about,
    gateway_error,
)
from tokenmesh.fabric.gateway.identity import AsyncSigner, Hash, Identity, Signer, hash_sha256
from tokenmesh.fabric.gateway.messages import Argument, Draft, Prepared
from tokenmesh.fabric.gateway.options import Deadlines, Retry, Tls

EVALUATE = "/gateway.Gateway/Evaluate"
ENDORSE = "/gateway.Gateway/Endorse"
SUBMIT = "/gateway.Gateway/Submit"
COMMIT_STATUS = "/gateway.Gateway/CommitStatus"
PROCESS_PROPOSAL = "/protos.Endorser/ProcessProposal"
METHODS = (EVALUATE, ENDORSE, SUBMIT, COMMIT_STATUS, PROCESS_PROPOSAL)

T = TypeVar("T")
Clock: TypeAlias = Callable[[], float]
"""Gives Unix seconds."""


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
    tls_certificate: bytes | None = None
    clock: Callable[[], float] = monotonic
    now_ns: Callable[[], int] = time_ns

    @classmethod
    def over(
        cls, tls: Tls | None, identity: Identity, signer: Signer | AsyncSigner | None, **rules: Any
    ) -> Self:
        """A caller whose connections are made with ``tls``."""
        if tls is None:
            return cls(identity, signer, **rules)
        own, digest = tls.certificate, tls.certificate_hash
        return cls(identity, signer, tls_certificate=own, tls_certificate_hash=digest, **rules)

    def error(self, kind: type[Kind], what: str, failure: Failure, transaction_id: str = "") -> Kind:
        """The error for a call of this caller's that failed."""
        return gateway_error(kind, what, failure, transaction_id, self.doubts())

    def doubts(self) -> list[str]:
        """What this caller can see to be wrong with itself."""
        own = [("this identity's certificate", self.identity.credentials)]
        if self.tls_certificate is not None:
            own.append(("our TLS certificate", self.tls_certificate))
        return doubts_about(own, self.now_ns() / 1e9)

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
    endorse_timeout_s: float | None = None

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
            with suppress(messages.Unreadable):  # the transaction is committed, and that is what counts
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
        raise caller.error(GatewayError, "not evaluated", error.failure, draft.transaction_id) from error
    try:
        return messages.evaluate_result(response)
    except messages.Unreadable as error:
        raise caller.error(GatewayError, "not evaluated", _garbled(error), draft.transaction_id) from error


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
        raise caller.error(EndorseError, "not endorsed", error.failure, draft.transaction_id) from error
    try:
        payload = messages.endorsed_payload(response)
        messages.result_of(payload)  # what cannot be read then is not signed
    except messages.Unreadable as error:
        raise caller.error(EndorseError, "not endorsed", _garbled(error), draft.transaction_id) from error
    return Prepared(draft.transaction_id, channel, payload)


def submit(
    caller: Caller, prepared: Prepared, signature: bytes | None, timeout_s: float | None
) -> Flow[Submitted]:
    """Hand an endorsed transaction in for ordering, once."""
    signed = signature or (yield from caller.sign(prepared.payload, "new_signed_transaction"))
    limit_s = _or(timeout_s, caller.deadlines.submit_s)
    waiter = yield Track(prepared.channel, prepared.transaction_id, limit_s)
    yield from hand_in(caller, prepared, signed, limit_s)
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
        raise caller.error(
            CommitStatusError, "commit status unknown", error.failure, transaction_id
        ) from error
    try:
        return _status(transaction_id, Verdict(*messages.verdict_of(response)))
    except messages.Unreadable as error:
        raise caller.error(
            CommitStatusError, "commit status unknown", _garbled(error), transaction_id
        ) from error


def status_request(caller: Caller, prepared: Prepared) -> bytes:
    """The bytes to be signed for asking what became of a transaction."""
    return messages.commit_status_request(
        caller.identity.serialized, prepared.channel, prepared.transaction_id
    )


def hand_in(caller: Caller, prepared: Prepared, signature: bytes, timeout_s: float) -> Flow[None]:
    """Hand a signed transaction in for ordering: one call."""
    try:
        yield Call(SUBMIT, messages.submit_request(prepared, signature), timeout_s)
    except CallFailed as error:
        raise caller.error(SubmitError, "not submitted", error.failure, prepared.transaction_id) from error


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


def _garbled(error: messages.Unreadable) -> Failure:
    """The failure that an answer is which cannot be read; asking again would not help."""
    return Failure("DATA_LOSS", str(error), ())


def _or(given: float | None, default: float) -> float:
    return default if given is None else given

"""Flows that try again: which failures certainly left the ledger as it was, and what is safe to repeat.

A proposal that was not endorsed, and a transaction that was found invalid, changed nothing: a new one may be
made. A transaction of which nobody knows whether it was taken is handed in again as it is: it is committed
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias, TypeVar

from tokenmesh.fabric.errors import (
    CommitError,
    CommitStatusError,
    EndorseError,
    FabricError,
    GatewayError,
    SubmitError,
)
from tokenmesh.fabric.gateway import messages
from tokenmesh.fabric.gateway.explain import DIFFERENT_RESULTS, commit_error, is_refusal
from tokenmesh.fabric.gateway.flows import (
    Caller,
    Flow,
    Invocation,
    Sleep,
    Status,
    Submitted,
    Track,
    commit_status,
    endorse,
    evaluate,
    hand_in,
    status_request,
)
from tokenmesh.fabric.gateway.messages import Prepared
from tokenmesh.fabric.gateway.options import Retry

POLICY_FAILURE = "ENDORSEMENT_POLICY_FAILURE"
CONFIRM_SUBMIT_S = 2.0
"""How long a transaction whose Submit went unanswered is looked for on the ledger before it is sent again."""

T = TypeVar("T")
Wanted: TypeAlias = Callable[[str, bytes], bool]
"""Says, of a transaction's id and the chaincode's answer, whether it is to be handed in at all."""


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
        return (yield from _endorse(caller, what, what.organizations))

    prepared = yield from _retrying(caller, retry, once)
    signed = yield from caller.sign(prepared.payload, "new_signed_transaction")
    return (yield from _submit_surely(caller, prepared, signed, retry))


def submit_and_wait(
    caller: Caller,
    what: Invocation,
    retry: Retry,
    is_wanted: Wanted | None = None,
    on_commit: Callable[[Status], None] | None = None,
    on_retry: Callable[[FabricError], None] | None = None,
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

    return (yield from _retrying(caller, retry, once, on_retry))


def _endorse_as_before(caller: Caller, what: Invocation, guess: Sequence[str]) -> Flow[Prepared]:
    """Endorse by those who have done so before; if they cannot, by whomever the gateway chooses."""
    if not guess:
        return (yield from _endorse(caller, what, what.organizations))
    try:
        return (yield from _endorse(caller, what, guess))
    except EndorseError as error:
        if DIFFERENT_RESULTS in str(error) or is_refusal(error):
            raise
    if what.endorsers is not None:
        what.endorsers.forget()
    return (yield from _endorse(caller, what, ()))


def _endorse(caller: Caller, what: Invocation, organizations: Sequence[str]) -> Flow[Prepared]:
    """Endorse a new proposal; one that is to be endorsed within a time of its own may be made anew."""
    draft, timeout_s = what.draft(caller), what.endorse_timeout_s
    try:
        return (yield from endorse(caller, draft, what.channel, organizations, None, timeout_s))
    except EndorseError as error:
        if timeout_s is not None and error.code == "DEADLINE_EXCEEDED":
            error.retryable = True
        raise


def _retrying(
    caller: Caller,
    retry: Retry,
    once: Callable[[], Flow[T]],
    on_retry: Callable[[FabricError], None] | None = None,
) -> Flow[T]:
    """Again with a new proposal, but only after failures that certainly left the ledger as it was."""
    since, attempt = caller.clock(), 0
    while True:
        attempt += 1
        try:
            return (yield from once())
        except FabricError as error:
            harmless = isinstance(error, CommitError | EndorseError) or type(error) is GatewayError
            pause = retry.pause(attempt, caller.clock() - since)
            if not (harmless and error.retryable):
                raise
            if pause is None:
                _say_tries(error, attempt, caller.clock() - since)
                raise
            if on_retry is not None:
                on_retry(error)
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
            yield from hand_in(caller, prepared, signed, caller.deadlines.submit_s)
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
                _say_tries(error, attempt, caller.clock() - since)
                raise
        else:
            return Submitted(prepared, waiter)
        yield Sleep(pause)


def _say_tries(error: FabricError, attempts: int, spent_s: float) -> None:
    """Who gives up says so: there was patience, and it has ended."""
    if attempts > 1:
        error.add(f"given up after {attempts} attempts in {spent_s:.1f} s")


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
                yield from hand_in(caller, submitted.prepared, signed, caller.deadlines.submit_s)
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

"""Sends batches of operations to the chaincode, and says in the ledger's own errors what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenmesh.errors import LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.fabric.errors import CommitError, CommitStatusError, EndorseError, FabricError, SubmitError
from tokenmesh.fabric.gateway import Contract, Retry
from tokenmesh.ledger.base import Result
from tokenmesh.ledger.batching import Job, Submission, fail, together
from tokenmesh.telemetry import LedgerWatch, now
from tokenmesh_chaincode.documents import canonical
from tokenmesh_chaincode.rules import Outcome

DISCLOSURES = "disclosures"
"""The name of the transient data that goes to the endorsers and never into the transaction."""
PROMPT_S = 1.0
"""How long the endorsement of what has to be prompt may take before its time is too old, and it is proposed
anew. Endorsers have what an ``enforce`` is about, or their results differ from those who have; so payees that
ask them that much later know of it. ``Standing`` leaves room for it."""
TOO_LARGE = ("larger than max", "exceeds maximum allowed", "too large")
"""What gRPC, a peer or an orderer says of a message that it does not take."""


class TooLarge(Exception):
    """A batch is more than one transaction can be. Nothing happened. Never leaves this package."""


class Sender:
    """Has batches of operations done, each by one Fabric transaction.

    What is safe to try again is tried again within ``retry``: conflicts with other transactions by a new
    proposal, an unanswered hand-over by the same transaction. ``seen`` is told of blocks that are committed.
    """

    def __init__(
        self, contract: Contract, retry: Retry, seen: Callable[[int], None], watch: LedgerWatch | None = None
    ) -> None:
        self._contract = contract
        self._retry = retry
        self._seen = seen
        self._watch = watch or LedgerWatch("fabric")

    def send(self, jobs: list[Job[Submission]]) -> None:
        """Do what the jobs of a batch are about, and answer their futures.

        A batch that is too large is cut in two, between jobs as long as there are several.
        """
        operations = [text for job in jobs for text in job.payload.operations]
        disclosures = together(job.payload.disclosures for job in jobs)
        timeout_s = PROMPT_S if any(job.payload.is_prompt for job in jobs) else None
        try:
            results = self._submit(operations, disclosures, timeout_s)
        except TooLarge:
            if len(jobs) > 1:
                for part in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
                    self._send_or_fail(part)
                return
            results = self._send_parts(operations, disclosures, timeout_s)
        start = 0
        for job in jobs:
            job.future.set_result(results[start : start + job.size])
            start += job.size

    def _send_or_fail(self, jobs: list[Job[Submission]]) -> None:
        try:
            self.send(jobs)
        except LedgerError as error:
            fail(jobs, error)

    def _send_parts(
        self, operations: Sequence[str], disclosures: Mapping[str, str], timeout_s: float | None
    ) -> list[Result]:
        """The operations of one submission that is too large, in two or more transactions, in their order."""
        results: list[Result] = []
        parts = [operations]
        while parts:
            part = parts.pop()
            try:
                results += self._submit(part, disclosures, timeout_s)
            except TooLarge as error:
                if len(part) == 1:
                    raise self._partly(
                        results, LedgerError(f"an operation of {len(part[0])} bytes is too large: {error}")
                    ) from error
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            except LedgerError as error:
                raise self._partly(results, error) from error
        return results

    @staticmethod
    def _partly(done: list[Result], error: LedgerError) -> LedgerError:
        """What the caller is told when an error came after a part of the submission had been done."""
        if not done:
            return error
        return LedgerOutcomeUnknown(
            f"the first {len(done)} of these operations are done, the others not: submit the same again; "
            f"{error}"
        )

    def _submit(
        self, operations: Sequence[str], disclosures: Mapping[str, str], timeout_s: float | None
    ) -> list[Result]:
        since = now()
        try:
            results = self._transact(operations, disclosures, timeout_s)
        except Exception as error:
            self._watch.transaction(since, len(operations), error)
            raise
        self._watch.transaction(since, len(operations))
        self._watch.refused(one.outcome.code for one in results if not one.outcome.ok)
        return results

    def _transact(
        self, operations: Sequence[str], disclosures: Mapping[str, str], timeout_s: float | None
    ) -> list[Result]:
        transient = {DISCLOSURES: canonical(dict(disclosures))} if disclosures else None
        try:
            answer = self._contract.submit(
                "apply",
                # No document has a character that is not ASCII; what has one is refused with or without it.
                [text.encode("ascii", "replace") for text in operations],
                transient_data=transient,
                retry=self._retry,
                endorse_timeout_s=timeout_s,
                # What was done before, or is turned away without a record, names no transaction, or another.
                is_wanted=lambda tx_id, answer: tx_id.encode() in answer,
                on_commit=lambda status: self._seen(status.block_number),
                on_retry=self._retried,
            )
        except FabricError as error:
            if _is_too_large(error):
                raise TooLarge(str(error)) from error
            raise ledger_error(error) from error
        return _results(answer, len(operations))

    def _retried(self, error: FabricError) -> None:
        if isinstance(error, CommitError):
            self._watch.conflict(error.code)
        else:
            self._watch.again(error)


def ledger_error(error: FabricError) -> LedgerError:
    """The port's error for what happened to a transaction: certainly nothing, or that is not known."""
    if isinstance(error, CommitStatusError) or (isinstance(error, SubmitError) and error.outcome_unknown):
        return LedgerOutcomeUnknown(f"it is not known whether this happened: submit the same again; {error}")
    if isinstance(error, CommitError) and error.code == "DUPLICATE_TXID":
        return LedgerOutcomeUnknown(f"this was handed in twice: submit the same again; {error}")
    if isinstance(error, CommitError):
        return LedgerUnavailable(f"nothing happened on the ledger: {error}; try again later")
    if isinstance(error, EndorseError | SubmitError):
        return LedgerUnavailable(f"nothing happened on the ledger: {error}")
    return LedgerUnavailable(f"the ledger cannot be reached: {error}")


def _is_too_large(error: FabricError) -> bool:
    certain = isinstance(error, EndorseError) or (
        isinstance(error, SubmitError) and not error.outcome_unknown
    )
    return certain and any(mark in str(error) for mark in TOO_LARGE)


def _results(answer: bytes, count: int) -> list[Result]:
    """The results in the rules' answer, of so many operations."""
    try:
        return [_result(*one) for one, _ in zip(json.loads(answer), range(count), strict=True)]
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerOutcomeUnknown(
            f"the answer of the rules makes no sense: submit the same again; {error}"
        ) from error


def _result(ok: bool, code: str, detail: dict[str, Any], tx_id: str, time: float) -> Result:
    if not (isinstance(ok, bool) and isinstance(detail, dict)):
        raise TypeError("a result that is none")
    return Result(Outcome(ok, str(code), detail), str(tx_id), float(time))

"""What becomes of a batch, in the ledger's own errors; on a contract that is played, for what is rare."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tokenmesh.errors import LedgerError, LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.fabric.errors import CommitError, CommitStatusError, EndorseError, FabricError, SubmitError
from tokenmesh.fabric.gateway import NO_RETRY, Status
from tokenmesh.ledger.batching import Job, Submission
from tokenmesh.ledger.fabric.sending import PROMPT_S, Sender, ledger_error
from tokenmesh.telemetry.instruments import meters_on

TOO_LARGE = EndorseError("not endorsed: received message larger than max", code="RESOURCE_EXHAUSTED")
GONE = EndorseError("not endorsed: no peer", code="UNAVAILABLE", retryable=True)


def invalid(code: str) -> CommitError:
    return CommitError(code, transaction_id="abc", code=code, number=1, block_number=1, retryable=False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GONE, LedgerUnavailable),
        (SubmitError("refused", code="ABORTED"), LedgerUnavailable),
        (SubmitError("no answer", code="DEADLINE_EXCEEDED", outcome_unknown=True), LedgerOutcomeUnknown),
        (CommitStatusError("no block", code="DEADLINE_EXCEEDED"), LedgerOutcomeUnknown),
        (invalid("MVCC_READ_CONFLICT"), LedgerUnavailable),
        (invalid("DUPLICATE_TXID"), LedgerOutcomeUnknown),
        (FabricError("this gateway is closed"), LedgerUnavailable),
    ],
)
def test_certain_and_unknown_are_told_apart(error: FabricError, kind: type[LedgerError]) -> None:
    """And the message has what Fabric's client said."""
    found = ledger_error(error)
    assert type(found) is kind
    assert str(error) in str(found)
    assert found.retryable


class Played:
    """A contract that takes at most so many operations at once, and fails when it is told to."""

    def __init__(self, most: int = 100, fails_at: str = "", error: FabricError = GONE) -> None:
        self.most = most
        self.fails_at = fails_at
        self.error = error
        self.taken: list[list[str]] = []
        self.timeouts: list[float | None] = []

    def submit(
        self,
        name: str,
        arguments: Sequence[bytes],
        *,
        endorse_timeout_s: float | None,
        on_commit: Callable[[Status], None],
        **_: Any,
    ) -> bytes:
        self.timeouts.append(endorse_timeout_s)
        texts = [argument.decode() for argument in arguments]
        if len(texts) > self.most:
            raise TOO_LARGE
        if self.fails_at in texts:
            raise self.error
        self.taken.append(texts)
        number = len(self.taken)
        on_commit(Status(f"tx-{number}", "VALID", 0, number))
        return json.dumps([[True, "ok", {"text": text}, f"tx-{number}", 1.5] for text in texts]).encode()


def send(contract: Any, *submissions: str) -> tuple[list[Future[Any]], list[int]]:
    """Send the submissions, each a word whose letters are its operations, as one batch."""
    blocks: list[int] = []
    jobs = [
        Job[Submission](Submission(list(word), {}), Future(), len(word), len(word)) for word in submissions
    ]
    for job in jobs:
        job.future.set_running_or_notify_cancel()
    try:
        Sender(contract, NO_RETRY, blocks.append).send(jobs)
    except LedgerError as error:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)
    return [job.future for job in jobs], blocks


def texts(future: Future[Any]) -> str:
    return "".join(result.outcome.detail["text"] for result in future.result(0))


def test_each_gets_the_results_of_its_own() -> None:
    contract = Played()
    futures, blocks = send(contract, "ab", "c", "def")
    assert [texts(future) for future in futures] == ["ab", "c", "def"]
    assert contract.taken == [list("abcdef")]
    assert blocks == [1], "who reads history is told of the block"


@pytest.mark.parametrize("most", [100, 1])
def test_what_has_to_be_prompt_is_endorsed_soon_or_anew(most: int) -> None:
    """All that travels with it, and its parts, if it is cut."""
    for is_prompt, timeout_s in ((False, None), (True, PROMPT_S)):
        contract = Played(most)
        jobs = [
            Job[Submission](Submission(list("ab"), {}, prompt), Future(), 2, 2)
            for prompt in (is_prompt, False)
        ]
        Sender(contract, NO_RETRY, lambda _: None).send(jobs[:1] if most == 1 else jobs)
        assert set(contract.timeouts) == {timeout_s}
        assert texts(jobs[0].future) == "ab"


def test_a_batch_that_is_too_large_is_cut_between_submissions() -> None:
    contract = Played(most=3)
    futures, _ = send(contract, "ab", "c", "de", "f")
    assert [texts(future) for future in futures] == ["ab", "c", "de", "f"]
    assert contract.taken == [list("abc"), list("def")]


def test_a_failure_of_one_half_is_not_that_of_the_other() -> None:
    futures, _ = send(Played(most=3, fails_at="e"), "ab", "c", "de", "f")
    assert [texts(future) for future in futures[:2]] == ["ab", "c"]
    for future in futures[2:]:
        assert isinstance(future.exception(0), LedgerUnavailable)


def test_a_submission_that_is_too_large_is_cut_in_its_order() -> None:
    contract = Played(most=2)
    futures, blocks = send(contract, "abcde")
    assert texts(futures[0]) == "abcde"
    assert contract.taken == [["a", "b"], ["c"], ["d", "e"]]
    assert blocks == [1, 2, 3]


def test_a_submission_that_is_done_in_part_is_unknown_not_undone() -> None:
    """The caller submits the same again: what was done is not done twice. If nothing was, it is told so."""
    (future,), _ = send(Played(most=2, fails_at="e"), "abcde")
    error = future.exception(0)
    assert isinstance(error, LedgerOutcomeUnknown)
    assert "first 3" in str(error)
    (future,), _ = send(Played(most=2, fails_at="a"), "abcde")
    assert isinstance(future.exception(0), LedgerUnavailable)


def test_an_operation_too_large_for_any_transaction_is_an_error_for_good() -> None:
    (future,), _ = send(Played(most=0), "a")
    error = future.exception(0)
    assert type(error) is LedgerError
    assert not error.retryable


def test_conflicts_and_other_retries_are_measured_apart() -> None:
    """By the transaction's validation code, and by the kind of error."""

    class Twice(Played):
        def submit(self, *args: Any, on_retry: Callable[[FabricError], None], **kwargs: Any) -> bytes:
            on_retry(invalid("MVCC_READ_CONFLICT"))
            on_retry(GONE)
            return super().submit(*args, **kwargs)

    reader = InMemoryMetricReader()
    meters_on(MeterProvider([reader], shutdown_on_exit=False))
    try:
        (future,), _ = send(Twice(), "a")
    finally:
        meters_on()
    assert texts(future) == "a"
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name.rpartition(".")[2]: [
            (dict(one.attributes or {}), one.value) for one in metric.data.data_points
        ]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name in ("tokenmesh.ledger.conflicts", "tokenmesh.ledger.retries")
    }
    kind = {"tokenmesh.ledger.kind": "fabric"}
    assert found == {
        "conflicts": [({**kind, "tokenmesh.code": "MVCC_READ_CONFLICT"}, 1)],
        "retries": [({**kind, "error.type": "EndorseError"}, 1)],
    }

"""How the lossy scoreboard judges, from what was seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tokenmesh_benchmarks.lossy_cases import Case, Tally, bare_cases, cases, score


def judged(**seen: dict[str, int]) -> dict[str, Any]:
    tally = Tally(Case("case", 2), **{name: Counter(counts) for name, counts in seen.items()})
    return score(tally)


def test_one_payment_for_one_response_is_right() -> None:
    figures = judged(charged={"/a": 1}, answered={"/a": 1}, runs={"/a": 1}, went_out={"/a": 3})
    assert (figures["overcharged"], figures["served_free"], figures["handler_runs"]) == (0, 0, 1)
    assert figures["gave_up"] == 1, "of two calls one has no response"


def test_a_second_payment_for_one_response_is_one_too_many() -> None:
    """What another call was not charged does not make up for it."""
    seen = {"runs": {"/a": 2, "/b": 1}, "went_out": {"/a": 2, "/b": 1}}
    figures = judged(charged={"/a": 2}, answered={"/a": 1, "/b": 1}, **seen)
    assert (figures["overcharged"], figures["served_free"]) == (1, 1)


def test_a_payment_for_no_response_is_one_too_many() -> None:
    figures = judged(charged={"/a": 1}, runs={"/a": 1})
    assert (figures["overcharged"], figures["served_free"]) == (1, 0)


def test_work_that_nobody_got_is_not_served_free() -> None:
    """The payee lost its work, and gave nothing away."""
    figures = judged(charged={"/a": 1}, answered={"/a": 1}, runs={"/a": 100}, went_out={"/a": 1})
    assert (figures["served_free"], figures["handler_runs"]) == (0, 100)


def test_every_case_has_jobs_of_its_own() -> None:
    """So that what is charged is known to belong to one of them."""
    chosen = [*cases(100), *bare_cases(100)]
    assert {case.loss for case in chosen} == {0, 0.05, 0.2, 0.5}
    names = [case.name for case in cases(100)]
    assert len(names) == len(set(names)) == 10
    paths = [path for case in cases(100) for path in case.paths()]
    assert len(paths) == len(set(paths)) == 6 * 100 + 1 + 3 * 10

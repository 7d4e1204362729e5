"""Ranges of used seq: whatever the order, each number is used once, and what is kept stays small."""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmesh_chaincode.limits import LANES_MAX, RANGES_MAX
from tokenmesh_chaincode.rules.spent import Spent


def as_ranges(numbers: set[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


@given(st.lists(st.tuples(st.sampled_from(["l1", "l2"]), st.integers(0, 30)), max_size=80))
def test_ranges_are_the_numbers_that_were_used(uses: list[tuple[str, int]]) -> None:
    spent, used = Spent(None), {"l1": set[int](), "l2": set[int]()}
    for number, (lane, seq) in enumerate(uses):
        expected = "already_settled" if seq in used[lane] else None
        assert spent.use(lane, seq) == expected
        used[lane].add(seq)
        if number % 7 == 0:  # as the next operation would read it
            spent = Spent(spent.to_json())
    expected_lanes = {lane: as_ranges(numbers) for lane, numbers in used.items() if numbers}
    assert spent.to_json() == {"tokens": 0, "lanes": expected_lanes}


def test_the_record_that_was_read_is_left_as_it_was() -> None:
    record = {"tokens": 3, "lanes": {"l": [[1, 2], [5, 6]]}}
    before = copy.deepcopy(record)
    spent = Spent(record)
    for seq in (3, 4, 7, 9):
        assert spent.use("l", seq) is None
    assert record == before
    assert spent.to_json() == {"tokens": 3, "lanes": {"l": [[1, 7], [9, 9]]}}


def test_gaps_are_limited_over_all_lanes_and_can_be_closed() -> None:
    spent = Spent(None)
    for number in range(RANGES_MAX):
        assert spent.use(f"l{number % 2}", 1000 + number * 2) is None
    assert spent.use("l0", 10**6) == "too_many_ranges"
    assert spent.use("l0", 3) == "too_many_ranges"
    assert spent.use("l2", 1) == "too_many_ranges"
    assert "l2" not in spent.to_json()["lanes"]
    last = 1000 + (RANGES_MAX - 1) * 2
    assert spent.use("l1", last + 1) is None, "a range that only grows takes no room"
    assert spent.use("l0", 1001) is None
    assert spent.use("l0", 999) is None
    assert [spent.use("l0", seq) for seq in (1002, 1003)] == [None, None]
    assert spent.use("l0", 10**6) is None, "two ranges have become one"


def test_lanes_are_limited() -> None:
    spent = Spent(None)
    for number in range(LANES_MAX):
        assert spent.use(f"l{number}", 1) is None
    assert spent.use("more", 1) == "too_many_lanes"
    assert Spent(spent.to_json()).use("more", 1) == "too_many_lanes"
    assert spent.use("l0", 2) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_lane_ends_as_one_range(seed: int) -> None:
    numbers = list(range(2000))
    random.Random(seed).shuffle(numbers)
    spent = Spent(None)
    assert all(spent.use("l", number) is None for number in numbers)
    assert spent.to_json()["lanes"] == {"l": [[0, 1999]]}

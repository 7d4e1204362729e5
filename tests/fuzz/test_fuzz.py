"""Half a minute of fuzzing in every run, with the same inputs: what makes it fail is a change.

``make fuzz`` tries others. What it finds gets a test of its own, where the code is that was mended.
"""

from __future__ import annotations

import random

import pytest
from fuzz.chance import Chance
from fuzz.run import TARGETS, fuzz, opened, shares, split, target_class, try_one

INPUTS = 36_000
SEED = 20261130


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_this_run(name: str) -> None:
    """Each target gets its share. A failure names its input: ``run.py --replay NAME`` has it again."""
    with opened(name) as target:
        for number in range(shares(INPUTS, list(TARGETS))[name]):
            chance = Chance(f"{name}/{SEED}/{number}")
            try:
                try_one(target, chance)
            except Exception as error:
                error.add_note(f"replay: python tests/fuzz/run.py --replay {chance.name}")
                raise


def test_an_input_is_made_by_its_name_alone() -> None:
    """The same choices for the same name, whatever came before; others for another."""

    def choices(name: str) -> list[object]:
        chance = Chance(name)
        return [
            chance.below(10**6),
            chance.bytes(20),
            chance.spoil(b"something"),
            chance.spoil_json({"a": [1]}),
        ]

    first = repr(choices("documents/1/7"))
    random.seed(3)
    assert repr(choices("documents/1/7")) == first
    assert repr(choices("documents/1/8")) != first


def test_all_inputs_are_shared_out_once() -> None:
    """As many as were asked for, to every target, by however many processes."""
    counts = shares(1_000_003, list(TARGETS))
    assert sum(counts.values()) == 1_000_003
    assert all(counts.values())
    for processes in (1, 2, 7):
        jobs = [job for part in split(counts, 1, processes) for job in part]
        for name, count in counts.items():
            numbers = [number for job, _, part in jobs if job == name for number in part]
            assert sorted(numbers) == list(range(count))


def test_what_is_found_is_named_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect made on purpose: a document whose numbers may be of any size is found within some hundred
    inputs, and the run ends badly."""
    from tokenmesh_chaincode.documents import jws

    monkeypatch.setattr(jws, "_scan", jws._Decoder().scan_once)
    found = []
    with opened("documents") as target:
        for number in range(3_000):
            try:
                try_one(target, Chance(f"documents/1/{number}"))
            except Exception:
                found.append(number)
    assert found
    assert target_class("documents").share > 0
    assert fuzz(0, 1, ["documents"], 1) == 0
    assert "0 inputs, 0 findings" in capsys.readouterr().out

"""What the product does under 200 seeds of trouble, and that a seed is always the same story."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.plan import plan
from simulation.shrink import shrink, story
from simulation.simulation import run

TESTS = Path(__file__).parent.parent
GROUPS = 10
SEEDS = 200


@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_that_breaks_makes_a_call_cost_twice_or_work_for_nothing(group: int) -> None:
    """Of 20 seeds each: whatever is lost, killed or slow, the auditor finds nothing."""
    for seed in range(1 + group * SEEDS // GROUPS, 1 + (group + 1) * SEEDS // GROUPS):
        whole = plan(seed)
        result = run(whole)
        assert result.violation is None, "\n" + story(*shrink(whole, result))


def test_every_kind_of_trouble_is_met_in_the_seeds_of_a_run() -> None:
    """200 seeds are enough for each kind of fault to come up, and for seeds without any."""
    plans = [plan(seed) for seed in range(1, SEEDS + 1)]
    kinds = {fault.kind for each in plans for fault in each.faults}
    assert kinds >= {"lose", "double", "late", "kill", "kill at commit", "sleep", "disk", "ledger disk"}
    assert kinds >= {"ledger down", "ledger slow", "answer", "clock", "power", "crook", "same id", "stray"}
    assert any(not each.faults for each in plans)
    decrees = [decree for each in plans for decree in each.decrees]
    assert {decree.cut_short for decree in decrees} == {True, False}
    assert any(decree.operation is None for decree in decrees)
    assert any(decree.operation and decree.late_s for decree in decrees)


@pytest.mark.parametrize("seed", [2, 7, 11])
def test_a_seed_replays_exactly(seed: int) -> None:
    """The same seed is the same story to the last line, in this process and in another one, whose strings
    have other hashes: nothing depends on an order that Python does not promise."""
    here = run(plan(seed))
    assert run(plan(seed)).digest == here.digest
    imports = "from simulation.plan import plan; from simulation.simulation import run"
    program = f"{imports}; print(run(plan({seed})).digest)"
    there = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=TESTS,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
    )
    assert there.stdout.strip() == here.digest

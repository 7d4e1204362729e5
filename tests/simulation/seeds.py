"""One seed, as processes beside this one are asked to simulate it: named from there, answered in short."""

from __future__ import annotations

from typing import NamedTuple

from simulation.plan import plan
from simulation.simulation import run


class Done(NamedTuple):
    """What came of a seed."""

    seed: int
    violation: str | None
    steps: int


def simulate(seed: int) -> Done:
    """Simulate one seed."""
    result = run(plan(seed))
    return Done(seed, result.violation, result.steps)

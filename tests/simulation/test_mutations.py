"""The product, broken on purpose in every way of the list: the simulator finds each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.mutations import MUTATIONS
from simulation.plan import plan
from simulation.shrink import shrink, story
from simulation.simulation import run

SEEDS_MAX = 2_000
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "exactly-once.md"


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_broken_is_found(name: str) -> None:
    """Within 2,000 seeds there is one that fails, and it fails no more when the product is whole again."""
    with MUTATIONS[name].broken():
        seed = next((seed for seed in range(1, SEEDS_MAX + 1) if run(plan(seed)).violation is not None), None)
    assert seed is not None, f"nobody notices: {MUTATIONS[name].sentence}"
    assert run(plan(seed)).violation is None


def test_the_docs_list_every_way() -> None:
    """The page's table has each of them, and no other."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = [row.rpartition("|")[0].rpartition("|")[0].strip("| ") for row in rows]
    assert told == [f"`{each.name}` | {each.sentence}" for each in MUTATIONS.values()]


def test_a_failure_is_told_in_the_fewest_words() -> None:
    """What has nothing to do with a failure is left out of its story, and what is left still fails."""
    whole = plan(3)
    with MUTATIONS["skip_the_claim"].broken():
        result = run(whole)
        assert result.violation is not None
        short, last = shrink(whole, result)
        assert last.violation == run(short).violation
    assert len(short.jobs) == 1
    assert len(short.faults) < len(whole.faults)
    told = story(short, last)
    assert f"Which must not be: {last.violation}" in told
    assert len(told.splitlines()) < 60

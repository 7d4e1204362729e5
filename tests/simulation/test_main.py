"""``make simulate``, as somebody runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent


def simulate(*arguments: str) -> str:
    """What it says; it must find nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        check=True,
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_it_says_how_many_seeds_and_steps_it_took() -> None:
    """And nothing else, if there is nothing to say."""
    assert re.fullmatch(r"\s*4 seeds, [\d,]+ steps, \d+ s: no violations\s*", simulate("1:4"))


def test_it_tells_the_story_of_one_seed() -> None:
    """What was wanted, what went wrong, and every line of what happened."""
    told = simulate("2", "--story")
    assert told.startswith("Seed 2: ")
    assert "What was wanted:" in told
    assert re.search(r"^ +\d+\.\d{3}  (shop|desk|shop-2) +sends request 1: GET ", told, re.MULTILINE)
    assert "Which must not be: None" not in told

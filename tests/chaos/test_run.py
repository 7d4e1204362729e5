"""What a run says at its end: how it went, and if not all was well, all that one needs to look into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from chaos.run import Chaos, Report

from support.homes import TESTS

STORY = ["    0.50 s  SIGKILL alice-1 (17)", "    1.20 s  SIGSTOP payee (18), until 1.90 s"]
COUNTS = {"deeds": 2, "contracts settled": 1_000}


def test_a_run_in_which_all_adds_up_is_a_line() -> None:
    """With seed and ledger, and with how much happened: a run of nothing proves nothing."""
    said = str(Report(7, "embedded", "flask", STORY, COUNTS, []))
    assert said == (
        "embedded ledger, payee on flask, seed 7: everything adds up (2 deeds, 1,000 contracts settled)"
    )


def test_a_run_that_went_wrong_says_what_was_done_and_what_is_wrong() -> None:
    said = str(Report(7, "fabric", "flask", STORY, COUNTS, ["supply: one token too many"]))
    assert "seed 7: NOT everything adds up" in said
    assert said.index(STORY[0]) < said.index(STORY[1]) < said.index("  supply: one token too many")


def test_a_run_that_broke_off_has_a_report_too(tmp_path: Path) -> None:
    """Here a file lies where its folder should be."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    report = Chaos("embedded", 7, 5.0, in_the_way, lambda line: None).run()
    assert len(report.wrong) == 1
    assert report.wrong[0].startswith("the run broke off: Traceback")


def test_too_short_a_run_is_refused() -> None:
    """Not everyone would have had a turn."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--seconds", "1", "--ledger", "embedded"],
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "5 seconds is the least" in done.stderr

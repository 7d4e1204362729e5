"""The lossy scoreboard: a small one of tokenmesh's own, and what it says of itself.

The peers are not run here: to install them takes longer than all of this.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tokenmesh_benchmarks import lossy_page
from tokenmesh_benchmarks.lossy import SYSTEMS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "lossy.py"
PAGE = ROOT / "docs" / "explanation" / "scoreboard.md"
PLOT = ROOT / "docs" / "images" / "lossy.svg"
FIGURES = {"calls", "overcharged", "handler_runs", "stranded_tokens", "served_free", "gave_up", "errors"}


@pytest.mark.slow
@pytest.mark.timeout(300)  # twenty seconds, unless everybody else runs too
def test_nothing_is_lost_by_tokenmesh(tmp_path: Path) -> None:
    """Every case, with real processes over a real wire: 0 where it should be, and all work is done once."""
    plot = tmp_path / "plot.svg"
    command = [sys.executable, str(SCRIPT), "--json", "--systems", "tokenmesh_embedded", "--calls", "10"]
    done = subprocess.run(
        [*command, "--plot", str(plot)], capture_output=True, text=True, check=True, timeout=280
    )
    (system,) = json.loads(done.stdout).values()
    assert "tokenmesh on embedded: lossy_50_naive" in done.stderr
    for case, figures in system.items():
        assert figures.keys() == FIGURES
        lost = [figures[name] for name in ("overcharged", "stranded_tokens", "served_free")]
        assert lost == [0, 0, 0], (case, figures)
        jobs = 1 if case == "copies" else figures["calls"]
        assert figures["handler_runs"] == jobs, (case, figures)
        assert figures["gave_up"] == (jobs if case == "failing_handler" else 0), (case, figures)
    assert system["lossy_50_own"]["calls"] == 10
    assert system["copies"]["calls"] == 100
    assert {"other_request", "failing_handler", "lost_settlement"} < system.keys()
    ElementTree.fromstring(plot.read_text())


def test_a_system_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--systems", "x403"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "x403" in done.stderr
    assert all(name in done.stderr for name in SYSTEMS)


def test_without_fabric_one_line_says_what_is_missing(tmp_path: Path) -> None:
    """Before anything is measured that takes its time."""
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Go" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_the_plot_in_the_docs_is_that_of_the_table() -> None:
    """Both were made by the benchmark, and by the same run of it."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [\d,]+ \| ([\d,]+) \|", PAGE.read_text(), re.MULTILINE)
    titles = {title for _, title, _ in rows}
    assert {"tokenmesh, embedded ledger", "x402", "pympp"} < titles <= set(lossy_page.TITLES.values())
    said = ElementTree.fromstring(PLOT.read_text()).attrib["aria-label"]
    shown = [
        (lossy_page.GROUPS[case], title, overcharged)
        for case, title, overcharged in rows
        if case in lossy_page.GROUPS
    ]
    assert len(shown) == len(lossy_page.GROUPS) * len(titles)
    for group, title, overcharged in shown:
        assert re.search(rf"{re.escape(f'{title} at {group}: {overcharged}')}[;.]", said)


def test_the_docs_say_what_was_measured() -> None:
    """tokenmesh is at 0 in the published table, in each of the three columns; retries switched off apart."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    own = [row for row in rows if row[1] in ("tokenmesh, embedded ledger", "tokenmesh, Fabric")]
    assert len(own) == 10 * len({row[1] for row in own})
    assert {(row[3], row[5], row[6]) for row in own} == {("0", "0", "0")}

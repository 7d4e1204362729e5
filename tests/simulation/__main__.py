"""``make simulate SEEDS=1:1000``: simulate these seeds on all processors, and tell the story of what fails.

One seed alone (``SEEDS=17``) is told whether it fails or not, with ``--story`` shortened or whole.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.plan import plan
from simulation.seeds import Done, simulate
from simulation.shrink import shrink, story
from simulation.simulation import run

STORIES_MAX = 3
"""Failures that are shortened and told; of more, only the seeds are."""


def main(arguments: list[str] | None = None) -> int:
    """Simulate what the command line says; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="1:1000", help="FIRST:LAST, or one seed")
    parser.add_argument("--story", action="store_true", help="tell everything that happens, for one seed")
    given = parser.parse_args(arguments)
    first, _, last = given.seeds.partition(":")
    seeds = range(int(first), int(last or first) + 1)
    console = Console(highlight=False, soft_wrap=True)
    if given.story:
        return _tell(console, seeds[0])
    began = time.monotonic()
    failed, steps = _simulate_all(console, seeds)
    took_s = time.monotonic() - began
    console.print(f"{len(seeds):,} seeds, {steps:,} steps, {took_s:,.0f} s: {len(failed) or 'no'} violations")
    for done in failed[:STORIES_MAX]:
        whole = plan(done.seed)
        console.print()
        console.print(story(*shrink(whole, run(whole))), markup=False)
    if failed:
        console.print(f"seeds that fail: {' '.join(str(done.seed) for done in failed)}")
    return int(bool(failed))


def _simulate_all(console: Console, seeds: range) -> tuple[list[Done], int]:
    failed: list[Done] = []
    steps = 0
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with (
        get_context("spawn").Pool(min(os.cpu_count() or 1, len(seeds))) as pool,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(seeds))
        for done in pool.imap_unordered(simulate, seeds, chunksize=5 if len(seeds) > 50 else 1):
            steps += done.steps
            if done.violation is not None:
                failed.append(done)
                console.print(f"seed {done.seed}: {done.violation}", markup=False)
            progress.update(task, advance=1, description=f"{steps:,} steps, {len(failed)} violations")
    return sorted(failed), steps


def _tell(console: Console, seed: int) -> int:
    whole = plan(seed)
    result = run(whole)
    console.print(story(whole, result), markup=False)
    return int(result.violation is not None)


if __name__ == "__main__":
    sys.exit(main())

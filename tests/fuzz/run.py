"""``make fuzz``: inputs for every target, on every core, and a name for whatever is found.

    python tests/fuzz/run.py --inputs 1000000 --seed 1 [--only documents] [--replay documents/1/123]

Ends with 1 if anything was found. An input's name (target/seed/number) says all that is needed to have it
again: ``--replay`` runs it alone.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.chance import Chance
from fuzz.target import Target

TARGETS: Final = {
    "documents": ("documents", "Documents"),
    "flask": ("http", "OnFlask"),
    "fastapi": ("http", "OnFastAPI"),
    "consumer": ("consumer", "OfConsumer"),
    "shim": ("shim", "Shim"),
    "gateway": ("gateway", "OfGateway"),
    "blocks": ("blocks", "Blocks"),
    "rules": ("rules", "Rules"),
    "ledger": ("ledger", "Ledger"),
}
"""Each target's module and class."""
FOUND_MAX: Final = 20
"""So many findings of one target end its turn."""
INPUT_S_MAX: Final = 5.0
"""CPU time of one input, in seconds: a thousand times what a slow one takes."""


def target_class(name: str) -> type[Target]:
    module, class_name = TARGETS[name]
    found: type[Target] = getattr(importlib.import_module(f"fuzz.targets.{module}"), class_name)
    return found


@contextmanager
def opened(name: str) -> Iterator[Target]:
    """A target with a place of its own."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as directory:
        target = target_class(name)(Path(directory))
        try:
            yield target
        finally:
            target.close()


def shares(inputs: int, names: Sequence[str]) -> dict[str, int]:
    """How many inputs each target gets, of so many in all."""
    weights = {name: target_class(name).share for name in names}
    whole = sum(weights.values())
    counts = {name: inputs * weight // whole for name, weight in weights.items()}
    counts[names[0]] += inputs - sum(counts.values())
    return counts


def inputs_of(name: str, seed: int, numbers: range) -> Iterator[Chance]:
    return (Chance(f"{name}/{seed}/{number}") for number in numbers)


class TooSlow(Exception):
    """One input has taken more than its time."""


def _stop(_signal: int, _frame: object) -> None:
    raise TooSlow(f"more than {INPUT_S_MAX} s of CPU")


def try_one(target: Target, chance: Chance) -> None:
    """Have a target take one input, which must not keep the processor busy for long."""
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, INPUT_S_MAX)
    try:
        target.one(chance)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def work(jobs: Sequence[tuple[str, int, range]], said: Queue[Any]) -> None:
    """One process: its part of each target's inputs; tells what was done and what was found."""
    logging.disable()
    for name, seed, numbers in jobs:
        found = 0
        with opened(name) as target:
            done, told = 0, time.monotonic()
            for chance in inputs_of(name, seed, numbers):
                try:
                    try_one(target, chance)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # whatever it is
                    said.put(("found", chance.name, traceback.format_exc(limit=-6)))
                    found += 1
                done += 1
                if time.monotonic() > told + 1:
                    said.put(("done", name, done))
                    done, told = 0, time.monotonic()
                if found >= FOUND_MAX:
                    break
            said.put(("done", name, done))
    said.put(("end", "", 0))


def split(counts: dict[str, int], seed: int, processes: int) -> list[list[tuple[str, int, range]]]:
    """The jobs of each process: every target's numbers in as many parts, begun at different targets."""
    parts = []
    for part in range(processes):
        jobs = [
            (name, seed, range(count * part // processes, count * (part + 1) // processes))
            for name, count in counts.items()
        ]
        turn = len(jobs) * part // processes
        parts.append(jobs[turn:] + jobs[:turn])
    return parts


def fuzz(inputs: int, seed: int, names: Sequence[str], processes: int) -> int:
    """Run it all, with a line of progress; how much was found."""
    counts = shares(inputs, names)
    context = get_context("spawn")
    said: Queue[Any] = context.Queue()
    workers = [context.Process(target=work, args=(jobs, said)) for jobs in split(counts, seed, processes)]
    for worker in workers:
        worker.start()
    begun, done, found, ends = time.monotonic(), Counter[str](), 0, 0
    while ends < len(workers):
        kind, what, more = said.get()
        if kind == "found":
            found += 1
            print(f"\nfound {what}\n{more}", flush=True)
        elif kind == "done":
            done[what] += more
            progress(sum(done.values()), inputs, found, time.monotonic() - begun)
        else:
            ends += 1
    for worker in workers:
        worker.join()
    print()
    for name in names:
        print(f"{name:<12}{done[name]:>10,} inputs")
    print(f"{sum(done.values()):,} inputs, {found} findings, {time.monotonic() - begun:.0f} s, seed {seed}")
    return found


def progress(done: int, inputs: int, found: int, seconds: float) -> None:
    end = "\r" if sys.stdout.isatty() else "\n"
    print(f"{done:>10,} of {inputs:,} inputs, {found} found, {seconds:.0f} s", end=end, flush=True)


def replay(name: str) -> None:
    with opened(name.partition("/")[0]) as target:
        try_one(target, Chance(name))
    print(f"{name}: nothing found")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz everything that strangers can reach.")
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, metavar="N")
    parser.add_argument("--only", action="append", choices=TARGETS, metavar="TARGET")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--replay", metavar="NAME")
    given = parser.parse_args()
    if given.replay:
        replay(given.replay)
        return 0
    return int(fuzz(given.inputs, given.seed, given.only or list(TARGETS), given.processes) > 0)


if __name__ == "__main__":
    raise SystemExit(main())

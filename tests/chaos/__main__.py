"""``make chaos``: one run a ledger, told line by line; exit 1 if something does not add up."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from chaos.grounds import FABRIC, KINDS
from chaos.run import Chaos

from tokenmesh.fabric.network import available, find_tools

SECONDS_MIN = 5.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of trouble, on each ledger")
    parser.add_argument("--seed", type=int, default=None, help="left out: the time")
    parser.add_argument("--ledger", choices=(*KINDS, "both"), default="both")
    given = parser.parse_args()
    if given.seconds < SECONDS_MIN:
        parser.error(f"{SECONDS_MIN:g} seconds is the least: else not everyone has had a turn")
    return given


def tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> int:
    given = arguments()
    seed = int(time.time()) if given.seed is None else given.seed
    kinds = KINDS if given.ledger == "both" else (given.ledger,)
    if FABRIC in kinds:
        missing = available()
        if missing is not None:
            print(missing, file=sys.stderr)
            return 2
        find_tools(lambda what, done: None)
    well = True
    for kind in kinds:
        folder = Path(tempfile.mkdtemp(prefix=f"tokenmesh-chaos-{kind}-"))
        report = Chaos(kind, seed, given.seconds, folder, tell).run()
        print(report, flush=True)
        if report.wrong:
            well = False
            print(f"to do the same again: make chaos SECONDS={given.seconds:g} SEED={seed} LEDGER={kind}")
            print(f"what everyone noted and said, ledger and journal: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

"""The tracing backend of the tests, built once with Go into tokenmesh's cache, as ``tests/jaeger`` pins it.

    python tests/support/jaeger_build.py

builds it beforehand: ``make test`` does so in the background, and only the tests that need it wait.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tokenmesh.fabric.errors import ToolsMissing
from tokenmesh.fabric.network.gobuild import (
    Progress,
    build_into,
    cache_folder,
    check_go,
    compile_packages,
    packages_in,
    run_go,
)

VERSION = "2.13.0"
MODULE = "github.com/jaegertracing/jaeger"
PROGRAM = f"{MODULE}/cmd/jaeger"
PINS = Path(__file__).parent.parent / "jaeger"
OPTIONS = ("-mod=mod",)


def find_jaeger(progress: Progress, environ: Mapping[str, str] = os.environ) -> Path:
    """The program: ``JAEGER_BIN``, or the one in the cache, built if it isn't there (4 to 6 minutes).

    Raises :class:`ToolsMissing` with one line that says what is missing and how to get it.
    """
    if chosen := environ.get("JAEGER_BIN"):
        if not Path(chosen).is_file():
            raise ToolsMissing(f"JAEGER_BIN is {chosen}, and there is no program: name Jaeger {VERSION}'s")
        return Path(chosen)
    cache = _cache(environ)
    if not cache.is_dir():
        _build(cache, progress, environ)
    return cache / "jaeger"


def available(environ: Mapping[str, str] = os.environ) -> str | None:
    """None if it is there or can be built; else the one line that says what is missing."""
    try:
        if not environ.get("JAEGER_BIN") and not _cache(environ).is_dir():
            _check(environ)
    except ToolsMissing as error:
        return str(error)
    return None


def _cache(environ: Mapping[str, str]) -> Path:
    return cache_folder(f"jaeger-{VERSION}", [PINS / "go.mod", PINS / "go.sum"], environ)


def _check(environ: Mapping[str, str]) -> None:
    check_go("Jaeger is missing", f", or set JAEGER_BIN to the program of Jaeger {VERSION}", environ)


def _build(cache: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    _check(environ)
    with build_into(cache, "Jaeger", progress) as stage:
        if stage is None:
            return
        progress("Fetching the sources of Jaeger", None)
        shutil.copytree(PINS, stage / "source")
        said = json.loads(run_go(["mod", "download", "-json", MODULE], stage / "source", environ))
        # Go has compared the module with the hash in ours, so the hashes that lie in it can be relied on.
        with (stage / "source" / "go.sum").open("ab") as pins:
            pins.write((Path(said["Dir"]) / "go.sum").read_bytes())
        total = packages_in([PROGRAM], OPTIONS, stage / "source", environ)
        what = f"Building Jaeger {VERSION} (once; about five minutes)"
        compile_packages(
            [PROGRAM],
            OPTIONS,
            stage / "tools",
            lambda seen: progress(what, min(seen / total, 0.99)),
            what="Jaeger",
            source=stage / "source",
            environ=environ,
        )
        progress(what, 1.0)


def main() -> int:
    """Build it, saying how far that is at every tenth."""
    tenths = -1

    def report(what: str, done: float | None) -> None:
        nonlocal tenths
        if done is None or int(done * 10) > tenths:
            tenths = -1 if done is None else int(done * 10)
            print(what if done is None else f"{what}: {done:.0%}", flush=True)

    try:
        print(find_jaeger(report))
    except ToolsMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Go programs built once into a cache: one builder at a time, whole or not at all, with progress."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tokenmesh.fabric.errors import ToolsMissing

GO_OLDEST = (1, 21)
"""From here on, Go fetches the newer version of itself that a go.mod asks for."""
BUILD_TIMEOUT_S = 1800
ERROR_LINES_MAX = 20

Progress = Callable[[str, float | None], None]
"""Told what is being done, and how far it is (0 to 1; None where that isn't known)."""


def cache_folder(name: str, pins: Iterable[Path], environ: Mapping[str, str] = os.environ) -> Path:
    """Where programs pinned by these files are kept: a newer pin is a new build and never a mixture."""
    root = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmesh"
    pinned = hashlib.sha256()
    for pin in pins:
        pinned.update(pin.read_bytes())
    return root / f"{name}-{pinned.hexdigest()[:12]}"


def check_go(missing: str, instead: str, environ: Mapping[str, str]) -> None:
    """Raise :class:`ToolsMissing`, in one line, if there is no Go that could build what is ``missing``.

    ``instead`` is what else one could do about it, after a comma.
    """
    advice = f"install Go 1.24 or newer{instead}"
    if shutil.which("go", path=environ.get("PATH", "")) is None:
        raise ToolsMissing(f"{missing}, and so is Go to build with: {advice}")
    said = run_go(["version"], Path.cwd(), environ)
    version = re.search(r"go(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < GO_OLDEST:
        raise ToolsMissing(f"{missing}, and this Go is too old to build with ({said.strip()}): {advice}")


@contextmanager
def build_into(cache: Path, what: str, progress: Progress) -> Iterator[Path | None]:
    """A folder to build in, which becomes ``cache`` once all went well: its subfolder ``tools`` does.

    None if another process has built it while this one waited.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    with _lock(cache, what, progress):
        if cache.is_dir():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix="building-") as made:
            stage = Path(made)
            yield stage
            (stage / "tools").rename(cache)


@contextmanager
def _lock(cache: Path, what: str, progress: Progress) -> Iterator[None]:
    with Path(f"{cache}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"Another process is building {what}; waiting for it", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def packages_in(
    packages: Sequence[str], options: Sequence[str], source: Path, environ: Mapping[str, str]
) -> int:
    """Of how many packages these are built."""
    return len(run_go(["list", *options, "-deps", *packages], source, environ).split())


def compile_packages(
    packages: Sequence[str],
    options: Sequence[str],
    target: Path,
    seen: Callable[[int], None],
    *,
    what: str,
    source: Path,
    environ: Mapping[str, str],
) -> None:
    """Compile into the folder ``target``; ``seen`` hears how many packages Go has got to."""
    # No debug information: half the size, and less to wait for.
    command = ["go", "build", *options, "-v", "-trimpath", "-ldflags=-s -w", "-o", f"{target}/", *packages]
    with subprocess.Popen(
        command, cwd=source, env=_environment(environ), stderr=subprocess.PIPE, text=True
    ) as process:
        said = _follow(process.stderr, seen)
    if process.returncode != 0:
        raise ToolsMissing(f"Go could not build {what}:\n" + "\n".join(said))


def _follow(lines: IO[str] | None, seen: Callable[[int], None]) -> list[str]:
    """Count the packages that go by; keep the last lines for an error."""
    kept: list[str] = []
    for count, line in enumerate(lines or (), start=1):
        kept = [*kept[-ERROR_LINES_MAX:], line.rstrip()]
        seen(count)
    return kept


def run_go(arguments: Sequence[str], source: Path, environ: Mapping[str, str]) -> str:
    """What ``go`` prints in the folder ``source``; :class:`ToolsMissing` if it fails."""
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=source,
            env=_environment(environ),
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolsMissing(
            f"go {arguments[0]} took more than {BUILD_TIMEOUT_S} s; is the module proxy slow?"
        ) from error
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-ERROR_LINES_MAX:])
        raise ToolsMissing(
            f"go {arguments[0]} failed; is Go 1.24 or newer, and the module proxy in reach?\n{tail}"
        )
    return done.stdout


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {**environ, "GOWORK": "off", "GO111MODULE": "on"}

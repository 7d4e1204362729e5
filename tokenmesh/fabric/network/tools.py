"""Fabric's own programs: found where they are installed, or built once with Go into a cache.

Four are needed: ``peer``, ``orderer``, ``configtxgen`` and ``fabric-ca-server``. What ``osnadmin``,
``cryptogen`` and ``fabric-ca-client`` would do is done in Python. The build is pinned by ``go.mod`` and
``go.sum``; the cache's folder is named after their hash, so a newer pin is a new build and never a mixture.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

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

PROGRAMS = ("peer", "orderer", "configtxgen", "fabric-ca-server")
MODULES = {
    ".": [f"github.com/hyperledger/fabric/cmd/{name}" for name in ("peer", "orderer", "configtxgen")],
    "ca": ["github.com/hyperledger/fabric-ca/cmd/fabric-ca-server"],
}
"""What is built in which folder of ``chaincode/network``: each has a go.mod and go.sum of its own."""
SAMPLES = ("core.yaml", "orderer.yaml")
FABRIC_MODULE = "github.com/hyperledger/fabric"
FABRIC_VERSION = "3.1.1"
OPTIONS = ("-tags", "noplugin,netgo,osusergo")


class Tools(NamedTuple):
    """Paths of Fabric's programs, and the folder with its sample ``core.yaml`` and ``orderer.yaml``."""

    peer: Path
    orderer: Path
    configtxgen: Path
    fabric_ca_server: Path
    samples: Path


def find_tools(progress: Progress, environ: Mapping[str, str] = os.environ) -> Tools:
    """Fabric's programs from ``FABRIC_BIN``, PATH or the cache; built into the cache if they are in none.

    Raises :class:`ToolsMissing` with one line that says what is missing and how to get it.
    """
    installed = _installed(environ)
    if installed is not None:
        return installed
    cache = _cache_folder(environ)
    if not (cache / "bin").is_dir():
        _build(cache, progress, environ)
    return _tools(cache / "bin", cache / "config")


def available(environ: Mapping[str, str] = os.environ) -> str | None:
    """None if the programs are there or can be built; else the one line that says what is missing."""
    try:
        if _installed(environ) is None and not (_cache_folder(environ) / "bin").is_dir():
            _check_compilers(environ)
    except ToolsMissing as error:
        return str(error)
    return None


def assets() -> Path:
    """The folder ``chaincode/network``: what pins Fabric, channel and organisation profiles, the builder."""
    return Path(str(importlib.resources.files("tokenmesh.fabric.network"))) / "assets"


def _installed(environ: Mapping[str, str]) -> Tools | None:
    """The programs in FABRIC_BIN, or all of them on PATH, with the samples that Fabric's releases ship."""
    chosen = environ.get("FABRIC_BIN")
    if chosen:
        folder = Path(chosen)
        missing = [name for name in PROGRAMS if not (folder / name).is_file()]
        if missing:
            raise ToolsMissing(
                f"FABRIC_BIN is {chosen}, but {', '.join(missing)} is not in there; "
                f"put Fabric {FABRIC_VERSION}'s and fabric-ca's programs there, or unset it to build them"
            )
        return _tools(folder, _samples_beside(folder, environ))
    paths = [shutil.which(name, path=environ.get("PATH", "")) for name in PROGRAMS]
    if not all(paths) or not _is_fabric_3(str(paths[0])):
        return None
    try:
        samples = _samples_beside(Path(str(paths[0])).resolve().parent, environ)
    except ToolsMissing:
        return None
    peer, orderer, configtxgen, ca = (Path(str(path)) for path in paths)
    return Tools(peer, orderer, configtxgen, ca, samples)


def _tools(folder: Path, samples: Path) -> Tools:
    peer, orderer, configtxgen, ca = (folder / name for name in PROGRAMS)
    return Tools(peer, orderer, configtxgen, ca, samples)


def _samples_beside(folder: Path, environ: Mapping[str, str]) -> Path:
    """Where core.yaml and orderer.yaml lie: FABRIC_CFG_PATH, or beside the programs as in releases."""
    named = environ.get("FABRIC_CFG_PATH")
    places = [
        *([Path(named)] if named else []),
        folder.parent / "config",
        folder.parent / "sampleconfig",
        folder,
    ]
    for place in places:
        if all((place / name).is_file() for name in SAMPLES):
            return place
    raise ToolsMissing(
        f"Fabric's core.yaml and orderer.yaml are not beside its programs ({folder}); "
        "name their folder with FABRIC_CFG_PATH"
    )


def _is_fabric_3(peer: str) -> bool:
    """Whether the program says that it is Fabric 3: others may be called ``peer`` too."""
    try:
        said = subprocess.run(
            [peer, "version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(r"^ Version: v?3\.", said, re.MULTILINE) is not None


def _cache_folder(environ: Mapping[str, str]) -> Path:
    return cache_folder(f"fabric-{FABRIC_VERSION}", [assets() / pin for pin in _pins()], environ)


def _pins() -> list[Path]:
    return [Path(folder) / name for folder in MODULES for name in ("go.mod", "go.sum")]


def _check_compilers(environ: Mapping[str, str]) -> None:
    named = f"set FABRIC_BIN to a folder with {', '.join(PROGRAMS)}"
    check_go("Fabric's programs are missing", f", or {named}", environ)
    path = environ.get("PATH", "")
    if shutil.which("cc", path=path) is None and shutil.which("gcc", path=path) is None:
        raise ToolsMissing(
            f"building fabric-ca-server needs a C compiler for its SQLite: install gcc, or {named}"
        )


def _build(cache: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    """Build all programs into ``cache``."""
    _check_compilers(environ)
    # SQLite lightly optimised: much less to wait for.
    environ = {**environ, "CGO_ENABLED": "1", "CGO_CFLAGS": "-O1"}
    with build_into(cache, "Fabric", progress) as stage:
        if stage is None:
            return
        source = stage / "source"
        for pin in _pins():
            (source / pin).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(assets() / pin, source / pin)
        _compile(source, stage / "tools" / "bin", progress, environ)
        module = run_go(["list", "-m", "-f", "{{.Dir}}", FABRIC_MODULE], source, environ).strip()
        (stage / "tools" / "config").mkdir()
        for name in SAMPLES:
            # Not copy: files of the module cache are read-only, and these are ours to remove.
            (stage / "tools" / "config" / name).write_bytes(
                (Path(module) / "sampleconfig" / name).read_bytes()
            )


def _compile(source: Path, target: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    target.mkdir(parents=True)
    progress("Fetching the sources of Fabric and fabric-ca", None)
    totals = {
        folder: packages_in(packages, OPTIONS, source / folder, environ)
        for folder, packages in MODULES.items()
    }
    what = f"Building Fabric {FABRIC_VERSION} and fabric-ca (once; about two minutes)"
    before, total = 0, sum(totals.values())
    for folder, packages in MODULES.items():
        seen = partial(_report, progress, what, before, total)
        compile_packages(
            packages, OPTIONS, target, seen, what="Fabric", source=source / folder, environ=environ
        )
        before += totals[folder]
    progress(what, 1.0)


def _report(progress: Progress, what: str, before: int, total: int, seen: int) -> None:
    progress(what, min((before + seen) / total, 0.99))

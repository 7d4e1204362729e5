"""Fabric's programs: found, or built once. A script plays Go here; the fixtures elsewhere really build."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenmesh.fabric.errors import ToolsMissing
from tokenmesh.fabric.network.tools import PROGRAMS, SAMPLES, available, find_tools

GO = """#!/bin/sh
echo "$PWD: $@" >>"$GO_CALLS"
[ -z "$GO_FAILS" ] || [ "$1" != "$GO_FAILS" ] || {{ echo "it went wrong" >&2; exit 1; }}
case "$1" in
  version) echo "go version go${{GO_VERSION:-1.24.2}} linux/amd64";;
  list) case "$*" in *-deps*) printf 'a\\nb\\nc\\n';; *) echo "{module}";; esac;;
  build)
    for last; do :; done
    while [ "$1" != -o ]; do shift; done; target=$2; shift 2
    for package; do echo "$package" >&2; echo '#!/bin/sh' >"$target${{package##*/}}"; done;;
esac
"""
PEER = "#!/bin/sh\nprintf 'peer:\\n Version: {version}\\n'\n"


def program(path: Path, content: str = "#!/bin/sh\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def release(folder: Path, version: str = "v3.1.1") -> Path:
    """A folder as Fabric's releases unpack to."""
    for name in PROGRAMS:
        program(folder / "bin" / name, PEER.format(version=version))
    for name in SAMPLES:
        program(folder / "config" / name)
    return folder / "bin"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine with a shell and nothing else."""
    return {
        "PATH": "/nowhere",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GO_CALLS": str(tmp_path / "calls"),
    }


@pytest.fixture
def with_go(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same with Go and a C compiler."""
    module = tmp_path / "module"
    for name in SAMPLES:
        program(module / "sampleconfig" / name, f"# {name}\n")
    program(tmp_path / "go" / "go", GO.format(module=module))
    program(tmp_path / "go" / "cc")
    return {**environ, "PATH": f"{tmp_path / 'go'}:/usr/bin:/bin"}


@pytest.fixture
def told() -> list[tuple[str, float | None]]:
    return []


@pytest.fixture
def tell(told: list[tuple[str, float | None]]) -> Callable[[str, float | None], None]:
    return lambda what, done: told.append((what, done))


def quiet(what: str, done: float | None) -> None:
    """Progress that nobody looks at."""


def test_fabric_bin_goes_before_everything(environ: dict[str, str], tmp_path: Path) -> None:
    """With the samples beside it, or where FABRIC_CFG_PATH says."""
    bin_folder = release(tmp_path / "fabric")
    tools = find_tools(quiet, {**environ, "FABRIC_BIN": str(bin_folder)})
    assert tools.peer == bin_folder / "peer"
    assert tools.fabric_ca_server == bin_folder / "fabric-ca-server"
    assert tools.samples == tmp_path / "fabric" / "config"
    (tmp_path / "fabric" / "config").rename(tmp_path / "elsewhere")
    with pytest.raises(ToolsMissing, match="name their folder with FABRIC_CFG_PATH"):
        find_tools(quiet, {**environ, "FABRIC_BIN": str(bin_folder)})
    moved = {**environ, "FABRIC_BIN": str(bin_folder), "FABRIC_CFG_PATH": str(tmp_path / "elsewhere")}
    assert find_tools(quiet, moved).samples == tmp_path / "elsewhere"


def test_a_fabric_bin_that_lacks_something_is_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    """It was named on purpose: nothing else is taken in its place."""
    bin_folder = release(tmp_path / "fabric")
    (bin_folder / "orderer").unlink()
    with pytest.raises(ToolsMissing, match=r"FABRIC_BIN is .*, but orderer is not in there; .* or unset it"):
        find_tools(quiet, {**environ, "FABRIC_BIN": str(bin_folder)})
    assert "orderer is not in there" in str(available({**environ, "FABRIC_BIN": str(bin_folder)}))


def test_programs_on_the_path_are_taken_if_they_are_fabric_3(with_go: dict[str, str], tmp_path: Path) -> None:
    """Others of these names, and older ones, are left alone: Go builds the right ones."""
    new, old = release(tmp_path / "new"), release(tmp_path / "old", "2.5.9")
    path = with_go["PATH"]
    assert find_tools(quiet, {**with_go, "PATH": f"{new}:{path}"}).peer == new / "peer"
    assert find_tools(quiet, {**with_go, "PATH": f"{old}:{path}"}).peer.is_relative_to(tmp_path / "cache")


def test_without_programs_and_go_one_line_says_what_to_do(environ: dict[str, str], tmp_path: Path) -> None:
    line = available(environ)
    assert line is not None
    assert "\n" not in line
    assert "install Go 1.24 or newer" in line
    assert "FABRIC_BIN" in line
    with pytest.raises(ToolsMissing, match="install Go"):
        find_tools(quiet, environ)


def test_what_go_lacks_is_said(with_go: dict[str, str], tmp_path: Path) -> None:
    assert "too old to build with (go version go1.19.8" in str(available({**with_go, "GO_VERSION": "1.19.8"}))
    assert available({**with_go, "GO_VERSION": "1.30"}) is None
    only_go = tmp_path / "only"
    program(only_go / "go", (tmp_path / "go" / "go").read_text())
    assert "install gcc" in str(available({**with_go, "PATH": str(only_go)}))


def test_go_builds_once_with_progress(
    with_go: dict[str, str],
    tmp_path: Path,
    told: list[tuple[str, float | None]],
    tell: Callable[[str, float | None], None],
) -> None:
    """All programs and the samples, in one folder of the cache; the next time nothing is done."""
    assert available(with_go) is None
    tools = find_tools(tell, with_go)
    assert all(path.is_file() for path in tools[:4])
    assert (tools.samples / "core.yaml").read_text() == "# core.yaml\n"
    shares = [done for _, done in told if done is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    calls = (tmp_path / "calls").read_text()
    told.clear()
    assert find_tools(tell, with_go) == tools
    assert told == []
    assert (tmp_path / "calls").read_text() == calls


@pytest.mark.parametrize("step", ["list", "build"])
def test_a_build_that_fails_leaves_nothing_behind(with_go: dict[str, str], tmp_path: Path, step: str) -> None:
    """It says what Go said; the next one begins anew."""
    with pytest.raises(ToolsMissing, match="it went wrong"):
        find_tools(quiet, {**with_go, "GO_FAILS": step})
    assert [path.suffix for path in (tmp_path / "cache" / "tokenmesh").iterdir()] == [".lock"]
    assert find_tools(quiet, with_go).peer.is_file()


def test_two_builders_do_not_collide(with_go: dict[str, str], tmp_path: Path) -> None:
    """The second waits, and then finds everything there."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find_tools(quiet, with_go), range(4)))
    assert len(set(found)) == 1
    assert (tmp_path / "calls").read_text().count(": build ") == 2


def test_who_waits_for_another_builder_is_told(
    with_go: dict[str, str],
    tmp_path: Path,
    told: list[tuple[str, float | None]],
) -> None:
    """The lock is another's until the waiting has been told."""
    first = find_tools(quiet, with_go)
    cache = first.peer.parent.parent
    cache.rename(tmp_path / "away")
    with Path(f"{cache}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def tell(what: str, done: float | None) -> None:
            told.append((what, done))
            (tmp_path / "away").rename(cache)
            fcntl.flock(lock, fcntl.LOCK_UN)

        assert find_tools(tell, with_go) == first
    assert told == [("Another process is building Fabric; waiting for it", None)]

"""``tokenmesh demo``, as a user runs it: real processes, real trouble, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

from support import demo_traces, jaeger_build
from support.cli import Cli
from support.collector import collecting
from support.dashboards import ON_BAD_DAYS, Metric, exported, metrics, unanswered
from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.plan import NAMES
from tokenmesh.fabric.network import available

SCRIPT = Path(sys.executable).parent / "tokenmesh"
NOTHING_THERE = "http://127.0.0.1:9"
PROMISED = {
    *("ok", "calls", "paid", "retries", "overcharged", "double_runs", "stranded_tokens", "verify"),
    *("p50_ms", "p99_ms", "wallets"),
}


@contextmanager
def started(tmp_path: Path, *args: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """The demo, told by its environment to put temporary files into ``tmp_path``: its children inherit it."""
    demo = subprocess.Popen(
        [SCRIPT, "demo", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm"},
    )
    try:
        yield demo
    finally:
        demo.terminate()
        demo.communicate(timeout=30)


def left_behind(tmp_path: Path) -> list[str]:
    """Processes that were started under this temporary directory and still run."""
    mark = f"TMPDIR={tmp_path}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # ended meanwhile, or somebody else's
    return found


def wait_until_all_are_gone(tmp_path: Path, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while left := left_behind(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def read_until(screen: FileIO, words: bytes) -> bytes:
    """All that the terminal gets until it gets ``words``."""
    shown = b""
    while words not in shown:
        some = screen.read(65_536)
        assert some, shown
        shown += some
    return shown


ON_FABRIC = pytest.param(
    "fabric",
    marks=[
        pytest.mark.skipif(available() is not None, reason=str(available())),
        pytest.mark.timeout(1200),  # the first time, Fabric is built
    ],
)


@pytest.mark.timeout(2400)  # the first time, Jaeger is built, and Fabric
@pytest.mark.parametrize("ledger", ["sqlite", ON_FABRIC])
def test_a_short_demo_holds_all_that_it_promises(
    tmp_path: Path, ledger: str, request: pytest.FixtureRequest
) -> None:
    """Responses lost, a service killed, a wallet frozen: every figure is right, and every process gone; and
    Jaeger shows every paid call, every settlement and what they have to do with each other.

    The same on either ledger; the network of the one on Fabric comes and goes with it.
    """
    no_jaeger = jaeger_build.available()
    jaeger = None if no_jaeger else request.getfixturevalue("jaeger")
    kept = tmp_path / "kept"
    options = ("--json", "--seed", "8", "--seconds", "8", "--shoppers", "5", "--ledger", ledger)
    with collecting(None if jaeger is None else jaeger.otlp_http) as collector:
        with started(tmp_path, *options, "--keep", str(kept), "--otlp", collector.url) as demo:
            out, progress = demo.communicate(timeout=1000)
        measured = collector.metrics()
    assert demo.returncode == 0, progress + out
    summary = json.loads(out)
    assert summary.keys() >= PROMISED
    assert summary["ok"] is True
    assert summary["verify"] is True
    assert [summary[name] for name in ("overcharged", "double_runs", "stranded_tokens")] == [0, 0, 0]
    assert all(invariant["ok"] for invariant in summary["invariants"].values())
    assert summary["calls"] >= summary["paid"] > 0
    assert summary["retries"] > 0
    assert summary["responses_lost"] > 0
    assert 0 < summary["p50_ms"] <= summary["p95_ms"] <= summary["p99_ms"]
    assert len(summary["wallets"]) == 12
    assert sum(wallet["balance"] for wallet in summary["wallets"].values()) == 1_000_000
    assert {deed["what"] for deed in summary["trouble"]} >= {"killed and restarted", "frozen and unfrozen"}
    payments = {(flow["payer"], flow["payee"]) for flow in summary["who_paid_whom"]}
    assert payments >= {("shopper", "frontend"), ("frontend", "productcatalog")}
    assert "10 services are up" in progress
    assert list(tmp_path.iterdir()) == [kept]
    wait_until_all_are_gone(tmp_path)
    check_metrics(measured)
    if jaeger is None:
        pytest.skip(f"all was held, and none of it was seen: {no_jaeger}")
    demo_traces.check(demo_traces.Demo(kept, summary, jaeger, collector))


def check_metrics(measured: list[Metric]) -> None:
    """What the demo has exported is what the reference says, and answers every query of the dashboard."""
    known = {one.name: one for one in metrics()}
    assert unanswered(exported(measured)) <= ON_BAD_DAYS
    for one in measured:
        reference = known[one.name]
        assert (one.kind, one.unit) == (reference.kind, reference.unit)
        assert set(one.attributes) <= set(reference.attributes)


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the live view while all services run: no process, no directory, one line that says so. That
    nothing takes their spans does not keep them from starting and serving, nor from ending."""
    terminal, other_end = os.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        started(tmp_path, "--seconds", "60", "--otlp", NOTHING_THERE, stderr=other_end) as demo,
    ):
        os.close(other_end)
        shown = read_until(screen, b"the shop opens")
        assert all(name.encode() in shown for name in NAMES)
        assert f"nothing takes spans at {NOTHING_THERE}".encode() in shown
        assert len(left_behind(tmp_path)) > 10
        demo.send_signal(signal.SIGINT)
        shown = read_until(screen, b"interrupted")
        assert b"Traceback" not in shown
        assert demo.wait(timeout=30) == 130
        assert demo.communicate()[0] == ""
    assert list(tmp_path.iterdir()) == []
    wait_until_all_are_gone(tmp_path)


@pytest.mark.parametrize("ledger", [ON_FABRIC])
@pytest.mark.parametrize("moment", ["Starting orderers and peers", "Deploying the rules"])
def test_an_interrupted_demo_takes_its_network_down(tmp_path: Path, ledger: str, moment: str) -> None:
    """Ctrl-C while the network comes up: no node, no directory."""
    with started(tmp_path, "--ledger", ledger) as demo:
        assert demo.stderr is not None
        while moment not in (line := demo.stderr.readline()):
            assert line, "it ended before"
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    wait_until_all_are_gone(tmp_path)


@pytest.mark.parametrize("ledger", [ON_FABRIC])
def test_a_killed_demo_leaves_no_node(tmp_path: Path, ledger: str) -> None:
    """SIGKILL: what watches over its processes ends the network's, too."""
    with started(tmp_path, "--ledger", ledger) as demo:
        assert demo.stderr is not None
        while "10 services are up" not in (line := demo.stderr.readline()):
            assert line, "it ended before"
        assert len(left_behind(tmp_path)) > 8
        demo.kill()
    wait_until_all_are_gone(tmp_path)


def test_a_demo_is_on_a_ledger_of_its_own(empty: Cli) -> None:
    """A url says no more than the kind of ledger; of a kind that it cannot make, it says so."""
    said = empty.refused("demo", "--ledger", "https://wallet-service")
    assert "sqlite, or --ledger fabric; not on https://wallet-service" in said


def test_a_directory_that_is_in_use_is_refused(empty: Cli, tmp_path: Path) -> None:
    """The demo founds a domain of its own and touches nobody else's files."""
    (tmp_path / "mine").write_text("precious")
    assert "is not empty" in empty.refused("demo", "--keep", str(tmp_path))
    assert (tmp_path / "mine").read_text() == "precious"


def test_options_that_make_no_sense_are_wrong_use(empty: Cli) -> None:
    """Exit 2 before anything is started."""
    for options in (("--seconds", "0"), ("--shoppers", "0"), ("--seed", "x")):
        assert empty.run("demo", *options).exit_code == 2


def test_where_to_export_to_is_a_url(empty: Cli) -> None:
    for endpoint in ("127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://here:port", "http://[::1"):
        said = empty.refused("demo", "--otlp", endpoint)
        assert f"--otlp {endpoint}: give the url of a collector, as http://127.0.0.1:4318" in said


def test_without_the_sdk_it_says_what_to_install(empty: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2, before anything is started."""
    monkeypatch.setattr(exporting, "NEEDED", ("opentelemetry.sdk", "opentelemetry.nowhere.at.all"))
    said = empty.refused("demo", "--otlp")
    assert "demo --otlp needs opentelemetry.nowhere.at.all: " in said
    assert "pip install 'tokenmesh-fabric[demo-otlp]'" in said

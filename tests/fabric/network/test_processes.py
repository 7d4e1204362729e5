"""Processes that outlive whoever started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenmesh.fabric.errors import NodeFailed
from tokenmesh.fabric.network import logs, processes
from tokenmesh.fabric.network.layout import Layout

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def start(run: Path, *command: str, name: str = "node") -> int:
    environ = {"PATH": os.environ["PATH"]}
    return processes.start(name, command, environ=environ, folder=run, log=run / "log", run=run)


def test_a_started_process_is_no_child_and_is_stopped(run: Path) -> None:
    pid = start(run, "sleep", "60")
    running = processes.running("node", run)
    assert running is not None
    assert running.pid == pid
    assert running.memory_bytes > 0
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert processes.stop(["node"], run) == []
    assert processes.running("node", run) is None
    assert not processes.was_started("node", run)


def test_it_outlives_whoever_started_it(run: Path) -> None:
    """Started by a process that ends right afterwards; found by its note."""
    script = (
        "import sys; from pathlib import Path; from tokenmesh.fabric.network import processes\n"
        "run = Path(sys.argv[1])\n"
        "processes.start('node', ['/bin/sleep', '60'], environ={}, folder=run, log=run / 'log', run=run)"
    )
    subprocess.run([sys.executable, "-c", script, str(run)], check=True)
    assert processes.running("node", run) is not None
    processes.stop(["node"], run)


def test_a_crash_shows(run: Path) -> None:
    start(run, "sleep", "60")
    processes.kill("node", run)
    assert processes.running("node", run) is None
    assert processes.was_started("node", run)


def test_who_does_not_end_is_killed_and_named(run: Path) -> None:
    start(run, "sh", "-c", STUBBORN, name="stubborn")
    start(run, "sleep", "60", name="willing")
    while "ready" not in (run / "log").read_text():
        assert processes.running("stubborn", run) is not None
    assert processes.stop(["stubborn", "willing"], run, within_s=0.3) == ["stubborn"]
    assert processes.running("stubborn", run) is None


def test_a_note_about_another_moment_names_nobody(run: Path) -> None:
    """The pid is that of a process which runs; but not since then."""
    start(run, "sleep", "60")
    note = run / "node.pid"
    kept = json.loads(note.read_text())
    note.write_text(json.dumps({**kept, "started": kept["started"] + "0"}))
    assert processes.running("node", run) is None
    processes.send("node", run, signal.SIGKILL)
    note.write_text(json.dumps(kept))
    assert processes.running("node", run) is not None
    processes.stop(["node"], run)


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', '{"pid": 1, "started": null}'])
def test_a_damaged_note_names_nobody(run: Path, note: str) -> None:
    (run / "node.pid").write_text(note)
    assert processes.running("node", run) is None


def test_waiting_ends_with_the_process_and_with_the_time(run: Path) -> None:
    """Either error carries the end of the log."""
    start(run, "sh", "-c", "echo it was like this; exit 1")
    with pytest.raises(NodeFailed, match="node ended before answering") as ended:
        processes.wait_until(lambda: False, "answering", name="node", run=run, log=run / "log", within_s=10)
    assert "it was like this" in ended.value.log
    start(run, "sleep", "60")
    began = time.monotonic()
    with pytest.raises(NodeFailed, match=r"node: not answering within 0 s"):
        processes.wait_until(lambda: False, "answering", name="node", run=run, log=run / "log", within_s=0.1)
    assert time.monotonic() - began < 5
    processes.stop(["node"], run)


def test_logs_are_cut_while_their_writers_go_on(tmp_path: Path) -> None:
    """A log grows past its limit: its end is kept beside it, and the node writes on into the same file."""
    layout = Layout(tmp_path)
    for folder in (layout.run, layout.log("node").parent):
        folder.mkdir()
    writer = "while :; do echo 0123456789012345678901234567890123456789; sleep 0.001; done"
    processes.start(
        "node",
        ["sh", "-c", writer],
        environ={"PATH": os.environ["PATH"]},
        folder=tmp_path,
        log=layout.log("node"),
        run=layout.run,
    )
    logs.keep_short(layout, bytes_max=4000, watch_s=0.05)
    kept = layout.log("node").with_suffix(".log.old")
    deadline = time.monotonic() + 20
    while not (kept.exists() and 0 < layout.log("node").stat().st_size < 4000):
        assert time.monotonic() < deadline
    assert processes.running("node", layout.run) is not None
    assert 900 <= kept.stat().st_size <= 1000
    logs.stop_keeping(layout)
    processes.stop(["node"], layout.run)

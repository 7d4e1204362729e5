"""Children of the demo: started with their log, killed as a group, and gone when the demo is gone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.servers import free_port
from tokenmesh.cli.demo.plan import Paths
from tokenmesh.cli.demo.processes import PORTS, ChildFailed, Children, free_ports

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""

DEMO = """
import sys, time
from pathlib import Path
from tokenmesh.cli.demo.plan import Paths
from tokenmesh.cli.demo.processes import Children
home = Path(sys.argv[1])
with Children(home, Paths(home).log) as children:
    children.start("family", [sys.executable, "-S", "-c", sys.argv[2], str(home / "grandchild")], {})
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(path: Path, seconds: float = 20) -> int:
    """The number that a child writes into a file once it stands."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
    return int(path.read_text())


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.01)


def start_family(children: Children, home: Path) -> int:
    children.start("family", [sys.executable, "-S", "-c", FAMILY, str(home / "grandchild")], {})
    return wait_for(home / "grandchild")


def check_until_it_fails(children: Children, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        children.check()
        time.sleep(0.01)


def test_a_killed_child_takes_its_workers_with_it(tmp_path: Path) -> None:
    """SIGKILL goes to the whole group, and the child can be started again with the same command."""
    with Children(tmp_path, Paths(tmp_path).log) as children:
        first = start_family(children, tmp_path)
        children.kill("family")
        wait_until_gone(first)
        (tmp_path / "grandchild").unlink()
        children.restart("family")
        second = wait_for(tmp_path / "grandchild")
        children.check()
    wait_until_gone(second)


def test_children_end_with_the_demo_whatever_ends_it(tmp_path: Path) -> None:
    """An exception such as Ctrl-C leaves no orphan."""

    def interrupted() -> None:
        with Children(tmp_path, Paths(tmp_path).log) as children:
            start_family(children, tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_until_gone(int((tmp_path / "grandchild").read_text()))


def test_children_end_even_if_the_demo_is_killed(tmp_path: Path) -> None:
    """SIGKILL for the demo itself: the warden sees the pipe close and kills every group."""
    with subprocess.Popen([sys.executable, "-c", DEMO, str(tmp_path), FAMILY]) as demo:
        grandchild = wait_for(tmp_path / "grandchild")
        os.kill(demo.pid, signal.SIGKILL)
    wait_until_gone(grandchild)


def test_a_child_that_fails_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error names the child, its exit code and its last words."""
    with Children(tmp_path, Paths(tmp_path).log) as children:
        children.start("cart", [sys.executable, "-S", "-c", "raise SystemExit('no such app')"], {})
        with pytest.raises(ChildFailed, match=r"(?s)cart ended with 1.*no such app"):
            check_until_it_fails(children)


def test_free_ports_are_free_and_out_of_the_way() -> None:
    """All different, none taken, and none that an outgoing connection could be given."""
    ports = free_ports(20, random.Random(3).choice)
    assert len(set(ports)) == 20
    assert all(port in PORTS for port in ports)


def test_free_ports_says_so_when_there_are_none() -> None:
    """With one port to choose from, two cannot be found: an error, not an endless search."""
    port = free_port()
    with pytest.raises(ChildFailed, match="no 2 free ports"):
        free_ports(2, lambda _: port)

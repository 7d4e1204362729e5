"""The benchmark on Fabric gives every figure that it says it gives, from a network of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokenmesh_benchmarks import fabric, fabric_gateway, fabric_ledger

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fabric.py"
FIGURES = (
    "settled_per_s",
    "hold_calls_per_s",
    "hold_calls_of_threads_per_s",
    "hold_calls_by_treasury_per_s",
    "chaincode_cpu_ms",
    "evaluate_p50_ms",
    "submit_p50_ms",
    "batch_timeout_ms",
)


def test_every_figure_is_there(fabric_tools: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run, with few callers; every contract was settled and every call paid, or it would fail."""
    monkeypatch.setattr(fabric, "SETTLEMENTS", (20,))
    monkeypatch.setattr(fabric_ledger, "CALLERS", 8)
    monkeypatch.setattr(fabric_gateway, "CONCURRENCIES", (4,))
    monkeypatch.setattr(fabric_gateway, "TURNS", 1)
    monkeypatch.setattr(fabric_gateway, "LONE", 3)
    heard: list[str] = []
    figures = fabric.measure(0.3, batch_timeout_ms=20, home=tmp_path, tell=heard.append)
    assert all(figures[name] > 0 for name in FIGURES), figures
    assert figures["batch_timeout_ms"] == 20
    assert 0 <= figures["invalid_share"] < 1
    assert figures["settling"][0]["blocks"]["block_bytes_max"] > 0
    assert figures["gateway_per_s"]["4"] > 0
    if shutil.which("npm") is not None and shutil.which("node") is not None:
        assert figures["gateway_vs_node"]["4"] > 0
    else:
        assert figures["gateway_vs_node"] is None
    assert json.dumps(figures)
    assert "calls by hold" in heard
    assert list(tmp_path.iterdir()) == []


def test_without_fabric_one_line_says_what_is_missing(tmp_path: Path) -> None:
    """No trace: neither programs nor Go, so nothing can be measured."""
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "Go" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

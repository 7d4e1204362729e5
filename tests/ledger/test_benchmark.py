"""The ledger's benchmark: it measures what it says, whether run as a script or by ``tokenmesh bench``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tokenmesh_benchmarks.embedded_ledger import measure

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "embedded_ledger.py"


def test_the_figures_are_there(tmp_path):
    """A short run gives every figure; every contract was settled and every hold placed, or it would fail."""
    figures = measure(0.1, tmp_path)
    assert figures["synchronous"] == "FULL"
    assert figures["settled_per_s"] > 0
    for holds in ("holds_per_s", "hold_operations_per_s", "hold_operations_by_key_per_s"):
        assert figures[holds] > 0, holds
    assert list(tmp_path.iterdir()) == []


def test_the_script_prints_one_object():
    command = [sys.executable, str(SCRIPT), "--json", "--seconds", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert {"settled_per_s", "holds_per_s", "synchronous"} <= json.loads(done.stdout).keys()

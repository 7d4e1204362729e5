"""A short ``make chaos`` on each ledger: whoever is killed or stopped, in the end everything adds up."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.grounds import EMBEDDED, FABRIC
from chaos.run import Chaos

from tokenmesh.fabric.network import available, find_tools

SECONDS = {EMBEDDED: 20.0, FABRIC: 28.0}
BUILD_TIMEOUT_S = 1_200


@pytest.mark.slow
@pytest.mark.timeout(BUILD_TIMEOUT_S)  # Fabric may have to be built first
@pytest.mark.parametrize("kind", [EMBEDDED, FABRIC])
def test_whoever_is_killed_or_stopped_everything_adds_up(kind: str, tmp_path: Path) -> None:
    """Payers, both workers of a payee, governance, and the nodes of a network."""
    if kind == FABRIC:
        missing = available()
        if missing is not None:
            pytest.skip(missing)
        find_tools(lambda what, done: None)
    report = Chaos(kind, seed=1, seconds=SECONDS[kind], path=tmp_path, tell=print).run()
    assert not report.wrong, str(report)

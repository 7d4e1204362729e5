"""Tests of the rules run twice: on a state in memory, and through the chaincode on a peer in memory."""

from __future__ import annotations

import pytest

from support.chaincode_economy import ChaincodeEconomy

ECONOMIES = ("rules", "chaincode")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if hasattr(metafunc.module, "Economy"):
        metafunc.parametrize("what_runs_the_rules", ECONOMIES, indirect=True)


@pytest.fixture(autouse=True)
def what_runs_the_rules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test's module calls ``Economy`` is the one or the other."""
    if getattr(request, "param", "rules") == "chaincode":
        monkeypatch.setattr(request.module, "Economy", ChaincodeEconomy)

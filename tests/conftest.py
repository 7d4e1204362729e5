"""What tests of every folder may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.jaeger import Jaeger
from support.jaeger_build import available, find_jaeger

BUILD_TIMEOUT_S = 1200
"""The first test that wants Jaeger may have to wait until Go has built it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "jaeger" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S))


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger that all tests of a session share: give your services names of their own."""
    missing = available()
    if missing is not None:
        pytest.skip(missing)
    jaeger = Jaeger(find_jaeger(lambda what, done: None), tmp_path_factory.mktemp("jaeger"))
    try:
        jaeger.start()
        yield jaeger
    finally:
        jaeger.stop()

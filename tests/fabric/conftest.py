"""A real Fabric network, one for a session of tests; or a skip that says how to get one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fabric_domain import Rules
from tokenmesh.fabric.network import Network, available, find_tools

BUILD_TIMEOUT_S = 1200
"""The first test that wants a network may have to wait until Go has built Fabric."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S))


@pytest.fixture(scope="session")
def fabric_tools() -> None:
    """Fabric's programs, or a skip that says how to get them."""
    missing = available()
    if missing is not None:
        pytest.skip(missing)
    find_tools(lambda what, done: None)


@pytest.fixture(scope="session")
def network(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two organisations, one Raft orderer, the channel ``mesh``. For tests that leave it as they found it."""
    network = Network(tmp_path_factory.mktemp("fabric"))
    try:
        network.up()
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="session")
def timeless(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """As ``network``, quicker, with peers that take proposals of any time: for tests that hold the clock."""
    anytime = {"peer.authentication.timewindow": "876000h"}
    network = Network(tmp_path_factory.mktemp("timeless"), peer_settings=anytime, batch_timeout_ms=20)
    try:
        network.up()
        yield network
    finally:
        network.clean()


@pytest.fixture(scope="session")
def rules(timeless: Network) -> Iterator[Rules]:
    """The rules as chaincode on ``timeless``, for ``make_fabric_domain``."""
    with Rules(timeless) as rules:
        yield rules


@pytest.fixture
def home(fabric_tools: None, tmp_path: Path) -> Iterator[Path]:
    """A place for a network of a test's own; whatever runs there afterwards is stopped."""
    yield tmp_path / "network"
    Network(tmp_path / "network").clean()

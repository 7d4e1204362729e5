"""The Mesh: parts opened when they are needed, once, never across a fork, and closed in the right order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.homes import Home, until
from tokenmesh import Mesh, default_mesh
from tokenmesh.errors import ConfigError, IdentityError


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.open_wallet("shop", tokens=100)
    yield home
    home.ledger.close()


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """A Mesh for a home that is not there can be made; what is missing is said by what needs it."""
    mesh = Mesh("shop", home=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(IdentityError, match="tokenmesh init"):
        _ = mesh.wallet
    mesh.close()


def test_a_process_without_a_wallet_is_told_how_to_get_one(tmp_path: Path) -> None:
    with Mesh(home=tmp_path) as mesh, pytest.raises(ConfigError, match="TOKENMESH_SERVICE"):
        _ = mesh.wallet


def test_parts_are_opened_once_however_many_threads_ask(home: Home) -> None:
    with Mesh("shop", home=home.path) as mesh, ThreadPoolExecutor(16) as pool:
        providers = list(pool.map(lambda _: mesh.provider, range(64)))
        assert len(set(map(id, providers))) == 1


def test_a_payer_has_no_journal(home: Home) -> None:
    """Only who earns has something to remember."""
    with Mesh("shop", home=home.path) as mesh:
        _ = mesh.consumer
        assert not list(home.path.glob("journal-*"))
        _ = mesh.provider
        assert list(home.path.glob("journal-shop.db"))


def test_closing_ends_it_for_good_and_calls_back_first(home: Home) -> None:
    """What was made from a Mesh closes before its parts do, newest first; closing twice is closing once."""
    mesh = Mesh("shop", home=home.path)
    told: list[str] = []
    mesh.on_close(lambda: told.append(f"first, and the ledger still has {mesh.settings.service}"))
    mesh.on_close(lambda: told.append("second"))
    _ = mesh.ledger
    mesh.close()
    mesh.close()
    assert told == ["second", "first, and the ledger still has shop"]
    with pytest.raises(ConfigError, match="closed"):
        _ = mesh.ledger


def test_a_service_that_only_earns_can_spend_what_it_earned(home: Home) -> None:
    """Its settlement's thread sweeps in what came, with no call of its own."""
    with Mesh("shop", home=home.path) as mesh:
        _ = mesh.provider
        until(lambda: home.ledger.balance("shop").result(30).spendable == 100, "the grant is swept in")


def test_the_default_mesh_is_made_from_the_environment_and_made_anew_once_closed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENMESH_HOME", str(home.path))
    monkeypatch.setenv("TOKENMESH_SERVICE", "shop")
    first = default_mesh()
    assert default_mesh() is first
    assert first.wallet.name == "shop"
    first.close()
    second = default_mesh()
    assert second is not first
    second.close()


def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(home: Home) -> None:
    """As under a server that loads the application and then forks its workers."""
    script = (
        "import os, sys\n"
        "from tokenmesh import default_mesh\n"
        "mesh = default_mesh()\n"
        "ledger, provider = mesh.ledger, mesh.provider\n"
        "child = os.fork()\n"
        "assert (mesh.ledger is ledger) == (child != 0)\n"
        "assert (mesh.provider is provider) == (child != 0)\n"
        "assert mesh.ledger.balance('shop').result(30) is not None\n"
        "if child == 0:\n"
        "    mesh.close()\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert mesh.ledger.wallet('shop').result(30).name == 'shop'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**home.environment("shop"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr

"""A key that stands on several ledgers: rotated on all of them, or on none yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import Cli
from tokenmesh.identity import Wallet


@pytest.fixture
def bank(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """A second ledger of the same home, which knows ``shop`` and governance too, and is in the setting."""
    url = f"sqlite:///{cli.home}/bank.db"
    cli("wallet", "create", "shop")
    cli("init", "--ledger", url)
    cli("wallet", "create", "shop", "--ledger", url)
    monkeypatch.setenv("TOKENMESH_DOMAINS", json.dumps({"bank-*": url}))
    return url


def newest(cli: Cli, name: str, *ledger: str) -> str:
    return str(cli.json("wallet", "show", name, *ledger)["certificates"][-1]["x5t"])


@pytest.mark.parametrize("by", ["usual", "named"])
def test_every_ledger_that_has_the_key_is_told(cli: Cli, bank: str, by: str) -> None:
    """Whichever of them the command names."""
    said = cli("wallet", "rotate", "shop", *(() if by == "usual" else ("--ledger", bank)))
    assert "2 ledgers know it" in said
    key = Wallet.load(cli.home, "shop").x5t
    assert newest(cli, "shop") == newest(cli, "shop", "--ledger", bank) == key


def test_governance_goes_on_governing_all_of_them(cli: Cli, bank: str) -> None:
    cli("wallet", "rotate", "governance")
    for ledger in ((), ("--ledger", bank)):
        cli("grant", "shop", "5", *ledger)


def test_none_is_told_before_all_have_answered(cli: Cli, bank: str) -> None:
    """With one that is away, everything stays as it was, and the next try does it all."""
    path = Path(bank.removeprefix("sqlite:///"))
    key, away = Wallet.load(cli.home, "shop").x5t, path.rename(path.with_suffix(".away"))
    assert "bank.db" in cli.refused("wallet", "rotate", "shop")
    assert newest(cli, "shop") == Wallet.load(cli.home, "shop").x5t == key
    away.rename(path)
    cli("wallet", "rotate", "shop")
    assert newest(cli, "shop") == newest(cli, "shop", "--ledger", bank) != key


def test_the_key_waits_until_the_last_ledgers_governors_approve(cli: Cli, bank: str) -> None:
    """One ledger asks two governors, the other one; the key takes its place when both know it."""
    cli("wallet", "create", "second", "--governor", "--ledger", bank)
    cli("policy", "set", "threshold=2", "--ledger", bank)
    old = Wallet.load(cli.home, "shop").x5t
    said = cli("wallet", "rotate", "shop", "--as", "governance")
    assert "Once it is approved" in said
    assert Wallet.load(cli.home, "shop").x5t == old
    (proposal,) = cli.json("proposals", "--ledger", bank)
    cli("approve", proposal["id"], "--as", "second", "--ledger", bank)
    cli("wallet", "rotate", "shop")
    key = Wallet.load(cli.home, "shop").x5t
    assert newest(cli, "shop") == newest(cli, "shop", "--ledger", bank) == key != old


def test_a_wallet_of_the_same_name_and_another_key_is_left_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger may know somebody else by that name."""
    other = Cli(tmp_path / "other")
    other("init")
    other("wallet", "create", "shop")
    cli("wallet", "create", "shop")
    monkeypatch.setenv("TOKENMESH_DOMAINS", json.dumps({"x": f"sqlite:///{other.ledger}"}))
    before = newest(other, "shop")
    cli("wallet", "rotate", "shop")
    assert newest(other, "shop") == before
    assert newest(cli, "shop") == Wallet.load(cli.home, "shop").x5t

"""``wallet revoke``: which certificate it ends, on which ledgers, and what the wallet does then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import Cli
from tokenmesh.identity import Wallet


@pytest.fixture
def shop(cli: Cli) -> Cli:
    cli("wallet", "create", "shop", "--tokens", "10")
    return cli


def test_a_revoked_key_does_nothing_more_until_a_governor_gives_another(shop: Cli) -> None:
    stolen = Wallet.load(shop.home, "shop").x5t
    said = shop("wallet", "revoke", "shop")
    assert f"Certificate {stolen} of shop is revoked" in said
    assert "tokenmesh wallet rotate shop --as governance" in said
    (one,) = shop.json("wallet", "show", "shop")["certificates"]
    assert (one["x5t"], type(one["revoked_at"])) == (stolen, int)
    assert "revoked" in shop("wallet", "show", "shop")
    refused = shop.refused("wallet", "update", "shop", "--url", "http://127.0.0.1:1", "--as", "shop")
    assert "its certificate is not good there" in refused
    shop("wallet", "rotate", "shop", "--as", "governance")
    shop("wallet", "update", "shop", "--url", "http://127.0.0.1:1", "--as", "shop")
    assert shop.json("verify")["ok"]


def test_with_several_certificates_it_says_which(shop: Cli) -> None:
    """After a rotation both are good for a while: the old one, which was stolen, is to be named."""
    stolen = Wallet.load(shop.home, "shop").x5t
    shop("wallet", "rotate", "shop")
    assert stolen in shop.refused("wallet", "revoke", "shop")
    shop("wallet", "revoke", "shop", "--certificate", stolen)
    shop("wallet", "update", "shop", "--url", "http://127.0.0.1:1", "--as", "shop")
    shop("wallet", "revoke", "shop")
    assert "none to revoke" in shop.refused("wallet", "revoke", "shop")


def test_what_it_refuses(shop: Cli) -> None:
    assert "no certificate nonsense; it has" in shop.refused(
        "wallet", "revoke", "shop", "--certificate", "nonsense"
    )
    assert "no wallet 'nobody'" in shop.refused("wallet", "revoke", "nobody")
    assert "not_governor" in shop.refused("wallet", "revoke", "shop", "--as", "shop")
    assert "its own last certificate" in shop.refused("wallet", "revoke", "governance")


def test_another_governors_certificate_takes_several(shop: Cli) -> None:
    shop("wallet", "create", "second", "--governor")
    shop("wallet", "create", "third", "--governor")
    shop("policy", "set", "threshold=2")
    assert "tokenmesh approve" in shop("wallet", "revoke", "second")
    (proposed,) = shop.json("proposals")
    shop("approve", proposed["id"], "--as", "third")
    assert "its certificate is not good there" in shop.refused("freeze", "shop", "--as", "second")


def test_a_key_on_several_ledgers_is_revoked_on_all(
    shop: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where that cannot be done now, it says so and ends with 2: the others are done all the same."""
    bank = f"sqlite:///{shop.home}/bank.db"
    shop("init", "--ledger", bank)
    shop("wallet", "create", "shop", "--ledger", bank)
    nowhere = f"sqlite:///{tmp_path}/nowhere.db"
    monkeypatch.setenv("TOKENMESH_DOMAINS", json.dumps({"x-*": nowhere, "bank-*": bank}))
    result = shop.run("wallet", "revoke", "shop")
    assert result.exit_code == 2
    assert "nowhere.db" in result.stderr
    for ledger in ((), ("--ledger", bank)):
        (one,) = shop.json("wallet", "show", "shop", *ledger)["certificates"]
        assert one["revoked_at"] is not None

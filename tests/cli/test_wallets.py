"""``init`` and ``wallet``: what they make, that they can be repeated, and what they refuse."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from support.cli import Cli
from tokenmesh.cli.desk import Desk
from tokenmesh.identity import CertificateAuthority, Wallet, prepare_rotation
from tokenmesh.ledger.embedded import EmbeddedLedger


def test_init_makes_a_domain_with_its_supply(empty: Cli) -> None:
    said = empty("init", "--supply", "5000")
    assert "certificate authority, wallet 'governance', ledger, 5,000 tokens" in said
    assert empty.spendable("governance") == 5000
    supply = empty.json("balance")["supply"]
    assert supply == {"minted": 5000, "burned": 0, "accounted": 5000, "conserved": True}
    assert stat.S_IMODE(empty.home.stat().st_mode) == 0o700
    assert empty.json("verify")["ok"] is True


def test_init_mints_a_million_unless_told_otherwise_and_nothing_with_0(tmp_path: Path) -> None:
    for supply, minted in (([], 1_000_000), (["--supply", "0"], 0)):
        one = Cli(tmp_path / str(minted))
        one("init", *supply)
        assert one.json("balance")["supply"]["minted"] == minted


def test_a_second_init_changes_nothing_and_ends_well(cli: Cli) -> None:
    before = (cli.json("wallet", "list"), cli.json("history"))
    assert "Already there, nothing changed" in cli("init", "--supply", "7")
    assert (cli.json("wallet", "list"), cli.json("history")) == before


@pytest.mark.parametrize("reached", ["authority", "wallet", "ledger"])
def test_an_init_that_broke_off_is_finished_by_the_next(empty: Cli, reached: str) -> None:
    """Whatever was made before is kept; the domain ends up whole, with one supply."""
    authority = CertificateAuthority.create(empty.home)
    if reached != "authority":
        governance = Wallet.create(empty.home, "governance", authority, "governor")
    if reached == "ledger":
        empty("init", "--supply", "0")
    empty("init", "--supply", "1000")
    assert empty.spendable("governance") == 1000
    assert CertificateAuthority.load(empty.home).certificate_pem == authority.certificate_pem
    if reached != "authority":
        assert empty.json("wallet", "show", "governance")["certificates"][0]["x5t"] == governance.x5t


def test_init_refuses_a_ledger_of_other_keys(cli: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    said = other.refused("init", "--ledger", f"sqlite:///{cli.ledger}")
    assert "governed by another key" in said
    assert cli.spendable("governance") == 1000


def test_a_wallet_is_made_registered_and_granted_tokens(cli: Cli) -> None:
    said = cli("wallet", "create", "service-a", "--tokens", "300", "--url", "http://127.0.0.1:8000")
    assert "service-a (service) is on the ledger with 300 tokens" in said
    shown = cli.json("wallet", "show", "service-a")
    assert (shown["role"], shown["url"], shown["key"]) == ("service", "http://127.0.0.1:8000", True)
    assert cli.total("service-a") == 300
    assert cli.spendable("governance") == 700
    loaded = Wallet.load(cli.home, "service-a")
    assert shown["certificates"][0]["x5t"] == loaded.x5t


def test_a_wallet_that_is_there_is_not_made_again(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    x5t = Wallet.load(cli.home, "service-a").x5t
    assert "there is a wallet 'service-a'" in cli.refused("wallet", "create", "service-a")
    assert Wallet.load(cli.home, "service-a").x5t == x5t


def test_tokens_that_governance_lacks_are_told_before_anything_is_made(cli: Cli) -> None:
    said = cli.refused("wallet", "create", "service-a", "--tokens", "1300")
    assert "tokenmesh mint 300" in said
    assert [one["name"] for one in cli.json("wallet", "list")] == ["governance"]
    assert not (cli.home / "wallets" / "service-a").exists()


def test_a_creation_that_broke_off_before_the_ledger_is_taken_up(cli: Cli) -> None:
    made = Wallet.create(cli.home, "service-a", CertificateAuthority.load(cli.home))
    assert "tokenmesh wallet create service-a" not in cli("wallet", "create", "service-a")
    assert cli.json("wallet", "show", "service-a")["certificates"][0]["x5t"] == made.x5t


def test_only_a_governor_makes_wallets(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    assert "governor" in cli.refused("wallet", "create", "service-b", "--as", "service-a")
    assert len(cli.json("wallet", "list")) == 2


@pytest.mark.parametrize("name", ["Service", "a_b", "-a", "x" * 64, "../etc"])
def test_a_name_that_cannot_be_is_wrong_use(cli: Cli, name: str) -> None:
    result = cli.run("wallet", "create", "--", name)
    assert result.exit_code == 2
    assert "cannot name a wallet" in result.stderr


def test_the_list_is_for_people_and_programs(cli: Cli) -> None:
    """Piped it is one line a wallet with bare numbers; with --json it is objects."""
    cli("wallet", "create", "service-a", "--tokens", "100")
    lines = cli("wallet", "list").splitlines()
    assert lines[0].split()[:3] == ["NAME", "ROLE", "SPENDABLE"]
    assert lines[1].split()[:3] == ["governance", "governor", "900"]
    assert lines[2].split()[0] == "service-a"
    assert len(lines) == 3
    assert [one["name"] for one in cli.json("wallet", "list")] == ["governance", "service-a"]


def test_show_knows_no_wallet_that_is_not_there(cli: Cli) -> None:
    assert "tokenmesh wallet list" in cli.refused("wallet", "show", "nobody")


def test_the_url_of_a_wallet_can_be_changed_and_taken_away(cli: Cli) -> None:
    cli("wallet", "create", "service-a", "--url", "http://one")
    cli("wallet", "update", "service-a", "--url", "http://two")
    assert cli.json("wallet", "show", "service-a")["url"] == "http://two"
    cli("wallet", "update", "service-a", "--url", "", "--as", "service-a")
    assert cli.json("wallet", "show", "service-a")["url"] is None
    assert "url" in cli.refused("wallet", "update", "service-a", "--url", "ftp://three")


def test_rotation_gives_a_new_key_and_both_certificates_hold_for_a_while(cli: Cli) -> None:
    cli("wallet", "create", "service-a", "--tokens", "10")
    old = Wallet.load(cli.home, "service-a").x5t
    said = cli("wallet", "rotate", "service-a")
    new = Wallet.load(cli.home, "service-a").x5t
    certificates = cli.json("wallet", "show", "service-a")["certificates"]
    assert [one["x5t"] for one in certificates] == [old, new]
    assert certificates[0]["until"] < certificates[0]["not_after"]
    assert certificates[1]["until"] == certificates[1]["not_after"]
    assert "stays valid for 600 s" in said
    assert cli.total("service-a") == 10
    assert cli.json("verify")["ok"] is True


def test_a_running_service_acts_before_during_and_after_a_rotation(cli: Cli) -> None:
    """With the old key while the ledger accepts both, then with the new one, and never with neither."""
    cli("wallet", "create", "service-a", "--tokens", "30")
    now = [100.0]
    wallet = Wallet.load(cli.home, "service-a", clock=lambda: now[0])
    with EmbeddedLedger(cli.ledger, wallet) as ledger:
        service = Desk(ledger, wallet, time.time)
        service.gather(30)
        service.do("burn", {"tokens": 1})
        cli("wallet", "rotate", "service-a")
        old = wallet.x5t
        service.do("burn", {"tokens": 1})
        now[0] += 2
        assert wallet.reload()
        assert wallet.x5t != old
        service.do("burn", {"tokens": 1})
    assert cli.total("service-a") == 27
    assert cli.json("verify")["ok"] is True


def test_governance_rotates_itself_and_goes_on_governing(cli: Cli) -> None:
    cli("wallet", "rotate", "governance")
    cli("wallet", "create", "service-a", "--tokens", "10")
    assert cli.total("service-a") == 10


def test_a_governor_rotates_for_a_wallet_that_cannot(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    old = Wallet.load(cli.home, "service-a").x5t
    cli("wallet", "rotate", "service-a", "--as", "governance")
    assert Wallet.load(cli.home, "service-a").x5t != old


@pytest.mark.parametrize("reached", ["before the ledger", "after the ledger"])
def test_a_rotation_that_broke_off_is_finished_by_the_next(cli: Cli, reached: str) -> None:
    """Broken off between its steps it leaves the old key working; run again, it ends with one new key."""
    cli("wallet", "create", "service-a")
    wallet = Wallet.load(cli.home, "service-a")
    following = prepare_rotation(cli.home, wallet, CertificateAuthority.load(cli.home))
    if reached == "after the ledger":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tokenmesh.cli.wallets.finish_rotation", _killed)
            assert cli.run("wallet", "rotate", "service-a").exit_code == 130
    assert Wallet.load(cli.home, "service-a").x5t == wallet.x5t
    cli("wallet", "rotate", "service-a")
    assert Wallet.load(cli.home, "service-a").x5t == following.x5t
    newest = cli.json("wallet", "show", "service-a")["certificates"][-1]
    assert newest["x5t"] == following.x5t


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_key_that_others_can_read_stops_the_command_with_the_way_out(cli: Cli) -> None:
    path = cli.home / "wallets" / "governance" / "identity.pem"
    path.chmod(0o644)
    assert f"chmod 600 {path}" in cli.refused("mint", "5")
    assert cli.spendable("governance") == 1000


def test_keys_under_a_passphrase(empty: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with --passphrase they open with the variable, and with nothing else."""
    empty("init", "--passphrase", stdin="sesame\nsesame\n")
    assert "set TOKENMESH_PASSPHRASE" in empty.refused("mint", "5")
    monkeypatch.setenv("TOKENMESH_PASSPHRASE", "wrong")
    assert "passphrase does not open it" in empty.refused("mint", "5")
    monkeypatch.setenv("TOKENMESH_PASSPHRASE", "sesame")
    empty("mint", "5")
    empty("wallet", "create", "service-a")
    assert b"ENCRYPTED" in (empty.home / "wallets" / "service-a" / "identity.pem").read_bytes()
    assert empty.json("balance")["supply"]["minted"] == 1_000_005


def test_reading_needs_no_passphrase(empty: Cli) -> None:
    empty("init", "--passphrase", stdin="sesame\nsesame\n")
    assert empty.json("verify")["ok"] is True
    assert empty.json("wallet", "list")[0]["name"] == "governance"


def test_a_certificate_near_its_end_is_warned_of(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.run("wallet", "list").stderr == ""
    monkeypatch.setattr("tokenmesh.identity.EXPIRY_WARNING_DAYS", 400)
    for command in (["wallet", "list"], ["wallet", "show", "governance"]):
        result = cli.run(*command)
        assert result.exit_code == 0
        assert "Warning: the certificate of wallet governance ends on" in result.stderr
        assert "tokenmesh wallet rotate governance" in result.stderr

"""Reading the ledger: without any key, the same for people, pipes and programs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support import settled
from support.cli import Cli

READING = (
    ["wallet", "list"],
    ["wallet", "show", "governance"],
    ["balance"],
    ["balance", "governance"],
    ["history"],
    ["policy", "show"],
    ["proposals"],
    ["verify"],
)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_reading_needs_no_key_and_json_is_one_document(cli: Cli, command: list[str], tmp_path: Path) -> None:
    """With the ledger alone, in another home: text without a trace of colour, and one JSON document."""
    cli("wallet", "create", "service-a", "--tokens", "10")
    bare = Cli(tmp_path / "bare")
    bare.home.mkdir()
    ledger = ["--ledger", f"sqlite:///{cli.ledger}"]
    shutil.rmtree(cli.home / "wallets")
    shutil.rmtree(cli.home / "ca")
    result = bare.run(*command, *ledger)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    document = bare.run(*command, *ledger, "--json")
    assert document.stderr == ""
    json.loads(document.stdout)


def test_balances_add_up_to_the_supply(cli: Cli) -> None:
    cli("wallet", "create", "service-a", "--tokens", "10")
    read = cli.json("balance")
    assert sum(one["total"] for one in read["wallets"]) == read["supply"]["accounted"] == 1000
    row = next(line for line in cli("balance").splitlines() if line.startswith("service-a"))
    assert row.split() == ["service-a", "0", "10", "0", "0", "10"]


def test_the_balance_of_nobody_is_an_error(cli: Cli) -> None:
    assert "no wallet 'nobody'" in cli.refused("balance", "nobody")


def test_history_is_newest_first_and_pages_oldest_first(cli: Cli) -> None:
    for tokens in range(1, 6):
        cli("mint", str(tokens))
    newest = cli.json("history", "--limit", "2")
    assert [one["operations"][0]["arg"] for one in newest] == [{"tokens": 5}, {"tokens": 4}]
    seen: list[int] = []
    after = 0
    while page := cli.json("history", "--limit", "3", "--after", str(after)):
        assert len(page) <= 3
        seen += [one["number"] for one in page]
        after = seen[-1]
    assert seen == sorted(seen)
    assert newest[0]["number"] == seen[-1]


def test_history_of_one_wallet_leaves_out_what_does_not_touch_it(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    cli("mint", "5")
    cli("grant", "service-a", "7")
    acts = [one["operations"][0]["act"] for one in cli.json("history", "--wallet", "service-a")]
    assert acts == ["grant", "register"]


def test_history_says_what_was_refused_and_why(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    cli.refused("grant", "service-a", "5", "--as", "service-a")
    cli.refused("grant", "nobody", "5")
    outcome = cli.json("history")[0]["operations"][0]["outcome"]
    assert outcome["ok"] is False
    assert outcome["code"] in cli("history")


def settle(cli: Cli, *, charged: int, private: bool = False) -> str:
    (jti,) = settled.settle(cli.home, f"sqlite:///{cli.ledger}", charged, private=private)
    return jti


@pytest.fixture
def trade(cli: Cli) -> Cli:
    cli("wallet", "create", "service-a", "--tokens", "100")
    cli("wallet", "create", "service-b")
    return cli


def test_a_settled_contract_shows_what_it_says_and_what_was_charged(trade: Cli) -> None:
    jti = settle(trade, charged=15)
    (found,) = trade.json("contract", "show", jti)
    assert (found["payer"], found["payee"], found["charged"], found["code"]) == (
        "service-a",
        "service-b",
        15,
        "ok",
    )
    assert (found["claims"]["htu"], found["claims"]["tok"]) == ("/quote/ACME", 20)
    assert found["tx_id"] in {one["tx_id"] for one in trade.json("history")}
    shown = trade("contract", "show", jti)
    for part in (
        jti,
        "GET /quote/{symbol}",
        "15",
        "settled",
        "0af7651916cd43dd8448eb211c80319c",
        found["tx_id"],
    ):
        assert part in shown
    assert (trade.total("service-a"), trade.total("service-b")) == (85, 15)
    assert "1 settled, 15 tokens" in trade("history", "--wallet", "service-b")
    assert trade.json("verify")["ok"] is True


def test_a_private_contract_shows_what_it_was_for_as_long_as_its_disclosure_is_kept(trade: Cli) -> None:
    jti = settle(trade, charged=15, private=True)
    (found,) = trade.json("contract", "show", jti)
    assert (found["op"], found["claims"]["htu"]) == ("GET /quote/{symbol}", "/quote/ACME")
    assert "/quote/ACME" in trade("contract", "show", jti)
    assert trade.json("verify")["private"] == 1
    with closing(sqlite3.connect(trade.ledger)) as connection, connection:
        connection.execute("DELETE FROM disclosures")
    (found,) = trade.json("contract", "show", jti)
    assert (found["op"], found["claims"]["htu"], found["charged"]) == ("", None, 15)
    shown = trade("contract", "show", jti)
    assert "quote" not in shown
    assert "private: the payer, the payee" in shown
    assert "Of 1 private contracts 1 are undisclosed here" in trade("verify")
    assert trade.json("verify")["undisclosed"] == 1


def test_a_contract_that_the_rules_refused_says_why(trade: Cli) -> None:
    """More charged than it offers: nothing moves, and the contract is shown with the reason."""
    jti = settle(trade, charged=21)
    (found,) = trade.json("contract", "show", jti)
    assert found["code"] == "charged_too_much"
    assert "refused: charged_too_much" in trade("contract", "show", jti)
    assert trade.total("service-b") == 0


def test_a_contract_that_no_settlement_carries_is_an_error(cli: Cli) -> None:
    assert "not settled yet" in cli.refused("contract", "show", "none-such")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops"),
        (PermissionError(13, "Permission denied", "/some/where"), "/some/where: Permission denied"),
    ],
)
def test_what_nobody_foresaw_is_told_in_two_lines(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Not even a mistake of ours ends with a trace; it says where it happened, to be reported."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("tokenmesh.cli.reading.known_wallet", fail)
    assert message in cli.refused("balance", "governance")

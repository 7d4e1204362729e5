"""``verify`` finds what was edited by hand and names the transaction; ``bench`` shows what it measured."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest

from support.cli import Cli


def edit(cli: Cli, statement: str) -> None:
    """Change the ledger's file by hand."""
    with closing(sqlite3.connect(cli.ledger)) as connection, connection:
        connection.execute(statement)


def test_a_ledger_that_nobody_edited_holds(cli: Cli) -> None:
    assert "The ledger holds: 2 transactions replayed" in cli("verify")
    assert cli.json("verify") == {
        "ok": True,
        "transactions": 2,
        "findings": [],
        "private": 0,
        "undisclosed": 0,
    }


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operations SET document = replace(document, 'a', 'b') WHERE at >> 20 = 3",
        "DELETE FROM transactions WHERE n = 3",
        "UPDATE transactions SET time_ms = time_ms + 1 WHERE n = 3",
        "UPDATE transactions SET signature = zeroblob(64) WHERE n = 3",
        """UPDATE state SET value = '{"tokens":1000000}' WHERE key = 'balance/governance'""",
    ],
)
def test_an_edit_is_a_finding_that_names_its_transaction(cli: Cli, statement: str) -> None:
    """Exit 1, the transaction named to people and to programs, and no trace."""
    for tokens in ("1", "2", "3"):
        cli("mint", tokens)
    ids = {one["tx_id"] for one in cli.json("history")}
    edit(cli, statement)
    for arguments in (["verify"], ["verify", "--json"]):
        result = cli.run(*arguments)
        assert result.exit_code == 1
        assert any(tx_id in result.stdout for tx_id in ids)
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert all({"tx_n", "tx_id", "code", "text"} == set(one) for one in report["findings"])


def test_a_file_that_is_no_ledger_is_a_finding_too(cli: Cli) -> None:
    cli.ledger.write_bytes(b"rubbish" * 1_000)
    result = cli.run("verify")
    assert result.exit_code == 1
    assert "damaged" in result.stdout


def test_verify_works_on_an_embedded_ledger_only(cli: Cli) -> None:
    assert "sqlite:///" in cli.refused("verify", "--ledger", "https://wallet-service")


def test_bench_shows_what_the_benchmarks_measure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, figures in (("embedded_ledger", {"holds_per_s": 3}), ("hot_path", {"plain_us": 5})):
        fake = SimpleNamespace(measure=lambda figures=figures: figures)
        monkeypatch.setitem(sys.modules, f"tokenmesh_benchmarks.{module}", fake)
    result = cli.run("bench", "--json")
    assert json.loads(result.stdout) == {"ledger": {"holds_per_s": 3}, "calls": {"plain_us": 5}}
    assert json.loads(cli.run("bench", "calls", "--json").stdout) == {"calls": {"plain_us": 5}}
    assert "holds_per_s" in cli("bench", "ledger")


def test_bench_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenmesh_benchmarks.hot_path", None)
    said = cli.run("bench", "calls")
    assert said.exit_code == 2
    assert "pip install 'tokenmesh-fabric[bench]'" in said.stderr

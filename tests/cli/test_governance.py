"""``mint``, ``burn``, ``grant``, ``freeze``, ``policy``; proposals, where several governors are needed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from tokenmesh.identity import Wallet
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import Operation, new_id, sign


@pytest.fixture
def board(cli: Cli) -> Cli:
    """A domain in which two of three governors are needed."""
    cli("wallet", "create", "second", "--governor")
    cli("wallet", "create", "third", "--governor")
    cli("policy", "set", "threshold=2")
    return cli


def proposal_in(said: str) -> str:
    found = re.search(r"tokenmesh approve (\S+) --as NAME", said)
    assert found, said
    return found[1]


def test_minting_and_burning_change_the_supply(cli: Cli) -> None:
    assert "Minted 500 tokens; governance has 1,500" in cli("mint", "500")
    cli("burn", "200")
    assert cli.json("balance")["supply"] == {
        "minted": 1500,
        "burned": 200,
        "accounted": 1300,
        "conserved": True,
    }


def test_a_grant_moves_tokens_out_of_the_governors_balance(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    cli("grant", "service-a", "40")
    assert (cli.total("service-a"), cli.spendable("governance")) == (40, 960)


def test_a_grant_beyond_the_balance_says_how_many_to_mint(cli: Cli) -> None:
    cli("wallet", "create", "service-a")
    said = cli.refused("grant", "service-a", "1500")
    assert "governance has 1,000" in said
    assert "tokenmesh mint 500" in said
    assert cli.total("service-a") == 0


def test_a_grant_sweeps_in_what_waits_as_credits_if_it_is_needed(cli: Cli) -> None:
    cli("wallet", "create", "second", "--governor", "--tokens", "600")
    before = cli.json("balance", "second")
    assert (before["spendable"], before["credits"]) == (0, 600)
    cli("wallet", "create", "service-a")
    cli("grant", "service-a", "450", "--as", "second")
    assert (cli.total("second"), cli.total("service-a")) == (150, 450)


@pytest.mark.parametrize("tokens", ["0", "-5", "1.5", "many", str(2**53)])
def test_tokens_are_whole_and_positive(cli: Cli, tokens: str) -> None:
    result = cli.run("mint", "--", tokens)
    assert result.exit_code == 2
    assert "Invalid value" in result.stderr
    assert cli.spendable("governance") == 1000


def test_a_grant_to_nobody_is_refused(cli: Cli) -> None:
    assert "nobody" in cli.refused("grant", "nobody", "5")
    assert cli.spendable("governance") == 1000


def test_a_frozen_wallet_cannot_pay_until_it_is_unfrozen(cli: Cli) -> None:
    cli("wallet", "create", "service-a", "--tokens", "50")
    assert "services know within 5 s" in cli("freeze", "service-a")
    shown = cli.json("wallet", "show", "service-a")
    assert shown["frozen_since"] >= shown["frozen_at"], "and that is in force"
    assert "frozen" in cli("wallet", "list")
    assert "frozen" in cli.refused("burn", "50", "--as", "service-a")
    cli("unfreeze", "service-a")
    assert cli.json("wallet", "show", "service-a")["frozen_at"] is None
    cli("burn", "50", "--as", "service-a")
    assert cli.total("service-a") == 0


def cut_short(cli: Cli, by: str, act: str, argument: dict[str, Any]) -> None:
    """What a governor's process does that ends before it puts in force what it has changed."""
    wallet, now = Wallet.load(cli.home, by), int(time.time())
    with EmbeddedLedger(cli.ledger, wallet) as ledger:
        operation = Operation(ledger.domain, by, new_id(), now, now + 60, act, argument)
        (result,) = ledger.submit([sign(operation, wallet)]).result(10)
    assert result.outcome.ok, result


def test_what_one_who_governs_did_not_come_to_is_put_in_force_by_another(board: Cli) -> None:
    """Between a change and its being in force the governor's process may end: of each kind, one."""
    board("wallet", "create", "service-a")
    (certificate,) = board.json("wallet", "show", "service-a")["certificates"]
    cut_short(board, "governance", "freeze", {"name": "service-a"})
    cut_short(board, "governance", "revoke", {"name": "service-a", "x5t": certificate["x5t"]})
    board("policy", "set", "grace_s=9")
    cut_short(board, "second", "approve", {"proposal": board.json("proposals")[0]["id"]})
    assert "not in force yet" in board("policy", "show")
    shown = board.json("wallet", "show", "service-a")
    assert (shown["frozen_since"], shown["certificates"][0]["revoked_since"]) == (None, None)
    board("wallet", "create", "service-b")
    assert "not_governor" in board.refused("enforce", "--as", "service-b")
    said = board("enforce", "--as", "third")
    assert said.count("In force now: ") == 3
    assert board.json("policy", "show")["since"] is not None
    shown = board.json("wallet", "show", "service-a")
    assert None not in (shown["frozen_since"], shown["certificates"][0]["revoked_since"])
    assert board("enforce") == "All that was decided is in force.\n"


def test_only_governors_govern(cli: Cli) -> None:
    cli("wallet", "create", "service-a", "--tokens", "10")
    for command in (
        ["mint", "5"],
        ["grant", "service-a", "5"],
        ["freeze", "governance"],
        ["policy", "set", "grace_s=1"],
    ):
        assert "governor" in cli.refused(*command, "--as", "service-a")


def test_a_wallet_without_its_key_here_cannot_act(cli: Cli) -> None:
    assert "no key for wallet 'somebody'" in cli.refused("mint", "5", "--as", "somebody")


def test_policy_keys_are_set_one_by_one(cli: Cli) -> None:
    before = cli.json("policy", "show")
    cli("policy", "set", "default=deny", "grace_s=60")
    after = cli.json("policy", "show")
    assert (after["default"], after["grace_s"]) == ("deny", 60)
    assert after["version"] > before["version"]
    assert after["tokens_max"] == before["tokens_max"]


def test_policy_rules_are_put_first_in_the_order_given(cli: Cli) -> None:
    cli("policy", "set", "--rule", "deny", "*", "payment", "*")
    cli("policy", "set", "--rule", "allow", "a", "b", "*", "--rule", "deny", "x", "y", "GET /[ab]")
    rules = cli.json("policy", "show")["rules"]
    assert [(rule["effect"], rule["payer"], rule["payee"], rule["operation"]) for rule in rules] == [
        ("allow", "a", "b", "*"),
        ("deny", "x", "y", "GET /[ab]"),
        ("deny", "*", "payment", "*"),
    ]
    assert "GET /[ab]" in cli("policy", "show")
    assert cli.run("policy", "set", "--rule", "perhaps", "a", "b", "*").exit_code == 2


def test_what_policy_show_says_policy_set_takes(cli: Cli, tmp_path: Path) -> None:
    """As a file and from stdin, with the keys given beside it changed."""
    policy = cli.json("policy", "show")
    policy["rules"] = [{"payer": "a", "payee": "*", "operation": "*", "effect": "deny"}]
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    cli("policy", "set", "--file", str(file))
    assert cli.json("policy", "show")["rules"] == policy["rules"]
    cli("policy", "set", "--file", "-", "grace_s=77", stdin=json.dumps(cli.json("policy", "show")))
    assert cli.json("policy", "show")["grace_s"] == 77


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["grace=5"], None, "has no 'grace'"),
        (["grace_s=-5"], None, "cannot be a policy"),
        (["default=perhaps"], None, "cannot be a policy"),
        (["threshold=0"], None, "cannot be a policy"),
        (["--file", "-"], "{", "is not JSON"),
        (["--file", "-"], "[]", "no JSON object"),
        (["--file", "-"], "{}", "cannot be a policy"),
        (["--file", "-"], " " * (2**20 + 1), "larger than"),
    ],
)
def test_what_cannot_be_a_policy_is_refused(
    cli: Cli, arguments: list[str], stdin: str | None, message: str
) -> None:
    before = cli.json("policy", "show")
    assert message in cli.refused("policy", "set", *arguments, stdin=stdin)
    assert cli.json("policy", "show") == before


def test_policy_set_without_a_change_is_wrong_use(cli: Cli) -> None:
    for arguments in ([], ["grace_s"]):
        result = cli.run("policy", "set", *arguments)
        assert result.exit_code == 2
        assert "KEY=VALUE" in result.stderr


def test_with_a_threshold_minting_waits_for_a_second_governor(board: Cli) -> None:
    said = board("mint", "500")
    proposal = proposal_in(said)
    assert "It takes 2 governors" in said
    assert board.json("balance")["supply"]["minted"] == 1000
    waiting = board.json("proposals")
    assert [(one["id"], one["act"], one["by"]) for one in waiting] == [(proposal, "mint", "governance")]
    assert "mint tokens=500" in board("proposals")
    assert "carried out" in board("approve", proposal, "--as", "second")
    assert board.json("balance")["supply"]["minted"] == 1500
    assert board.json("proposals") == []


def test_one_governor_cannot_approve_twice(board: Cli) -> None:
    proposal = proposal_in(board("mint", "500"))
    board.run("approve", proposal)
    assert board.json("balance")["supply"]["minted"] == 1000


def test_with_a_threshold_of_three_two_are_not_enough(board: Cli) -> None:
    board("approve", proposal_in(board("policy", "set", "threshold=3")), "--as", "second")
    proposal = proposal_in(board("mint", "500"))
    assert "more approvals are needed" in board("approve", proposal, "--as", "second")
    assert board.json("balance")["supply"]["minted"] == 1000
    board("approve", proposal, "--as", "third")
    assert board.json("balance")["supply"]["minted"] == 1500


def test_unfreezing_and_policy_are_proposed_freezing_is_not(board: Cli) -> None:
    board("wallet", "create", "service-a")
    board("freeze", "service-a")
    assert board.json("wallet", "show", "service-a")["frozen_at"] is not None
    board("approve", proposal_in(board("unfreeze", "service-a")), "--as", "third")
    assert board.json("wallet", "show", "service-a")["frozen_at"] is None
    board("approve", proposal_in(board("policy", "set", "grace_s=42")), "--as", "third")
    assert board.json("policy", "show")["grace_s"] == 42


def test_with_a_threshold_a_new_governor_and_anothers_rotation_are_proposed(board: Cli) -> None:
    """What one governor alone could use to become two, or to take a wallet, takes two."""
    board("approve", proposal_in(board("wallet", "create", "fourth", "--governor")), "--as", "second")
    assert board.json("wallet", "show", "fourth")["role"] == "governor"
    board("wallet", "create", "service-a")
    old = Wallet.load(board.home, "service-a").x5t
    board("approve", proposal_in(board("wallet", "rotate", "service-a", "--as", "third")), "--as", "fourth")
    assert Wallet.load(board.home, "service-a").x5t == old
    board("wallet", "rotate", "service-a", "--as", "third")
    new = Wallet.load(board.home, "service-a").x5t
    assert new != old
    assert board.json("wallet", "show", "service-a")["certificates"][-1]["x5t"] == new
    board("wallet", "rotate", "service-a")
    assert Wallet.load(board.home, "service-a").x5t != new


def test_a_proposal_that_is_not_there_cannot_be_approved(board: Cli) -> None:
    assert "tokenmesh proposals" in board.refused("approve", "none-such", "--as", "second")

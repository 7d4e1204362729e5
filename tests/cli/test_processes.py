"""The command line as real processes: many at once on one ledger, cut pipes, interruptions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.cli import Cli

SCRIPT = Path(sys.executable).parent / "tokenmesh"


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TOKENMESH_")}
    return subprocess.Popen(
        [SCRIPT, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environ, "TOKENMESH_HOME": str(home)},
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def test_inits_that_run_at_once_make_one_domain_with_one_supply(tmp_path: Path) -> None:
    """One may find another at work and say so; repeated, all end well."""
    home = tmp_path / "home"
    ended = [outcome(one) for one in [start(home, "init", "--supply", "500") for _ in range(3)]]
    assert any(code == 0 for code, _, _ in ended)
    assert all("Traceback" not in error for _, _, error in ended)
    assert outcome(start(home, "init", "--supply", "500"))[0] == 0
    code, out, _ = outcome(start(home, "balance", "--json"))
    assert code == 0
    assert json.loads(out)["supply"] == {"minted": 500, "burned": 0, "accounted": 500, "conserved": True}
    assert outcome(start(home, "verify"))[0] == 0


def test_commands_of_many_processes_at_once_all_happen(cli: Cli) -> None:
    """No command sees a locked database, and none is lost."""
    cli("wallet", "create", "service-a")
    commands = [["mint", "7"], ["grant", "service-a", "3"], ["balance"], ["history"]] * 2
    ended = [outcome(one) for one in [start(cli.home, *command) for command in commands]]
    assert [(code, error) for code, _, error in ended] == [(0, "")] * len(commands)
    assert cli.json("balance")["supply"]["accounted"] == 1014
    assert cli.total("service-a") == 6


def test_home_and_ledger_stand_before_or_after_the_command(cli: Cli, tmp_path: Path) -> None:
    """The one after the command goes before the one in front of it, and both before the environment."""
    other = Cli(tmp_path / "other")
    other("init", "--supply", "77")
    home = ["--home", str(cli.home)]
    for arguments in (
        [*home, "balance", "governance", "--json"],
        ["balance", *home, "governance", "--json"],
        ["--home", str(tmp_path / "nowhere"), "balance", "governance", "--json", *home],
        ["wallet", *home, "show", "governance", "--json"],
        ["balance", "governance", "--json", "--ledger", f"sqlite:///{cli.ledger}"],
    ):
        code, out, error = outcome(start(other.home, *arguments))
        assert (code, error) == (0, "")
        document = json.loads(out)
        assert document.get("spendable", document.get("balance", {}).get("spendable")) == 1000


def test_a_reader_that_goes_away_early_is_no_error_for_people(cli: Cli) -> None:
    for _ in range(3):
        cli("mint", "1")
    process = start(cli.home, "history")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert "Traceback" not in error


def test_where_nothing_is_every_command_says_how_to_begin(tmp_path: Path) -> None:
    for command in (["balance"], ["mint", "5"], ["verify"], ["wallet", "create", "a"], ["history", "--json"]):
        code, out, error = outcome(start(tmp_path / "empty", *command))
        assert (code, out) == (2, "")
        assert "tokenmesh init" in error
        assert len(error.strip().splitlines()) <= 2


def test_wrong_use_is_2_and_says_how_it_is_meant(tmp_path: Path) -> None:
    for command, message in (
        (["blance"], "No such command"),
        (["grant", "a"], "Missing argument"),
        (["balance", "--jsno"], "No such option"),
        (["balance", "--ledger", "mysql://x"], "sqlite"),
    ):
        code, out, error = outcome(start(tmp_path, *command))
        assert (code, out) == (2, "")
        assert message in error
        assert "Traceback" not in error


def test_a_misspelt_setting_in_the_environment_is_told(tmp_path: Path) -> None:
    environ = {**os.environ, "TOKENMESH_HOEM": str(tmp_path)}
    process = subprocess.run(
        [SCRIPT, "balance"], check=False, env=environ, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 2
    assert (
        process.stderr
        == "Error: tokenmesh reads no environment variable TOKENMESH_HOEM: is TOKENMESH_HOME meant?\n"
    )


def test_the_version_is_the_distributions(tmp_path: Path) -> None:
    from importlib.metadata import version

    code, out, _ = outcome(start(tmp_path, "--version"))
    assert (code, out) == (0, f"tokenmesh, version {version('tokenmesh-fabric')}\n")

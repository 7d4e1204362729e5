"""Runs ``tokenmesh`` as a user does, in a home of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tokenmesh.cli.app import tokenmesh


class Cli:
    """Runs ``tokenmesh`` in one home; a call asserts the exit code and gives stdout."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ledger = home / "ledger.db"

    def run(self, *args: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(tokenmesh, ["--home", str(self.home), *args], input=stdin)
        assert "Traceback" not in result.output
        return result

    def __call__(self, *args: str, stdin: str | None = None) -> str:
        result = self.run(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str) -> Any:
        """What a reading command says with ``--json``: one document, and nothing on stderr."""
        result = self.run(*args, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, *args: str, code: int = 2, stdin: str | None = None) -> str:
        """What a command says on stderr that must not end well, in a line or two; stdout stays empty."""
        result = self.run(*args, stdin=stdin)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.strip().splitlines()) <= 2
        return result.stderr

    def spendable(self, name: str) -> int:
        return int(self.json("balance", name)["spendable"])

    def total(self, name: str) -> int:
        return int(self.json("balance", name)["total"])

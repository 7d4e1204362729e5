"""What tables do with other people's text, with pipes and with terminals."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tokenmesh.cli.output import moment, print_facts, print_table, printable

TABLE = """
from tokenmesh.cli.output import print_table
print_table(["name", "tokens"], [["service-a", 1234567]], empty="")
"""


def test_characters_that_a_terminal_would_act_on_are_shown_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A url or an operation's name on the ledger is somebody else's text."""
    evil = "GET /\x1b[2J\x07\x9b31m\u202e[red]x[/red]\nnext"
    print_table(["what", "n"], [[evil, 1]], empty="")
    print_facts([("what", evil)])
    shown = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\\x1b[2J" in shown
    assert "[red]x[/red]" in shown
    assert len(shown.splitlines()) == 3
    assert printable("two\nlines") == "two\nlines"


def test_piped_nothing_is_cut_or_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 5_000
    print_table(["a", "b"], [[long, 1_000_000], ["short", None]], empty="")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [long, "1000000"]
    assert lines[2].split() == ["short", "-"]
    assert all(line == line.rstrip() for line in lines)


def test_an_empty_table_says_so_where_no_program_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [], empty="There are no rows.")
    assert capsys.readouterr() == ("", "There are no rows.\n")


def test_on_a_terminal_numbers_have_separators(tmp_path: Path) -> None:
    """Through a pseudo-terminal, as a person sees it; NO_COLOR takes the colours away."""
    script = tmp_path / "table.py"
    script.write_text(TABLE)
    plain = _in_terminal(script, {"NO_COLOR": "1"})
    assert "1,234,567" in plain
    assert "\x1b[3" not in plain
    assert "\x1b[1m" in _in_terminal(script, {})


def _in_terminal(script: Path, environ: dict[str, str]) -> str:
    outer, inner = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=inner, env={**inherited, "TERM": "xterm", **environ}
    ) as process:
        os.close(inner)
        text = b""
        try:
            while part := os.read(outer, 65_536):
                text += part
        except OSError:  # the other end is closed: all was read
            process.wait(30)
        finally:
            os.close(outer)
    return text.decode()


def test_times_are_utc_to_the_second() -> None:
    assert moment(1_800_000_000.9) == "2027-01-15 08:00:00Z"
    assert moment(None) == "-"

"""The command line's page has an entry for every command and each of its options, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tokenmesh.cli.app import tokenmesh

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text()
EVERYWHERE = {"--home", "--ledger", "--help"}


def commands(command: click.Command, path: str = "tokenmesh") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(commands(tokenmesh))


def entry(path: str) -> str:
    """The part of the page under the command's heading."""
    _, found, rest = PAGE.partition(f"\n### `{path}`\n")
    assert found, f"docs/reference/command-line.md has no entry for {path!r}"
    return re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_its_entry(path: str) -> None:
    options = {
        name for param in COMMANDS[path].params if isinstance(param, click.Option) for name in param.opts
    }
    documented = set(re.findall(r"(?<![\w-])--[a-z-]+(?=[^`]*`[^`]*:)", entry(path)))
    assert options - EVERYWHERE == documented


def test_no_entry_is_about_a_command_that_does_not_exist() -> None:
    assert set(re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)) == set(COMMANDS)


def test_the_options_of_all_commands_stand_at_the_top() -> None:
    top = PAGE.partition("\n## ")[0]
    assert all(f"`{name}" in top or f"`{name}`" in top for name in EVERYWHERE)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_explains_itself(path: str) -> None:
    """A first line of help, a help text on each option, and home and ledger on all of them."""
    command = COMMANDS[path]
    assert command.get_short_help_str()
    names = {name for param in command.params for name in param.opts}
    assert {"--home", "--ledger"} <= names
    assert all(param.help for param in command.params if isinstance(param, click.Option))

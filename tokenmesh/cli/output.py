"""How answers look: tables for people, one line a row when piped, one JSON document with ``--json``.

What stands in a table comes from the ledger, so from other people: characters that would move a terminal's
cursor or change its colours are shown as escapes.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 100_000
"""Wide enough that nothing is cut or wrapped when another program reads."""


class Link(str):
    """A URL, which a terminal that knows how makes one to click on."""

    __slots__ = ()


def print_json(value: Any) -> None:
    """Print ``value`` as the one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def say(text: str) -> None:
    """A line for people about what was done, on stdout."""
    click.echo(printable(text))


def warn(text: str | None) -> None:
    """A warning on stderr, where it disturbs no program that reads stdout."""
    if text:
        click.echo(click.style("Warning: ", fg="yellow") + printable(text), err=True)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    empty: str,
    folding: Collection[str] = (),
) -> None:
    """A table; numbers stand right. Piped: without frame and colour, one row a line, numbers bare.

    On a terminal that is too narrow the columns ``folding`` go over several lines.
    """
    piped = not sys.stdout.isatty()
    if not rows:
        click.echo(empty, err=piped)
        return
    table = Table(
        box=None if piped else box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold"
    )
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int) for row in rows)
        table.add_column(
            column.upper(),
            justify="right" if numeric else "left",
            no_wrap=piped or column not in folding,
            overflow="fold",  # an id cut short could not be copied
        )
    for row in rows:
        table.add_row(*(_cell(value, piped) for value in row))
    _print(table, piped)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """One thing, as lines of a name and a value."""
    piped = not sys.stdout.isatty()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", no_wrap=piped)
    for name, value in facts:
        table.add_row(name, _cell(value, piped))
    _print(table, piped)


def progress(unit: str) -> Progress:
    """A progress bar on stderr; it shows on a terminal only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def short(long_id: str) -> str:
    """An id as a table has room for it on a terminal; piped, and in JSON, it stands whole."""
    return f"{long_id[:12]}…" if sys.stdout.isatty() else long_id


def moment(seconds: float | None) -> str:
    """A time for people: UTC, to the second; a dash for none."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def brief(argument: Mapping[str, Any], length_max: int = 80) -> str:
    """An operation's argument in a few words, without certificates and lists."""
    words = " ".join(f"{key}={value}" for key, value in argument.items() if key != "cert" and _short(value))
    return words if len(words) <= length_max else words[: length_max - 1] + "…"


def _short(value: object) -> bool:
    return isinstance(value, int | str) and value != ""


def printable(text: str) -> str:
    """``text`` with everything that a terminal would act on, new lines apart, shown as an escape."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _cell(value: object, piped: bool) -> Text:
    if value is None or value == "":
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(str(value) if piped else f"{value:,}")
    if isinstance(value, Link) and not piped:
        return Text(value, Style(link=value))
    return Text(printable(str(value)).replace("\n", " "))


def _print(table: Table, piped: bool) -> None:
    if not piped:
        Console().print(table)
        return
    buffer = io.StringIO()
    Console(file=buffer, width=PIPED_WIDTH, color_system=None).print(table)
    click.echo("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))

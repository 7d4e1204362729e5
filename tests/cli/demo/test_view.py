"""What people see: a table on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from tokenmesh.cli.demo.view import PLAIN_STATUS_S, Row, View

ROWS = [Row("cart", "FastAPI, uvicorn", "killed", 1234, 5, 6, 7, 8)]


def shown(*, terminal: bool, quiet: bool = False) -> str:
    """Everything that a console got from one event and two looks at the same rows."""
    out = StringIO()
    now = [0.0]
    console = Console(file=out, force_terminal=terminal, width=110, color_system=None)
    with View(console, quiet=quiet, clock=lambda: now[0]) as view:
        view.event("cart is [killed]")
        view.show("the shop is open", 0.5, ROWS)
        now[0] = PLAIN_STATUS_S
        view.show("the shop is open", 0.6, ROWS)
    return out.getvalue()


def test_a_terminal_gets_the_table() -> None:
    """Wallet, state and figures of every row, and the events, markup in them taken literally."""
    text = shown(terminal=True)
    for part in ("the shop is open", "cart", "killed", "1,234", "cart is [killed]"):
        assert part in text


def test_a_pipe_gets_lines() -> None:
    """Events as they occur and now and then where it stands; no control characters."""
    text = shown(terminal=False)
    assert text.splitlines() == [
        "   0.0 s  cart is [killed]",
        "   5.0 s  the shop is open: 5 paid calls",
    ]


def test_quiet_is_quiet() -> None:
    """Neither table nor lines, on a terminal or off it."""
    assert shown(terminal=False, quiet=True) == shown(terminal=True, quiet=True) == ""

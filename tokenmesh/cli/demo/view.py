"""What people see while the demo runs: a live table of the services and the events, or plain lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

EVENTS_SHOWN = 12
LINES_AROUND = 6
PLAIN_STATUS_S = 5.0
STATE_STYLES = {"up": "green", "starting": "yellow", "frozen": "blue", "dry": "magenta", "killed": "bold red"}


class Row(NamedTuple):
    """A wallet at this moment. ``balance`` is what it has and has set aside; the rest the wire has seen."""

    name: str
    served_by: str
    state: str
    balance: int | None
    calls: int
    earned: int
    spent: int
    lost: int


class View:
    """Shows the demo on a console. On a terminal it redraws itself; elsewhere it prints lines."""

    def __init__(self, console: Console, *, quiet: bool, clock: Callable[[], float]) -> None:
        self._console = console
        self._quiet = quiet
        self._clock = clock
        self._began = clock()
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self._headline = ""
        self._part = 0.0
        self._rows: list[Row] = []
        self._plain_at = clock()
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            # The loop redraws: a thread of rich's own would compete with ten services for two cores.
            self._live = Live(console=console, auto_refresh=False, transient=True)

    @property
    def watched(self) -> bool:
        """Whether the table is drawn at all."""
        return self._live is not None

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def event(self, text: str, style: str = "") -> None:
        """Something occurred that people should see."""
        line = Text.assemble((f"{self._clock() - self._began:6.1f} s  ", "dim"), (text, style))
        self._events.append(line)
        if not self._quiet and self._live is None:
            self._console.print(line)

    def show(self, headline: str, part: float, rows: list[Row]) -> None:
        """Where the demo stands: ``part`` of it, from 0 to 1, is over."""
        self._headline, self._part, self._rows = headline, part, rows
        if self._live:
            self._live.update(self._picture(), refresh=True)
        elif not self._quiet and self._clock() - self._plain_at >= PLAIN_STATUS_S:
            self._plain_at = self._clock()
            calls = sum(row.calls for row in rows)
            self._console.print(f"{self._clock() - self._began:6.1f} s  {headline}: {calls} paid calls")

    def _picture(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, header_style="bold")
        for column in ("wallet", "served by", "state"):
            table.add_column(column)
        for column in ("balance", "calls", "earned", "spent", "lost"):
            table.add_column(column, justify="right")
        for row in self._rows:
            style = STATE_STYLES.get(row.state, "")
            balance = "" if row.balance is None else f"{row.balance:,}"
            figures = (f"{number:,}" for number in (row.calls, row.earned, row.spent, row.lost))
            state = f"[{style}]{row.state}[/]" if style else escape(row.state)
            table.add_row(row.name, row.served_by, state, balance, *figures)
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_row(Text(self._headline, style="bold"), ProgressBar(total=1.0, completed=self._part))
        # What does not fit on the terminal would be cut off below, where the newest event stands.
        room = max(1, self._console.size.height - len(self._rows) - LINES_AROUND)
        return Group(bar, table, *list(self._events)[-room:])

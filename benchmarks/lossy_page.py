"""The table and the plot of the lossy scoreboard, as they stand in the docs; for ``lossy.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]

TITLES = {
    "tokenmesh_embedded": "tokenmesh, embedded ledger",
    "tokenmesh_fabric": "tokenmesh, Fabric",
    "tokenmesh_without_retries": "tokenmesh, retries off",
    "x402": "x402",
    "pympp": "pympp",
}
COLOURS = {
    "tokenmesh_embedded": "#b45309",
    "tokenmesh_fabric": "#f59e0b",
    "tokenmesh_without_retries": "#fcd34d",
    "x402": "#334155",
    "pympp": "#94a3b8",
}
COLUMNS = ("calls", "overcharged", "handler_runs", "stranded_tokens", "served_free", "gave_up")
GROUPS = {f"lossy_{percent}_naive": f"{percent} % lost" for percent in (5, 20, 50)}
WIDTH, HEIGHT, FLOOR, CEILING = 880, 360, 300, 90
LEFT, BAR, GAP = 60, 40, 4


def table(figures: Figures) -> str:
    """Markdown: a line for each case and system."""
    lines = ["| case | system | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |"]
    lines.append("|---|---|" + "---|" * len(COLUMNS))
    names = dict.fromkeys(case for by_case in figures.values() for case in by_case)
    for case in names:
        for system, by_case in figures.items():
            if case in by_case:
                cells = " | ".join(f"{by_case[case][column]:,}" for column in COLUMNS)
                lines.append(f"| `{case}` | {TITLES[system]} | {cells} |")
    return "\n".join(lines)


def plot(figures: Figures, calls: int) -> str:
    """SVG: payments too many with the naive loop, by the part of responses lost."""
    shown = [name for name in TITLES if name in figures]
    values = {
        (case, system): int(figures[system][case]["overcharged"])
        for case in GROUPS
        for system in shown
        if case in figures[system]
    }
    top = max([*values.values(), 1])
    pitch = (WIDTH - 2 * LEFT) / len(GROUPS)
    bars = []
    for number, (case, title) in enumerate(GROUPS.items()):
        whole = len(shown) * (BAR + GAP) - GAP
        left = LEFT + number * pitch + (pitch - whole) / 2
        for place, system in enumerate(shown):
            if (case, system) in values:
                bars.append(_bar(left + place * (BAR + GAP), values[case, system], top, COLOURS[system]))
        bars.append(_text(left + whole / 2, FLOOR + 24, title, anchor="middle"))
    heading = f"Payments too many in {calls:,} calls, with a loop that tries again until there is an answer"
    spoken = "; ".join(
        f"{TITLES[system]} at {GROUPS[case]}: {value}" for (case, system), value in values.items()
    )
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="14" role="img" '
        f'aria-label="{heading}. {spoken}.">'
    )
    return "\n".join(
        [
            opening,
            f'  <rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#f8fafc"/>',
            f'  <text x="{LEFT}" y="34" fill="#0f172a" font-weight="700" font-size="16">{heading}</text>',
            *_legend(shown),
            f'  <path d="M{LEFT} {FLOOR}H{WIDTH - LEFT}" stroke="#334155" stroke-width="1.5"/>',
            *bars,
            "</svg>\n",
        ]
    )


def _bar(left: float, value: int, top: int, colour: str) -> str:
    height = value / top * (FLOOR - CEILING)
    bar = (
        f'  <rect x="{left:.0f}" y="{FLOOR - height:.1f}" width="{BAR}" height="{height:.1f}" '
        f'fill="{colour}"/>\n'
    )
    return bar + _text(left + BAR / 2, FLOOR - height - 6, f"{value:,}", anchor="middle")


def _legend(shown: list[str]) -> list[str]:
    lines, left = [], LEFT
    for system in shown:
        lines.append(f'  <rect x="{left}" y="48" width="12" height="12" fill="{COLOURS[system]}"/>')
        lines.append(_text(left + 18, 59, TITLES[system]))
        left += 40 + 7 * len(TITLES[system])
    return lines


def _text(left: float, top: float, text: str, anchor: str = "start") -> str:
    return f'  <text x="{left:.0f}" y="{top:.1f}" fill="#0f172a" text-anchor="{anchor}">{text}</text>'

"""What will be done to whom, and when: drawn from a seed, before anything runs.

The same seed gives the same plan. What comes of it depends on where every process happens to be at that
moment, so a run is never quite the same twice; the plan is what one repeats to find a failure again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from tokenmesh.cli.demo.chance import seeded

KILL, STOP = "SIGKILL", "SIGSTOP"

GAP_S = {"embedded": (0.3, 1.3), "fabric": (0.6, 2.0)}
"""Between two deeds. A transaction on Fabric needs every node: with less peace nothing would get done."""
SHORT_S = (0.05, 1.2)
LONG_S = (2.5, 6.0)
"""Longer than a lease: who was only asleep finds that others have decided for it."""
LONG_PART = 0.25
STORM_S = 20.0
LULL_S = 4.0
"""After each storm, so that what has piled up is not only piled up."""


class Deed(NamedTuple):
    """One piece of trouble: at ``at_s``, ``victim`` gets the signal ``how``. After ``for_s`` who was stopped
    is woken, and a node that was killed is started; everyone else is started again at once."""

    at_s: float
    victim: str
    how: Literal["SIGKILL", "SIGSTOP"]
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.how} {self.victim} for {self.for_s:.2f} s"


def draw(
    seed: int, seconds: float, kind: str, victims: Mapping[str, str], nodes: Collection[str]
) -> list[Deed]:
    """The plan for ``seconds`` on a ledger of ``kind``. ``victims`` maps each name to what it is part of: of
    that, one thing at a time is disturbed. ``nodes`` are those of them that nobody starts again at once."""
    dice = seeded(seed, kind, "plan")
    deeds: list[Deed] = []
    free_at: dict[str, float] = {}
    turn = _first_round(seed, kind, list(victims))
    now = dice.uniform(*GAP_S[kind])
    while now < seconds:
        victim, how = turn.pop() if turn else (dice.choice(list(victims)), dice.choice((KILL, KILL, STOP)))
        for_s = dice.uniform(*(LONG_S if dice.random() < LONG_PART else SHORT_S))
        if how == KILL and victim not in nodes:
            for_s = 0.0
        group = victims[victim]
        if now >= free_at.get(group, 0.0):
            deeds.append(Deed(round(now, 2), victim, how, round(for_s, 2)))
            free_at[group] = now + for_s + 0.5
        now += dice.uniform(*GAP_S[kind])
        if now % (STORM_S + LULL_S) > STORM_S:
            now += LULL_S
    return deeds


def _first_round(seed: int, kind: str, victims: Sequence[str]) -> list[tuple[str, str]]:
    """Everyone once, in any order, each by either signal: also a short run spares nobody."""
    dice = seeded(seed, kind, "first round")
    order = dice.sample(list(victims), len(victims))
    return [(victim, dice.choice((KILL, STOP))) for victim in order]

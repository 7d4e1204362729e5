"""The trouble, scene by scene: each waits for its moment, does its deed, and sees how it ends.

A scene is a generator that the demo's loop steps a few times a second; it yields while it waits. So all
trouble happens on one thread, in an order that a test can hold still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from tokenmesh.cli.demo.plan import IS_FROZEN, RUNS_DRY, TOP_UP_TOKENS, Trouble

Scene = Iterator[None]


class Stage(Protocol):
    """What the scenes can do and see. Times are seconds since the first shopper came."""

    states: dict[str, str]

    def seconds(self) -> float: ...
    def event(self, text: str, style: str = "") -> None: ...
    def kill(self, service: str) -> None: ...
    def restart(self, service: str) -> None: ...
    def answers(self, service: str) -> bool: ...
    def seen_dry(self) -> bool: ...
    def govern(self, act: str, **argument: object) -> None: ...


class Deed(NamedTuple):
    """A piece of trouble that really took place, for the summary."""

    what: str
    who: str
    at_s: float
    until_s: float


def killing(stage: Stage, plan: Trouble, deeds: list[Deed]) -> Scene:
    """SIGKILL for one service in the middle of its work; a while later it is started again."""
    yield from _until(stage, plan.kill_s)
    began = stage.seconds()
    stage.kill(plan.killed)
    stage.states[plan.killed] = "killed"
    stage.event(f"{plan.killed} is killed (SIGKILL), whatever it is doing", "bold red")
    yield from _until(stage, plan.kill_s + plan.down_s)
    stage.restart(plan.killed)
    stage.states[plan.killed] = "starting"
    while not stage.answers(plan.killed):
        yield
    stage.states[plan.killed] = "up"
    stage.event(f"{plan.killed} is back, with its journal", "green")
    deeds.append(Deed("killed and restarted", plan.killed, began, stage.seconds()))


def freezing(stage: Stage, plan: Trouble, deeds: list[Deed]) -> Scene:
    """Governance freezes a wallet, and unfreezes it later: meanwhile it may earn but not pay."""
    yield from _until(stage, plan.freeze_s)
    began = stage.seconds()
    stage.govern("freeze", name=IS_FROZEN)
    stage.states[IS_FROZEN] = "frozen"
    stage.event(f"governance froze the wallet of {IS_FROZEN}: no orders until it is cleared", "blue")
    yield from _until(stage, plan.unfreeze_s)
    stage.govern("unfreeze", name=IS_FROZEN)
    stage.states[IS_FROZEN] = "up"
    stage.event(f"governance unfroze {IS_FROZEN}", "green")
    deeds.append(Deed("frozen and unfrozen", IS_FROZEN, began, stage.seconds()))


def running_dry(stage: Stage, plan: Trouble, deeds: list[Deed]) -> Scene:
    """A wallet that pays more than it earns runs dry all by itself; governance tops it up."""
    while not stage.seen_dry() and stage.seconds() < plan.top_up_latest_s:
        yield
    began, dry = stage.seconds(), stage.seen_dry()
    if dry:
        stage.states[RUNS_DRY] = "dry"
        stage.event(f"{RUNS_DRY} has run dry: pages are served without it", "magenta")
        yield from _until(stage, min(began + plan.top_up_s, plan.top_up_latest_s))
    stage.govern("grant", to=RUNS_DRY, tokens=TOP_UP_TOKENS)
    stage.states[RUNS_DRY] = "up"
    stage.event(f"governance granted {TOP_UP_TOKENS:,} tokens to {RUNS_DRY}", "green")
    if dry:
        deeds.append(Deed("ran dry and was topped up", RUNS_DRY, began, stage.seconds()))


def _until(stage: Stage, seconds: float) -> Scene:
    while stage.seconds() < seconds:
        yield

"""The time of a run stands still while the run does."""

from __future__ import annotations

import pytest
from chaos.pace import STEP_S_MAX, Pace


class Clock:
    """A clock that only sleeping moves on, and now and then a pause of the whole machine."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0
        self.pauses = [0.0]

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds + (self.pauses.pop() if self.pauses else 0.0)


def test_it_keeps_time() -> None:
    """Where nothing stands still it is like any other clock."""
    clock = Clock()
    pace = Pace(clock, clock.sleep)
    pace.until(3.0)
    assert pace.now() == pytest.approx(3.0)
    assert clock.slept == pytest.approx(3.0)


def test_a_pause_of_a_minute_does_not_count() -> None:
    """All of three seconds is there to be used, whatever was lost in between."""
    clock = Clock()
    clock.pauses = [60.0]
    pace = Pace(clock, clock.sleep)
    pace.until(3.0)
    assert clock.slept > 3.0 - STEP_S_MAX
    assert clock.now > 160.0


def test_what_is_over_is_not_waited_for() -> None:
    clock = Clock()
    pace = Pace(clock, clock.sleep)
    pace.until(-1.0)
    assert clock.slept == 0

"""The plan of a run: the same for the same seed, it spares nobody, and leaves each in peace for a while."""

from __future__ import annotations

from collections import defaultdict

import pytest
from chaos.cast import PAYERS, WORKERS
from chaos.grounds import KINDS, NODES
from chaos.plan import KILL, LULL_S, STOP, STORM_S, Deed, draw

VICTIMS = {
    **{name: name for name in (*PAYERS, "governor", "payee")},
    **{f"payee worker {number}": "payee" for number in range(1, WORKERS + 1)},
    **{name: name for name in NODES},
}


def plan(seed: int = 1, seconds: float = 600.0, kind: str = "embedded") -> list[Deed]:
    return draw(seed, seconds, kind, VICTIMS, NODES)


def test_the_same_seed_gives_the_same_plan() -> None:
    """So a failure can be sought again; and another seed gives another plan."""
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


@pytest.mark.parametrize("kind", KINDS)
def test_everyone_is_killed_and_stopped_and_nobody_twice_at_once(kind: str) -> None:
    """All deeds lie within the run, in order, in storms; parts of one thing are disturbed one by one."""
    deeds = plan(kind=kind)
    assert {(deed.victim, deed.how) for deed in deeds} == {
        (victim, how) for victim in VICTIMS for how in (KILL, STOP)
    }
    assert [deed.at_s for deed in deeds] == sorted(deed.at_s for deed in deeds)
    assert deeds[0].at_s > 0
    assert deeds[-1].at_s < 600.0
    assert all(deed.at_s % (STORM_S + LULL_S) <= STORM_S + 0.01 for deed in deeds)
    free_at: defaultdict[str, float] = defaultdict(float)
    for deed in deeds:
        assert deed.at_s >= free_at[VICTIMS[deed.victim]]
        free_at[VICTIMS[deed.victim]] = deed.at_s + deed.for_s


def test_who_is_started_again_at_once_does_not_stay_away() -> None:
    """Only a node that is killed stays away, and whoever is stopped."""
    for deed in plan():
        assert (deed.for_s > 0) == (deed.how == STOP or deed.victim in NODES)

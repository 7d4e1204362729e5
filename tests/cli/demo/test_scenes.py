"""The trouble comes when the plan says so, to whom it says, and is over in the end."""

from __future__ import annotations

from tokenmesh.cli.demo.plan import CAN_BE_KILLED, IS_FROZEN, NAMES, RUNS_DRY, Trouble, trouble
from tokenmesh.cli.demo.scenes import Deed, freezing, killing, running_dry

PLAN = Trouble(killed="cart", kill_s=2, down_s=1, freeze_s=5, unfreeze_s=7, top_up_s=2, top_up_latest_s=9)


class Rehearsal:
    """A stage that writes down what is done on it, under a clock that the test holds."""

    def __init__(self, dry_from: float = 4, back_after: float = 0.5) -> None:
        self.states: dict[str, str] = {}
        self.done: list[tuple[float, str]] = []
        self.events: list[str] = []
        self._now = 0.0
        self._dry_from = dry_from
        self._back_after = back_after
        self._restarted = 0.0

    def seconds(self) -> float:
        return self._now

    def event(self, text: str, style: str = "") -> None:
        self.events.append(text)

    def kill(self, service: str) -> None:
        self.done.append((self._now, f"kill {service}"))

    def restart(self, service: str) -> None:
        self._restarted = self._now
        self.done.append((self._now, f"restart {service}"))

    def answers(self, service: str) -> bool:
        return self._now >= self._restarted + self._back_after

    def seen_dry(self) -> bool:
        return self._now >= self._dry_from

    def govern(self, act: str, **argument: object) -> None:
        self.done.append((self._now, " ".join(map(str, (act, *argument.values())))))

    def play(self, seconds: float = 12) -> list[Deed]:
        deeds: list[Deed] = []
        scenes = [scene(self, PLAN, deeds) for scene in (killing, freezing, running_dry)]
        while self._now < seconds:
            self._now += 0.25
            for scene in scenes:
                next(scene, None)
        return deeds


def test_all_trouble_comes_and_goes() -> None:
    """Killed and restarted, frozen and unfrozen, dry and topped up, each at its time."""
    stage = Rehearsal()
    deeds = stage.play()
    assert stage.done == [
        (2, "kill cart"),
        (3, "restart cart"),
        (5, f"freeze {IS_FROZEN}"),
        (6, f"grant {RUNS_DRY} 50000"),
        (7, f"unfreeze {IS_FROZEN}"),
    ]
    assert {(deed.what, deed.who, deed.at_s, deed.until_s) for deed in deeds} == {
        ("killed and restarted", "cart", 2, 3.5),
        ("frozen and unfrozen", IS_FROZEN, 5, 7),
        ("ran dry and was topped up", RUNS_DRY, 4, 6),
    }
    assert set(stage.states.values()) == {"up"}


def test_trouble_that_did_not_happen_is_not_told() -> None:
    """A wallet that never ran dry is topped up at the latest moment, and no deed claims otherwise."""
    stage = Rehearsal(dry_from=1_000)
    deeds = stage.play()
    assert (9, f"grant {RUNS_DRY} 50000") in stage.done
    assert not [deed for deed in deeds if deed.who == RUNS_DRY]


def test_a_service_that_does_not_come_back_is_no_deed() -> None:
    """The restart has not worked until the service answers."""
    stage = Rehearsal(back_after=1_000)
    assert not [deed for deed in stage.play() if deed.who == "cart"]
    assert stage.states["cart"] == "starting"


def test_the_seed_decides_the_trouble() -> None:
    """The same seed brings the same trouble, others bring other; all of it fits the time there is."""
    assert trouble(5, 15) == trouble(5, 15)
    plans = [trouble(seed, 10) for seed in range(60)]
    assert {plan.killed for plan in plans} == set(CAN_BE_KILLED) < set(NAMES)
    for plan in plans:
        assert 0 < plan.kill_s + plan.down_s < plan.freeze_s < plan.unfreeze_s < 10
        assert plan.top_up_latest_s < 10

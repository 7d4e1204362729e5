"""Retry policies: tenacity's strategies and hooks, within bounds, on a clock that the test holds."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tenacity

from support.wallets import Clock
from tokenmesh import retry
from tokenmesh.errors import ConfigError, NotSpent, OutcomeUnknown, Unreachable, Voided
from tokenmesh.retry import ATTEMPTS_MAX, FullJitter, Policy, Tries, policy_of

ERROR = Unreachable("no connection")


def waits(tries: Tries, clock: Clock, **outcome: Any) -> list[float]:
    """All waits until the policy stops, with the clock going on as it would."""
    found = []
    while (wait := tries.again(**({"error": ERROR} | outcome))) is not None:
        found.append(wait)
        clock.forward(wait)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_default_is_bounded_in_number(clock: Clock) -> None:
    """One wait less than tries, each at most twice as long as the one before might have been."""
    found = waits(Tries(Policy(), "GET", clock), clock)
    assert len(found) == ATTEMPTS_MAX - 1
    assert all(0 <= wait <= 0.1 * 2**n for n, wait in enumerate(found))


def test_the_default_is_bounded_in_time(clock: Clock) -> None:
    """No try begins after thirty seconds, however few there were."""
    tries = Tries(Policy(), "GET", clock)
    clock.forward(29.9)
    assert tries.again(error=ERROR, retry_after=1) is None


def test_jitter_is_full_and_seeded(clock: Clock) -> None:
    """Anywhere from nothing to the bound; the same seed, the same waits."""
    seeded = [
        waits(Tries(Policy(wait=FullJitter(chance=random.Random(7))), "GET", clock), clock) for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    wide = FullJitter(first=1, longest=8, chance=random.Random(1))
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = 30
    drawn = [wide(state) for _ in range(400)]
    assert min(drawn) < 0.5
    assert 7.5 < max(drawn) <= 8


def test_retry_after_is_waited_for_and_past_the_limit_a_stop(clock: Clock) -> None:
    assert (Tries(Policy(), "GET", clock).again(error=ERROR, retry_after=3) or 0) >= 3
    assert Tries(Policy(), "GET", clock).again(error=ERROR, retry_after=5.1) is None


def test_a_wait_beyond_the_contracts_life_is_a_stop(clock: Clock) -> None:
    assert Tries(Policy(wait=lambda state: 2), "GET", clock).again(error=ERROR, at_most=2) is None
    assert Tries(Policy(wait=lambda state: 2), "GET", clock).again(error=ERROR, at_most=2.1) == 2


@pytest.mark.parametrize(
    ("outcome", "method", "repeated"),
    [
        ({"error": ERROR}, "POST", True),
        ({"error": OutcomeUnknown("?")}, "POST", True),
        ({"error": NotSpent("no")}, "GET", False),
        ({"error": Voided("killed")}, "GET", True),
        ({"error": Voided("killed")}, "POST", False),
        ({"status": 503}, "GET", True),
        ({"status": 503}, "PUT", True),
        ({"status": 503}, "POST", False),
        ({"status": 500}, "GET", False),
        ({"status": 200}, "GET", False),
    ],
)
def test_what_the_default_repeats(outcome: dict[str, Any], method: str, repeated: bool) -> None:
    """Errors that say so, and what runs a handler again only for idempotent methods."""
    assert (Tries(Policy(), method).again(**outcome) is not None) is repeated


@pytest.mark.parametrize("kind", [tenacity.Retrying, tenacity.AsyncRetrying])
def test_tenacitys_own_objects_are_policies(kind: Any, clock: Clock) -> None:
    """Their stop, wait and retry decide."""
    given = kind(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(1) + tenacity.wait_fixed(0.5),
        retry=tenacity.retry_if_exception_type(Unreachable) & tenacity.retry_if_exception_message(match="no"),
    )
    policy = policy_of(given, Policy())
    assert waits(Tries(policy, "GET", clock), clock) == [1.5, 1.5]
    assert Tries(policy, "GET", clock).again(error=OutcomeUnknown("no")) is None


def test_stops_by_time_use_the_clock_that_was_handed_in(clock: Clock) -> None:
    """stop_after_delay counts the seconds of a simulator, too."""
    policy = Policy(stop=tenacity.stop_after_delay(10), wait=tenacity.wait_fixed(4))
    assert waits(Tries(policy, "GET", clock), clock) == [4, 4, 4]


def test_what_tenacity_repeats_when_nothing_was_said_is_what_is_safe() -> None:
    """Its default, any exception, would repeat what cannot succeed and miss a handler's 503."""
    policy = policy_of(tenacity.Retrying(stop=tenacity.stop_after_attempt(3)), Policy())
    assert Tries(policy, "GET").again(error=NotSpent("no")) is None
    assert Tries(policy, "GET").again(status=503) is not None
    assert Tries(policy, "POST").again(status=503) is None


def test_a_policy_that_is_switched_off_repeats_nothing() -> None:
    policy = policy_of(tenacity.Retrying(enabled=False), Policy())
    assert Tries(policy, "GET").again(error=ERROR) is None


def test_tenacitys_endless_default_ends(clock: Clock) -> None:
    """For ever is a thousand tries here, if the contract lives so long."""
    assert len(waits(Tries(policy_of(tenacity.Retrying(), Policy()), "GET", clock), clock)) == 999


def test_hooks_are_called_with_the_state_that_tenacity_gives(clock: Clock) -> None:
    """before, after and before_sleep: number, outcome, next sleep."""
    seen: list[tuple[Any, ...]] = []
    given = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(2),
        wait=tenacity.wait_fixed(1),
        before=lambda state: seen.append(("before", state.attempt_number)),
        after=lambda state: seen.append(
            ("after", state.attempt_number, state.outcome and state.outcome.failed)
        ),
        before_sleep=lambda state: seen.append(
            ("sleep", state.next_action and state.next_action.sleep, state.seconds_since_start)
        ),
    )
    waits(Tries(policy_of(given, Policy()), "GET", clock), clock)
    assert seen == [("before", 1), ("after", 1, True), ("sleep", 1, 0), ("before", 2), ("after", 2, True)]


def test_a_strategy_of_ones_own_sees_retry_after_method_and_status(clock: Clock) -> None:
    seen: list[Any] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append((retry.retry_after(state), state.kwargs["method"], state.kwargs["status"]))
        return 0

    Tries(Policy(wait=wait), "PUT", clock).again(status=503, retry_after=2)
    assert seen == [(2.0, "PUT", 503)]


def test_a_policy_that_would_have_to_be_awaited_is_refused() -> None:
    """The same policy serves sync and async calls."""

    async def later(state: tenacity.RetryCallState) -> bool:
        return True

    with pytest.raises(ConfigError, match="coroutine"):
        policy_of(tenacity.AsyncRetrying(retry=tenacity.asyncio.retry_if_exception(later)), Policy())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="before of the retry policy is a coroutine"):
        policy_of(Policy(before=later), Policy())


@pytest.mark.parametrize("given", [3, "twice", tenacity.stop_after_attempt(3)])
def test_what_is_no_policy_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"tenacity\.Retrying"):
        policy_of(given, Policy())


def test_nothing_said_is_the_default() -> None:
    default = Policy()
    assert policy_of(None, default) is default

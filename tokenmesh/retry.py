"""Retry policies: when to stop, how long to wait, what to repeat, in tenacity's own terms.

A policy sees what the caller would see if this were the last try: an error of the tree in
:mod:`tokenmesh.errors` (its ``__cause__`` is the transport's own), or the response. It decides *whether* to
go on; that going on is *safe* is decided before it is asked, in :mod:`tokenmesh.consumer`: a fulfilled call
is never repeated, a contract whose end is unknown only as itself, and a new one is made only when the old
one certainly cost nothing.

tenacity's loop and sleep are not used (they would block an event loop and cannot run in a simulator); its
strategies and hooks are, with :class:`tenacity.RetryCallState`.
"""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import tenacity
from tenacity import RetryCallState

from tokenmesh.errors import ConfigError, Voided

ATTEMPTS_MAX = 6
TOTAL_S_MAX = 30.0
WAIT_S_MAX = 5.0
WAIT_S_FIRST = 0.1
TRIES_MAX = 1_000
"""No policy, tenacity's endless default included, gets more tries than this out of one call."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that mean the same once or twice (RFC 9110, section 9.2.2)."""
TEMPORARY = frozenset({502, 503, 504})

Strategy: TypeAlias = Callable[[RetryCallState], Any]


def retry_after(state: RetryCallState) -> float | None:
    """The seconds that the last answer's ``Retry-After`` asks for: for a ``wait`` or ``stop`` of your own."""
    seconds = state.kwargs.get("retry_after")
    return None if seconds is None else float(seconds)


def repeat_what_is_safe(state: RetryCallState) -> bool:
    """The default ``retry``: errors that say they are retryable, and handlers' own 502, 503 and 504.

    Of what would run the handler a second time, only idempotent requests.
    """
    outcome = state.outcome
    if outcome is None:
        return False
    idempotent = state.kwargs.get("method") in IDEMPOTENT
    if outcome.failed:
        error = outcome.exception()
        return bool(getattr(error, "retryable", False)) and (idempotent or not isinstance(error, Voided))
    return idempotent and state.kwargs.get("status") in TEMPORARY


class FullJitter(tenacity.wait.wait_base):
    """The default ``wait``: a random time up to ``first`` seconds, a bound that doubles with every try up to
    ``longest``. Of many callers that failed together, few come back together.

    A ``Retry-After`` is waited for on top of it, up to ``longest``.
    """

    def __init__(
        self, first: float = WAIT_S_FIRST, longest: float = WAIT_S_MAX, chance: random.Random | None = None
    ) -> None:
        self.first = first
        self.longest = longest
        self._chance = chance or random.Random()  # noqa: S311 - spreads callers, keeps no secret

    def __call__(self, retry_state: RetryCallState) -> float:
        bound = min(self.longest, self.first * 2.0 ** min(retry_state.attempt_number - 1, 60))
        return self._chance.uniform(0, bound) + min(retry_after(retry_state) or 0.0, self.longest)


class StopAtRetryAfter(tenacity.stop.stop_base):
    """Stop when the payee asks for a wait of more than ``longest`` seconds."""

    def __init__(self, longest: float = WAIT_S_MAX) -> None:
        self.longest = longest

    def __call__(self, retry_state: RetryCallState) -> bool:
        return (retry_after(retry_state) or 0.0) > self.longest


def stop_by_default(
    attempts_max: int = ATTEMPTS_MAX, total_s_max: float = TOTAL_S_MAX, wait_s_max: float = WAIT_S_MAX
) -> Strategy:
    """The default ``stop``: bounded in tries, in time, and in what a ``Retry-After`` may ask."""
    return (
        tenacity.stop_after_attempt(attempts_max)
        | tenacity.stop_before_delay(total_s_max)
        | StopAtRetryAfter(wait_s_max)
    )


class Policy(NamedTuple):
    """When to stop, how long to wait, what to repeat: tenacity's strategies, or callables like them.

    What is left out is the default: at most 6 tries in 30 s, full jitter, ``Retry-After`` honoured, and
    nothing repeated that is not safe. ``before``, ``after`` and ``before_sleep`` are tenacity's hooks.
    """

    stop: Strategy = stop_by_default()
    wait: Strategy = FullJitter()
    retry: Strategy = repeat_what_is_safe
    before: Strategy | None = None
    after: Strategy | None = None
    before_sleep: Strategy | None = None


def never(_: RetryCallState) -> bool:
    """A ``retry`` that repeats nothing."""
    return False


def policy_of(retry: Policy | tenacity.BaseRetrying | None, default: Policy) -> Policy:
    """The policy that ``retry`` stands for: a :class:`Policy`, ``tenacity.Retrying(...)``,
    ``tenacity.AsyncRetrying(...)``, or None for ``default``.

    tenacity's own default for what to repeat, any exception, is taken as not said: what is safe is repeated.
    Raises :class:`ConfigError` for anything else, and for strategies that must be awaited.
    """
    if retry is None:
        return default
    if isinstance(retry, tenacity.BaseRetrying):
        policy = Policy(
            stop=retry.stop,
            wait=retry.wait,
            retry=_what(retry) if retry.enabled else never,
            before=retry.before,
            after=retry.after,
            before_sleep=retry.before_sleep,
        )
    elif isinstance(retry, Policy):
        policy = retry
    else:
        raise ConfigError(
            f"retry is {retry!r}: give a tenacity policy, such as tenacity.Retrying(stop=..., wait=...), or "
            "a tokenmesh.retry.Policy"
        )
    for name, strategy in zip(Policy._fields, policy, strict=True):
        if strategy is not None and _is_async(strategy):
            raise ConfigError(
                f"{name} of the retry policy is a coroutine: give one that answers without being awaited, as "
                "the same policy serves sync and async calls"
            )
    return policy


def _what(retry: tenacity.BaseRetrying) -> Strategy:
    said = retry.retry
    if type(said) is tenacity.retry_if_exception_type and said.exception_types is Exception:
        return repeat_what_is_safe
    return said


def _is_async(strategy: Strategy) -> bool:
    return inspect.iscoroutinefunction(strategy) or inspect.iscoroutinefunction(type(strategy).__call__)


class Tries:
    """The tries of one call: asks the policy after each that failed.

    Costs nothing until then, unless the policy has a ``before``.
    """

    def __init__(self, policy: Policy, method: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.number = 1
        self._policy = policy
        self._method = method
        self._clock = clock
        self._started = clock()
        self._state: RetryCallState | None = None
        if policy.before is not None:
            policy.before(self._begun())

    def again(
        self,
        *,
        error: BaseException | None = None,
        response: Any = None,
        status: int | None = None,
        retry_after: float | None = None,
        at_most: float = math.inf,
    ) -> float | None:
        """Whether to try again after ``error`` or ``response``: the seconds to wait first, or None.

        A wait that would take ``at_most`` seconds or more (the contract's life) is as good as a stop.
        """
        state, policy = self._begun(), self._policy
        state.kwargs.update(status=status, retry_after=retry_after)
        if error is None:
            state.set_result(response)
        else:
            state.set_exception((type(error), error, error.__traceback__))
        state.outcome_timestamp = self._clock()  # this clock, not tenacity's: it may be a simulator's
        if self.number >= TRIES_MAX or not self._says(policy.retry):
            return None
        if policy.after is not None:
            policy.after(state)
        wait = max(0.0, float(policy.wait(state)))
        state.upcoming_sleep = wait
        if self._says(policy.stop) or wait >= at_most:
            return None
        state.idle_for += wait
        state.next_action = tenacity.RetryAction(wait)
        if policy.before_sleep is not None:
            policy.before_sleep(state)
        state.prepare_for_next_attempt()
        self.number = state.attempt_number
        if policy.before is not None:
            policy.before(state)
        return wait

    def _begun(self) -> RetryCallState:
        if self._state is None:
            retrying = tenacity.Retrying(
                stop=self._policy.stop, wait=self._policy.wait, retry=self._policy.retry
            )
            self._state = RetryCallState(retrying, None, (), {"method": self._method})
            self._state.start_time = self._started
        return self._state

    def _says(self, strategy: Strategy) -> bool:
        said = strategy(self._state)  # type: ignore[arg-type]
        return bool(said)

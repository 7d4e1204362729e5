"""The shortest story of a failure: what can be left out without it ceasing to fail, is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from simulation.home import PAYEES
from simulation.plan import Plan
from simulation.simulation import Result, run

ROUNDS_MAX = 10

Runner = Callable[[Plan], Result]


def shrink(plan: Plan, result: Result, run: Runner = run) -> tuple[Plan, Result]:
    """A plan that fails like ``plan``, or otherwise, and from which nothing more can be taken; its result."""
    for _ in range(ROUNDS_MAX):
        before = plan
        for simpler in _simpler(plan):
            smaller = simpler(plan)
            if smaller != plan:
                found = run(smaller)
                if found.violation is not None:
                    plan, result = smaller, found
        if plan == before:
            break
    return plan, result


def _simpler(plan: Plan) -> Iterator[Callable[[Plan], Plan]]:
    """Ways to make a plan smaller, each for whatever is left of it by then."""
    for part in (*plan.faults, *plan.decrees, *plan.jobs):
        yield lambda plan, part=part: plan.without(part)  # type: ignore[misc]
    yield lambda plan: replace(plan, skews=())
    yield lambda plan: replace(plan, workers=1) if _needs_one(plan) else plan
    for flag in ("rerun", "far_journal", "careful"):
        yield lambda plan, flag=flag: replace(plan, **{flag: False})  # type: ignore[misc]


def _needs_one(plan: Plan) -> bool:
    """Whether nothing happens to a second worker."""
    return not any(fault.who.startswith(tuple(f"{payee}-2" for payee in PAYEES)) for fault in plan.faults)


def story(plan: Plan, result: Result) -> str:
    """A failure, for people: what was to be done, what was to go wrong, what happened, what is wrong."""
    set_up = [f"{plan.workers} worker{'s' * (plan.workers > 1)} of each payee"]
    set_up += ["a killed handler runs again"] if plan.rerun else ["a killed handler's contract is void"]
    set_up += ["the journal far away"] if plan.far_journal else []
    lines = [f"Seed {plan.seed}: {', '.join(set_up)}.", "", "What was wanted:"]
    lines += [f"  {job}" for job in sorted(plan.jobs, key=lambda job: job.at)]
    lines += ["", "What went wrong:", *(f"  {fault}" for fault in plan.faults)] if plan.faults else []
    lines += ["", "What was decreed:", *(f"  {decree}" for decree in plan.decrees)] if plan.decrees else []
    lines += ["", "What happened:", *(f"  {line}" for line in result.log)]
    end = (
        "Which is as it should be." if result.violation is None else f"Which must not be: {result.violation}"
    )
    return "\n".join([*lines, "", end, ""])

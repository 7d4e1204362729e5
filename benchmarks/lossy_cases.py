"""What is tried on every system of the lossy scoreboard, and how it is judged; for ``lossy.py``.

A call is a job: one ``GET /item/NAME`` at one price. The judge compares four things that nobody has to be
believed about: how often the handler ran (the payee's own count), what was charged (the ledger's or the
facilitator's books), which responses left the payee (the wire's count) and which the caller has in the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LOSSES = (5, 20, 50)
"""Responses lost, in percent."""
COPIES = 100
PART = 10
"""The cases without a lossy wire take one call in so many: each call of them ends as the others do."""


class Case(NamedTuple):
    """One case: so many calls, and what happens to them.

    ``loss``: the part of all responses that is lost on the wire. ``naive``: a loop around the client repeats
    each job until there is an answer; otherwise it is left to the client. ``bare``: and the client's own
    retries are switched off. ``copies``: each paid request arrives so often at once. ``diverted``: each
    payment arrives with another request first. ``forgetful``: the first answer to every settlement is lost.
    """

    name: str
    calls: int
    loss: float = 0.0
    naive: bool = False
    bare: bool = False
    method: str = "GET"
    copies: int = 1
    diverted: bool = False
    forgetful: bool = False

    def paths(self) -> list[str]:
        """What is asked for. A name that begins with ``copies`` takes time, one with ``failing`` fails."""
        return [f"/item/{self.name}-{number}" for number in range(self.calls)]


def other(path: str) -> str:
    """The other request of a diverted payment."""
    return path + "-other"


def cases(calls: int) -> list[Case]:
    """All cases, with ``calls`` calls over each lossy wire."""
    few = max(1, calls // PART)
    lossy = [
        Case(f"lossy_{percent}_{kind}", calls, loss=percent / 100, naive=kind == "naive")
        for percent in LOSSES
        for kind in ("naive", "own")
    ]
    return [
        *lossy,
        Case("copies", 1, copies=COPIES),
        Case("other_request", few, diverted=True),
        Case("failing_handler", few),
        Case("lost_settlement", few, forgetful=True),
    ]


def bare_cases(calls: int) -> list[Case]:
    """The naive loop again, around a client whose own retries are switched off: with GET, and with POST."""
    naive = [case._replace(bare=True) for case in cases(calls) if case.naive]
    return [*naive, *(case._replace(name=f"{case.name}_post", method="POST") for case in naive)]


@dataclass
class Tally:
    """What was seen of a case, by path; ``stranded`` are tokens that did not come back to anyone."""

    case: Case
    answered: Counter[str] = field(default_factory=Counter)
    """Paths of which the caller has the response."""
    charged: Counter[str] = field(default_factory=Counter)
    """Payments that were taken, by the path of the request that they were made for."""
    runs: Counter[str] = field(default_factory=Counter)
    """Runs of the handler."""
    went_out: Counter[str] = field(default_factory=Counter)
    """Responses of success that left the payee, whether they arrived or not."""
    errors: Counter[str] = field(default_factory=Counter)
    """What the caller's tries ended with that gave no response of success."""
    stranded: int = 0


def score(tally: Tally) -> dict[str, Any]:
    """The figures of a case.

    ``overcharged``: payments taken for which the caller has no response: the second for one response, or the
    first for none. ``served_free``: runs of the handler whose response went out and that nobody paid for.
    """
    paths = {*tally.charged, *tally.runs, *tally.went_out}
    overcharged = sum(max(0, tally.charged[path] - min(1, tally.answered[path])) for path in paths)
    served_free = sum(
        max(0, min(tally.runs[path], tally.went_out[path]) - tally.charged[path]) for path in paths
    )
    return {
        "calls": tally.case.calls * tally.case.copies,
        "overcharged": overcharged,
        "handler_runs": sum(tally.runs.values()),
        "stranded_tokens": tally.stranded,
        "served_free": served_free,
        "gave_up": tally.case.calls - sum(tally.answered.values()),
        "errors": dict(sorted(tally.errors.items())),
    }

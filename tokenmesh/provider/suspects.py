"""Payers whose contracts the journal has refused lately, although everything else about them was good.

A number that is used, or an allowance that is used up, is found out by trying to claim: that writes, and
takes it back, and in some frameworks comes beneath all that they do with a request. So for a second the
journal is only asked first, for payers who have sent such a contract. What it says is as it is at that
moment, and what it has nothing against is claimed as ever: this memory decides which question comes first,
and never an answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

SUSPECTED_S = 1.0
"""How long a payer is suspected after such a refusal."""


class Suspects:
    """The payers, and until when. Any number of threads may use it; ``any`` is falsy while there are none."""

    __slots__ = ("_clock", "_size_max", "any")

    def __init__(self, clock: Callable[[], float], size_max: int) -> None:
        self.any: OrderedDict[str, float] = OrderedDict()
        self._clock = clock
        self._size_max = size_max

    def note(self, payer: str) -> None:
        """The journal has just refused a contract of this payer."""
        self.any[payer] = self._clock() + SUSPECTED_S
        if len(self.any) > self._size_max:
            try:
                self.any.popitem(last=False)
            except KeyError:
                return  # another thread was faster

    def has(self, payer: str) -> bool:
        """Whether this payer is suspected."""
        until = self.any.get(payer)
        if until is None:
            return False
        # Further off than it was ever set: the clock was set back.
        if 0 < until - self._clock() <= SUSPECTED_S:
            return True
        self.any.pop(payer, None)
        return False

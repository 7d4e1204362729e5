"""What has been settled of one allowance: a sum, and the ``seq`` that were used, as ranges per lane.

A lane's numbers come nearly in order, so nearly always the last range just grows by one. Whatever comes out
of order costs a binary search.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import Final

from tokenmesh_chaincode.limits import LANES_MAX, RANGES_MAX
from tokenmesh_chaincode.state import Value

Range = list[int]

_first: Final = itemgetter(0)


class Spent:
    """The record ``spent/{id}`` while one operation changes it; the record itself is left as it was."""

    __slots__ = ("_lanes", "_own", "_ranges", "tokens")

    def __init__(self, record: Value | None) -> None:
        self.tokens: int = record["tokens"] if record else 0
        self._lanes: dict[str, list[Range]] = dict(record["lanes"]) if record else {}
        self._own: dict[str, list[Range]] = {}
        self._ranges = sum(map(len, self._lanes.values()))

    def to_json(self) -> Value:
        lanes = {**self._lanes, **self._own}
        return {"tokens": self.tokens, "lanes": {lane: ranges for lane, ranges in lanes.items() if ranges}}

    def use(self, lane: str, seq: int) -> str | None:
        """Mark ``seq`` as used; or the code of why it cannot be."""
        ranges = self._own.get(lane)
        if ranges is None:
            shared = self._lanes.get(lane)
            if shared is None and len(self._lanes.keys() | self._own.keys()) >= LANES_MAX:
                return "too_many_lanes"
            ranges = self._own[lane] = [list(pair) for pair in shared] if shared else []
        if ranges:
            last = ranges[-1]
            if seq == last[1] + 1:
                last[1] = seq
                return None
            if seq <= last[1]:
                return self._insert(ranges, seq)
        if self._ranges >= RANGES_MAX:
            return "too_many_ranges"
        ranges.append([seq, seq])
        self._ranges += 1
        return None

    def _insert(self, ranges: list[Range], seq: int) -> str | None:
        at = bisect_right(ranges, seq, key=_first)
        before = ranges[at - 1] if at else None
        after = ranges[at] if at < len(ranges) else None
        if before is not None and seq <= before[1]:
            return "already_settled"
        if before is not None and before[1] + 1 == seq:
            before[1] = seq
            if after is not None and after[0] == seq + 1:
                before[1] = after[1]
                del ranges[at]
                self._ranges -= 1
        elif after is not None and after[0] == seq + 1:
            after[0] = seq
        elif self._ranges >= RANGES_MAX:
            return "too_many_ranges"
        else:
            ranges.insert(at, [seq, seq])
            self._ranges += 1
        return None

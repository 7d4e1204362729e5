"""What one process knows of its allowances: pure accounting, no ledger, no clock, no lock of its own.

Several processes may spend from one allowance, each numbering in a lane of its own, so what is left can only
be estimated here. The estimate never lends out more than is set aside, and every receipt puts it right: it
says what the payee counts as left. Three things keep a receipt from being taken too literally:

- tickets that were out at the same time may or may not be counted in it already (``overlap``),
- tickets whose contracts got no answer may still be taken until they expire (``unknown``),
- the payee may not have looked at the ledger since a refill (``unseen``).

The treasury calls everything here under its lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tokenmesh.ledger import base
from tokenmesh.treasury.operations import Unanswered
from tokenmesh_chaincode.limits import LANES_MAX, RANGES_MAX

UNKNOWN_MAX = 1_000
"""Unanswered contracts remembered one by one; beyond it the tokens of the oldest count as spent."""
FREE_MAX = 1_000
"""Numbers given back and kept for reuse."""
GAPS_MAX = RANGES_MAX // 4
"""Numbers that never reached the payee which one process leaves in an allowance. The ledger keeps what is
used as ranges, and a gap ends a range; past this the next allowance is opened."""
TAKEN_UP_MAX = 16
"""Allowances of an earlier run, or of another process, that are taken up for one payee."""
RUSH_S = 2.0
"""An allowance that needs more within so many seconds is enlarged by twice as much, up to ``SCALE_MAX``."""
CALM_S = 60.0
SCALE_MAX = 8


class Ticket:
    """The right to make one contract: what pays for it (``via``, ``lane``, ``seq``), up to how many
    ``tokens``, and ``exp``, the latest that it may expire (unix seconds).

    It goes back to the treasury in exactly one way: ``charged``, ``returned`` or ``lost``.
    """

    __slots__ = ("allowance", "exp", "lane", "mark", "overlap", "payee", "seq", "tokens", "via")

    def __init__(
        self,
        payee: str,
        tokens: int,
        via: str,
        exp: int,
        *,
        lane: str | None = None,
        seq: int | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self.payee = payee
        self.tokens = tokens
        self.via = via
        self.lane = lane
        self.seq = seq
        self.exp = exp
        self.allowance = allowance
        self.overlap = 0
        self.mark = 0


@dataclass(slots=True, eq=False)
class Allowance:
    """One allowance as this process sees it; ``left`` is what it may still lend out."""

    id: str
    payee: str
    tokens: int
    left: int
    exp: int
    lane: str
    next_seq: int = 0
    free: list[int] = field(default_factory=list)
    gaps: int = 0
    out: int = 0
    """Tokens of tickets that are out."""
    issued: int = 0
    """Tokens of all tickets ever given out."""
    unknown: deque[tuple[float, int]] = field(default_factory=deque)
    unseen: int = 0
    """Tokens refilled that the payee has not shown to know of; it does once it says that more than
    ``unseen_above`` is left."""
    unseen_above: int = 0

    def take(self, tokens: int) -> Ticket:
        """A ticket for ``tokens``; the caller has made sure that they are left."""
        if self.free:
            seq = self.free.pop()
        else:
            seq = self.next_seq
            self.next_seq += 1
        ticket = Ticket(self.payee, tokens, self.id, self.exp, lane=self.lane, seq=seq, allowance=self)
        ticket.overlap = self.out
        ticket.mark = self.issued
        self.issued += tokens
        self.out += tokens
        self.left -= tokens
        return ticket

    def charged(self, ticket: Ticket, tokens: int, left: int | None, now: float) -> None:
        """The payee took the contract and charged ``tokens`` (0: void); it counts ``left`` as left."""
        self.out -= ticket.tokens
        self.left += ticket.tokens - tokens
        if left is None:
            return
        if self.unseen:
            if left > self.unseen_above:
                self.unseen = 0
            else:
                left += self.unseen
        overlap = ticket.overlap + self.issued - ticket.mark - ticket.tokens
        if overlap:
            self.left = min(self.left, left)
        else:
            self.left = left - self._unknown(now)

    def returned(self, ticket: Ticket, *, reusable: bool) -> None:
        """The contract was certainly not taken. ``reusable``: nor is any copy of it still on its way."""
        self.out -= ticket.tokens
        self.issued -= ticket.tokens
        self.left += ticket.tokens
        if reusable and ticket.seq is not None and len(self.free) < FREE_MAX:
            self.free.append(ticket.seq)
        else:
            self.gaps += 1

    def lost(self, ticket: Ticket, until: float) -> None:
        """Nobody knows whether the contract was taken; it cannot be any more after ``until``."""
        self.out -= ticket.tokens
        self.gaps += 1
        self.unknown.append((until, ticket.tokens))
        if len(self.unknown) > UNKNOWN_MAX:
            self.unknown.popleft()

    def refilled(self, tokens: int) -> None:
        """The ledger has added ``tokens``."""
        self.unseen_above = self.left + self.out + sum(tokens for _, tokens in self.unknown)
        self.unseen += tokens
        self.tokens += tokens
        self.left += tokens

    def used_up(self) -> None:
        """The payee, having looked at the ledger, says that not enough is left for a ticket that was."""
        self.unseen = 0
        self.left = min(self.left, 0)

    def usable(self, tokens: int, until: float) -> bool:
        """Whether a contract over ``tokens`` that is good until then can be made."""
        return self.left >= tokens and self.exp >= until

    def _unknown(self, now: float) -> int:
        unknown = self.unknown
        while unknown and unknown[0][0] <= now:
            unknown.popleft()
        return sum(tokens for _, tokens in unknown)


class Account:
    """What is set aside for one payee, and the one piece of work under way to set more aside (``flight``).

    ``waiting``: tokens that callers wait for. ``known``: whether the ledger was asked what is open already.
    """

    def __init__(self, payee: str) -> None:
        self.payee = payee
        self.allowances: list[Allowance] = []
        self.known = False
        self.flight: Future[Any] | None = None
        self.waiting = 0
        self.unanswered: Unanswered | None = None
        self.quiet_until = 0.0
        self._enlarged_at = 0.0
        self._enlarged_by = 0
        self._scale = 1

    def take(self, tokens: int, until: float, now: float) -> Ticket | None:
        """A ticket from the allowance that expires first and will do."""
        for allowance in self.allowances:
            if allowance.usable(tokens, until):
                return allowance.take(tokens)
        # Off the warm path: forget what has expired.
        self.allowances = [each for each in self.allowances if each.exp > now or each.out]
        return None

    def runs_low(self, tokens: int, until: float, refill_at: float, now: float) -> bool:
        """Whether it is time to set more aside: for what is left, or for how long it will do."""
        if now < self.quiet_until:
            return False
        left = sum(each.left for each in self.allowances if each.exp >= until)
        return left < tokens or left < self._enlarged_by * refill_at

    def wanted(self, usual: int, now: float) -> int:
        """How much more to set aside, if ``usual`` is what one allowance should have."""
        if now - self._enlarged_at < RUSH_S:
            self._scale = min(SCALE_MAX, self._scale * 2)
        elif now - self._enlarged_at > CALM_S:
            self._scale = max(1, self._scale // 2)
        return max(usual * self._scale, 2 * self.waiting)

    def refillable(self, tokens: int, until: float, tokens_max: int) -> Allowance | None:
        """An allowance that lives long enough and may take ``tokens`` more."""
        for allowance in self.allowances:
            if (
                allowance.exp >= until
                and allowance.gaps < GAPS_MAX
                and allowance.tokens + tokens <= tokens_max
            ):
                return allowance
        return None

    def take_up(self, records: Sequence[base.Allowance], tokens: int, until: float, lane: str) -> bool:
        """Learn from the ledger what is open; True if a ticket for ``tokens`` can be had now.

        ``lane`` is new: what another process numbers, or this one did before, has a lane of its own.
        """
        self.known = True
        mine = {each.id: each for each in self.allowances}
        strange = []
        for record in records:
            if record.id in mine:
                more = record.tokens - mine[record.id].tokens
                if more > 0:
                    mine[record.id].refilled(more)
            elif (
                record.closed_at is None
                and record.exp >= until
                and record.left >= max(tokens, 1)
                and len(record.lanes) < LANES_MAX // 2
            ):
                strange.append(record)
        strange.sort(key=lambda record: record.left, reverse=True)
        for record in strange[:TAKEN_UP_MAX]:
            self._enlarged_by = max(self._enlarged_by, record.left)
            self._add(Allowance(record.id, self.payee, record.tokens, record.left, record.exp, lane))
        return any(each.usable(tokens, until) for each in self.allowances)

    def enlarged(self, act: str, arg: dict[str, Any], lane: str, now: float) -> None:
        """The ledger has done ``act`` (``open`` or ``refill``) with ``arg``."""
        known = next((each for each in self.allowances if each.id == arg["id"]), None)
        if act == "open" and known is None:
            self._add(Allowance(arg["id"], self.payee, arg["tokens"], arg["tokens"], arg["exp"], lane))
        elif act == "refill" and known is not None:
            known.refilled(arg["tokens"])
        self._enlarged_at = now
        self._enlarged_by = arg["tokens"]

    def drop(self, allowance: Allowance) -> None:
        """Use this allowance no more."""
        self.allowances = [each for each in self.allowances if each is not allowance]

    @property
    def idle(self) -> bool:
        return self.flight is None and not self.waiting and not any(each.out for each in self.allowances)

    def _add(self, allowance: Allowance) -> None:
        self.allowances = sorted([*self.allowances, allowance], key=lambda each: each.exp)

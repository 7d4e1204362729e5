"""The gauges of a journal: what was last read of it, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from tokenmesh.telemetry import names
from tokenmesh.telemetry.instruments import Attributes, Reading, hide, meters, show

READ_EVERY_S = 10.0
"""How often a journal is read for its gauges: that reads much of it."""


class Stats(Protocol):
    """What a journal says of itself."""

    @property
    def open(self) -> int: ...
    @property
    def unsettled(self) -> int: ...
    @property
    def unsettled_tokens(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class JournalGauges:
    """What the gauges show of one journal. ``clock`` gives unix seconds."""

    def __init__(self, domain: str, unsettled_max: int, bytes_max: int, clock: Callable[[], float]) -> None:
        self._domain = domain[: names.DOMAIN_LENGTH]
        self._limits = unsettled_max, bytes_max
        self._clock = clock
        self._read_at = float("-inf")
        self._stats: Stats | None = None
        self.open()

    def open(self) -> None:
        """Show what is read."""
        show(self)

    def close(self) -> None:
        """Show nothing until it is opened again."""
        hide(self)

    def due(self) -> bool:
        """Whether the journal is to be read again; then it is to be :meth:`noted`."""
        return meters() is not None and not 0 <= self._clock() - self._read_at < READ_EVERY_S

    def noted(self, stats: Stats) -> None:
        """The journal was read."""
        self._read_at, self._stats = self._clock(), stats

    def readings(self) -> Iterator[Reading]:
        """See :class:`~tokenmesh.telemetry.instruments.Source`."""
        stats = self._stats
        if stats is None:
            return
        about: Attributes = {names.DOMAIN: self._domain}
        unsettled_max, bytes_max = self._limits
        yield Reading("tokenmesh.journal.unsettled", stats.unsettled, about)
        yield Reading("tokenmesh.journal.exposure", stats.unsettled_tokens, about)
        yield Reading("tokenmesh.journal.open", stats.open, about)
        yield Reading("tokenmesh.journal.unsettled_limit", unsettled_max, about)
        yield Reading("tokenmesh.journal.usage", stats.bytes, about)
        yield Reading("tokenmesh.journal.limit", bytes_max, about)

"""The metrics: one table of instruments, made once somebody listens, with bounded attributes.

The table is that of docs/reference/metrics.md; a test holds the two together.

What is measured is handed to the SDK a few dozen at a time: its code is large, and fetched into the processor
anew for each of them it costs three times as much as in a row. Whoever reads the metrics sees all of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, NamedTuple, Protocol
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.context import Context, get_current
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from tokenmesh.telemetry import names
from tokenmesh.telemetry.environment import disabled
from tokenmesh.telemetry.switch import ASK_AGAIN_S, listen

Attributes = dict[str, str]
Kind = Literal["histogram", "counter", "sum", "gauge"]
"""A ``sum`` is a counter that is added up here and read when somebody looks: for what every call adds to,
at a tenth of the price."""

PAIRS_MAX = 200
"""Pairs of wallet and operation that one process counts apart."""
GATHERED_MAX = 32
"""Measurements that are handed to the SDK together."""
REASONS_MAX = 100
"""Codes and kinds of errors that one process counts apart."""
OTHER: Final = "_OTHER"
"""What stands for all that comes after."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CLAIM = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_LAG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SIZE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Instrument(NamedTuple):
    """One metric. ``buckets`` are a histogram's boundaries."""

    kind: Kind
    unit: str
    about: str
    buckets: tuple[float, ...] = ()


TABLE: Final[Mapping[str, Instrument]] = {
    "tokenmesh.call.duration": Instrument("histogram", "s", "Calls, all their tries together.", _SECONDS),
    "tokenmesh.call.tokens": Instrument("sum", "{token}", "Tokens charged, as the receipts say."),
    "tokenmesh.call.retries": Instrument("counter", "{retry}", "Tries after a call's first."),
    "tokenmesh.allowance.left": Instrument("gauge", "{token}", "What may still be spent of allowances."),
    "tokenmesh.allowance.limit": Instrument("gauge", "{token}", "What is set aside in these allowances."),
    "tokenmesh.hold.open": Instrument("gauge", "{hold}", "Holds placed for calls that have not ended."),
    "tokenmesh.claim.duration": Instrument("histogram", "s", "From arrival until the claim.", _CLAIM),
    "tokenmesh.handler.duration": Instrument("histogram", "s", "From the claim until the end.", _SECONDS),
    "tokenmesh.fulfil.tokens": Instrument("sum", "{token}", "Tokens of fulfilled contracts."),
    "tokenmesh.contract.refusals": Instrument("counter", "{contract}", "Requests answered with a problem."),
    "tokenmesh.contract.replays": Instrument("counter", "{contract}", "Contracts that came again."),
    "tokenmesh.settle.duration": Instrument("histogram", "s", "Rounds of settlement.", _SECONDS),
    "tokenmesh.settle.size": Instrument("histogram", "{contract}", "Contracts in a settlement.", _SIZE),
    "tokenmesh.settle.lag": Instrument("histogram", "s", "Age of a settlement's oldest contract.", _LAG),
    "tokenmesh.settle.contracts": Instrument("counter", "{contract}", "What became of contracts."),
    "tokenmesh.settle.tokens": Instrument("counter", "{token}", "Tokens moved to this payee."),
    "tokenmesh.journal.unsettled": Instrument("gauge", "{contract}", "Fulfilled and not settled."),
    "tokenmesh.journal.exposure": Instrument("gauge", "{token}", "Tokens of these contracts."),
    "tokenmesh.journal.open": Instrument("gauge", "{contract}", "Claimed, and not ended."),
    "tokenmesh.journal.unsettled_limit": Instrument("gauge", "{contract}", "unsettled_max."),
    "tokenmesh.journal.usage": Instrument("gauge", "By", "The journal's size."),
    "tokenmesh.journal.limit": Instrument("gauge", "By", "journal_bytes_max."),
    "tokenmesh.ledger.submit.duration": Instrument("histogram", "s", "Operations submitted.", _SECONDS),
    "tokenmesh.ledger.query.duration": Instrument("histogram", "s", "Questions to the ledger.", _SECONDS),
    "tokenmesh.ledger.transaction.duration": Instrument("histogram", "s", "Ledger transactions.", _SECONDS),
    "tokenmesh.ledger.transaction.size": Instrument("histogram", "{operation}", "Operations in one.", _SIZE),
    "tokenmesh.ledger.refusals": Instrument("counter", "{operation}", "Operations that the rules refused."),
    "tokenmesh.ledger.conflicts": Instrument("counter", "{conflict}", "Transactions that lost to another."),
    "tokenmesh.ledger.retries": Instrument("counter", "{retry}", "What had to be sent again."),
    "tokenmesh.ledger.waiting": Instrument("gauge", "{operation}", "Operations without an outcome yet."),
    "tokenmesh.ledger.waiting_limit": Instrument("gauge", "{operation}", "ledger_queue_max."),
    "tokenmesh.build.info": Instrument("gauge", "1", "Always 1."),
}


class First:
    """The first ``most`` values that it meets; for every other one ``other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[Hashable] = set()

    def has(self, value: Hashable) -> bool:
        """Whether ``value`` is one of them."""
        if value in self._seen:
            return True
        if len(self._seen) >= self._most:
            return False
        self._seen.add(value)
        return True


class _Sum:
    """What was added, by wallet (an attribute called ``key``) and operation."""

    def __init__(self, meters: Meters, key: str) -> None:
        self._meters = meters
        self._key = key
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str | None], int] = {}

    def add(self, tokens: int, wallet: str, operation: str | None) -> None:
        pair = (wallet, operation)
        with self._lock:
            if pair not in self._sums and len(self._sums) >= PAIRS_MAX:
                pair = (OTHER, OTHER)
            self._sums[pair] = self._sums.get(pair, 0) + tokens

    def observe(self, _: CallbackOptions) -> list[Observation]:
        with self._lock:
            sums = list(self._sums.items())
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for (wallet, operation), tokens in sums:
            _add(found, self._meters.pair(wallet, operation, self._key), tokens)
        return _observations(found)


def _add(found: dict[tuple[tuple[str, str], ...], float], attributes: Attributes, value: float) -> None:
    """Add what has these attributes; an SDK keeps one value of those that have the same."""
    key = tuple(sorted(attributes.items()))
    found[key] = found.get(key, 0) + value


def _observations(found: Mapping[tuple[tuple[str, str], ...], float]) -> list[Observation]:
    return [Observation(value, dict(key)) for key, value in found.items()]


class Meters:
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        self._record: dict[str, Callable[[float, Any, Context | None], None]] = {}
        self._gathered: deque[tuple[str, float, Attributes | None, Context]] = deque()
        self._sums: dict[str, _Sum] = {}
        self._pairs = First(PAIRS_MAX)
        self._reasons = First(REASONS_MAX)
        self._build(meter)
        _all.add(self)

    def _build(self, meter: Meter) -> None:
        for name, one in TABLE.items():
            if one.kind == "histogram":
                made = meter.create_histogram(
                    name, one.unit, one.about, explicit_bucket_boundaries_advisory=one.buckets
                )
                self._record[name] = made.record
            elif one.kind == "counter":
                self._record[name] = meter.create_counter(name, one.unit, one.about).add
            elif one.kind == "sum":
                self._sums[name] = _Sum(self, names.PAYER if "fulfil" in name else names.PAYEE)
                meter.create_observable_counter(name, [self._sums[name].observe], one.unit, one.about)
            else:
                meter.create_observable_gauge(name, [_observing(name, self)], one.unit, one.about)

    def record(
        self, name: str, value: float, attributes: Attributes | None = None, context: Context | None = None
    ) -> None:
        """Measure ``value``; ``context`` is that of the span to which it is an example, if not the current
        one."""
        gathered = self._gathered
        gathered.append((name, value, attributes, context or get_current()))
        if len(gathered) >= GATHERED_MAX:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the SDK have what has gathered."""
        gathered = self._gathered
        with suppress(IndexError):  # another thread had the last one
            for _ in range(len(gathered)):
                name, value, attributes, context = gathered.popleft()
                self._record[name](value, attributes, context)

    def forget(self) -> None:
        """In the child of a fork: what has gathered is its parent's to hand over."""
        self._gathered.clear()

    def add(self, name: str, tokens: int, wallet: str, operation: str | None) -> None:
        """Add ``tokens`` to a sum."""
        self._sums[name].add(tokens, wallet, operation)

    def pair(self, wallet: str | None, operation: str | None, key: str = names.PAYEE) -> Attributes:
        """Attributes for a wallet (as ``key``), an operation, or both, as far as they are known."""
        if not self._pairs.has((key, wallet, operation)):
            wallet, operation = wallet and OTHER, operation and OTHER
        attributes = {}
        if wallet:
            attributes[key] = wallet
        if operation:
            attributes[names.OPERATION] = operation
        return attributes

    def reason(self, reason: str) -> str:
        """A code or a kind of error, as it may stand in an attribute."""
        return reason if self._reasons.has(reason) else OTHER


_all: WeakSet[Meters] = WeakSet()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it when the parent forked
    _lock = threading.Lock()
    for meters in list(_all):
        meters.forget()


os.register_at_fork(after_in_child=_after_fork)


# Gauges show what their sources say when somebody looks; sources go away by themselves.


class Reading(NamedTuple):
    """What a gauge shows of one source."""

    name: str
    value: float
    attributes: Attributes


class Source(Protocol):
    """Something with gauges. It reads nothing for them that is not at hand."""

    def readings(self) -> Iterable[Reading]:
        """What it shows now."""


_sources: WeakSet[Any] = WeakSet()
_lock = threading.Lock()
_builds: set[str] = set()


def show(source: Source) -> None:
    """Have the gauges show ``source`` as long as it exists, or until :func:`hide`."""
    with _lock:
        _sources.add(source)


def hide(source: Source) -> None:
    """Have the gauges show ``source`` no more: it is closed, whoever may still hold it."""
    with _lock:
        _sources.discard(source)


def show_build(kind: str) -> None:
    """Have ``tokenmesh.build.info`` say that this process has a ledger of this kind."""
    with _lock:
        _builds.add(kind)


def _observing(name: str, meters: Meters) -> Callable[[CallbackOptions], list[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        if name == "tokenmesh.build.info":
            # Called by a reader before it looks at what was recorded.
            meters.hand_over()
            return _build_info()
        with _lock:
            sources = list(_sources)
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for source in sources:
            for reading in source.readings():
                if reading.name == name:
                    wallet = reading.attributes.get(names.PAYEE)
                    attributes = reading.attributes | (meters.pair(wallet, None) if wallet else {})
                    _add(found, attributes, reading.value)
        return _observations(found)

    return observe


def _build_info() -> list[Observation]:
    try:
        ours = version("tokenmesh-fabric")
    except PackageNotFoundError:
        ours = "unknown"
    with _lock:
        kinds = sorted(_builds)
    return [Observation(1, {"tokenmesh.version": ours, names.LEDGER_KIND: kind}) for kind in kinds]


# Whether anyone listens


class _Switch:
    def __init__(self) -> None:
        self.meters: Meters | None = None
        self.off = disabled()
        self.ask_at = float("-inf")


_switch = _Switch()


def meters() -> Meters | None:
    """The instruments; None as long as there is nothing behind them, and up to ``ASK_AGAIN_S`` longer."""
    if _switch.meters is not None or _switch.off:
        return _switch.meters
    now = time.monotonic()
    if now < _switch.ask_at:
        return None
    _switch.ask_at = now + ASK_AGAIN_S
    provider = metrics.get_meter_provider()
    # The API's own providers, which measure nothing, are no public classes of it.
    if type(provider).__module__.startswith("opentelemetry.metrics"):
        return None
    with _lock:
        if _switch.meters is None:
            _switch.meters = Meters(provider.get_meter(names.SCOPE))
    return _switch.meters


def meters_on(provider: MeterProvider | None = None) -> None:
    """Measure, with ``provider`` or else with the process's own."""
    _switch.off = False
    _switch.ask_at = float("-inf")
    listen()
    _switch.meters = None if provider is None else Meters(provider.get_meter(names.SCOPE))


def meters_off() -> None:
    """Measure nothing, whatever the process has set up."""
    _switch.off = True
    _switch.meters = None

"""A peer in memory for chaincode: committed state, invocations, and what each has read and written.

It is as strict as Fabric: a transaction never reads its own writes, keys are plain text, a range may only be
read by who writes nothing, and of two transactions one is invalid if it has read what the other has written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tokenmesh_chaincode.documents import new_id


class Row(NamedTuple):
    key: str
    value: bytes


class Page(NamedTuple):
    items: list[Row]
    bookmark: str


@dataclass(frozen=True)
class Creator:
    """A client of an organisation, as its certificate describes it."""

    mspid: str = "GovernanceMSP"
    units: tuple[str, ...] = ("admin",)
    attributes: Mapping[str, str] = field(default_factory=dict)


class MemoryStub:
    """One invocation on a state that does not change meanwhile."""

    def __init__(
        self,
        state: Mapping[str, bytes],
        arguments: Sequence[bytes],
        timestamp_ns: int,
        identity: Creator,
        transient: Mapping[str, bytes] | None = None,
        private: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        self.function = arguments[0].decode()
        self.parameters = list(arguments[1:])
        self.tx_id = new_id()
        self.timestamp_ns = timestamp_ns
        self.identity = identity
        self.transient = dict(transient or {})
        self.trips = 0
        self.reads: dict[str, bytes | None] = {}
        self.ranges: list[tuple[str, str]] = []
        self.writes: dict[str, bytes | None] = {}
        self.private_writes: dict[tuple[str, str], bytes] = {}
        self._state = state
        self._private = private or {}

    def get_states(self, keys: Sequence[str]) -> list[bytes | None]:
        self.trips += 1
        found = [self._state.get(_check(key)) for key in keys]
        self.reads.update(zip(keys, found, strict=True))
        return found

    def put_state(self, key: str, value: bytes) -> None:
        assert not self.ranges, "a transaction that has read a range in pages may not write"
        self.writes[_check(key)] = bytes(value)

    def del_state(self, key: str) -> None:
        assert not self.ranges, "a transaction that has read a range in pages may not write"
        self.writes[_check(key)] = None

    def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        self.private_writes[collection, _check(key)] = bytes(value)

    def get_private_datas(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        self.trips += 1
        return [self._private.get((collection, _check(key))) for key in keys]

    def get_state_by_range_with_pagination(self, start: str, end: str, page_size: int, bookmark: str) -> Page:
        assert not self.writes, "a transaction that has written may not read a range in pages"
        self.trips += 1
        self.ranges.append((start, end))
        keys = sorted(key for key in self._state if max(start, bookmark) <= key < end)
        rest = keys[page_size : page_size + 1]
        return Page([Row(key, self._state[key]) for key in keys[:page_size]], "".join(rest))


def _check(key: str) -> str:
    assert key
    assert "\x00" not in key
    assert key.encode()
    return key


class MemoryPeer:
    """Committed state, and a chaincode over it. Proposals carry the time of ``clock``, or what is said."""

    def __init__(self, chaincode: Callable[[Any], bytes], clock: Callable[[], float]) -> None:
        self.state: dict[str, bytes] = {}
        self.private: dict[tuple[str, str], bytes] = {}
        self.clock = clock
        self.identity = Creator()
        self._chaincode = chaincode

    def simulate(
        self,
        function: str,
        *parameters: bytes | str,
        at: float | None = None,
        by: Creator | None = None,
        transient: Mapping[str, bytes] | None = None,
    ) -> tuple[MemoryStub, bytes]:
        """Run a transaction without committing it: what an endorser does."""
        arguments = [one.encode() if isinstance(one, str) else one for one in (function, *parameters)]
        moment = self.clock() if at is None else at
        stub = MemoryStub(
            self.state, arguments, round(moment * 1e9), by or self.identity, transient, self.private
        )
        return stub, self._chaincode(stub)

    def commit(self, stub: MemoryStub) -> bool:
        """Write what a transaction has written, unless something that it has read was written since."""
        if any(self.state.get(key) != value for key, value in stub.reads.items()):
            return False
        for key, value in stub.writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.private.update(stub.private_writes)
        return True

    def submit(self, function: str, *parameters: bytes | str, **options: Any) -> bytes:
        """Run a transaction and commit it; its answer."""
        stub, answer = self.simulate(function, *parameters, **options)
        assert self.commit(stub)
        return answer

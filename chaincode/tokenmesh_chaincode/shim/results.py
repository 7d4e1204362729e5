"""What queries give: keys with values, pages of them, a key's past; fetched as they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2

Item = TypeVar("Item")
Fetch = Callable[[str], bytes]


class KV(NamedTuple):
    """A key and its value."""

    key: str
    value: bytes


class KeyModification(NamedTuple):
    """One change of a key, as a committed transaction made it."""

    tx_id: str
    value: bytes
    timestamp_ns: int
    is_delete: bool

    @property
    def timestamp(self) -> float:
        return self.timestamp_ns / 1e9


class Page(NamedTuple):
    """Some items, and the bookmark that the next page begins at; empty after the last page."""

    items: list[KV]
    bookmark: str


class Results(Generic[Item]):
    """An iterator over what a query found. Closed by its end, by ``with``, or with the invocation."""

    def __init__(
        self, first: bytes, read: Callable[[bytes], Item], more: Fetch, close: Callable[[str], object]
    ) -> None:
        self._read = read
        self._more = more
        self._close = close
        self._items: deque[Item] = deque()
        self._id = ""
        self._has_more = False
        self._take(first)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        while not self._items:
            if not self._has_more:
                raise StopIteration
            self._take(self._more(self._id))
        return self._items.popleft()

    def close(self) -> None:
        """Fetch no more; the peer may forget the query."""
        self._items.clear()
        if self._has_more:
            self._has_more = False
            self._close(self._id)

    def __enter__(self) -> Results[Item]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self, payload: bytes) -> None:
        response = chaincode_shim_pb2.QueryResponse.FromString(payload)
        self._items.extend(self._read(result.resultBytes) for result in response.results)
        self._id = response.id
        self._has_more = response.has_more


def read_kv(payload: bytes) -> KV:
    found: Any = kv_query_result_pb2.KV.FromString(payload)
    return KV(found.key, found.value)


def read_modification(payload: bytes) -> KeyModification:
    found: Any = kv_query_result_pb2.KeyModification.FromString(payload)
    time_ns = found.timestamp.seconds * 1_000_000_000 + found.timestamp.nanos
    return KeyModification(found.tx_id, found.value, time_ns, found.is_delete)


def read_page(payload: bytes) -> Page:
    response = chaincode_shim_pb2.QueryResponse.FromString(payload)
    about = chaincode_shim_pb2.QueryResponseMetadata.FromString(response.metadata)
    return Page([read_kv(result.resultBytes) for result in response.results], about.bookmark)

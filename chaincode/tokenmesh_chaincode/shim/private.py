"""Private data: values that only the members of a collection hold, and whose hashes everyone has."""

from __future__ import annotations

from collections.abc import Sequence

from . import keys
from .access import Access, plain
from .conversation import Conversation
from .results import KV, Results


class PrivateData:
    """The part of a stub that reads and writes collections."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    def get_private_data(self, collection: str, key: str) -> bytes | None:
        """The value of a key in a collection, or None. Only a member's peer has it."""
        return self._in(collection).get(key)

    def get_private_datas(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values of many keys, in their order."""
        return self._in(collection).get_many(keys)

    def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        """SHA-256 of the value, which every peer of the channel has; None if there is none."""
        return self._in(collection).get_hash(key)

    def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        """Write a value once the transaction commits. It is best handed in as transient data."""
        self._in(collection).put(key, value)

    def del_private_data(self, collection: str, key: str) -> None:
        """Delete a key once the transaction commits. Its past stays with the members."""
        self._in(collection).delete(key)

    def purge_private_data(self, collection: str, key: str) -> None:
        """Delete a key once the transaction commits, and its past with it."""
        self._in(collection).purge(key)

    def get_private_data_by_range(self, collection: str, start: str = "", end: str = "") -> Results[KV]:
        """Keys from ``start`` up to, not with, ``end``. The peer refuses to write after it."""
        access = self._in(collection)
        return access.kvs(access.by_range(plain(start), plain(end)))

    def get_private_data_by_partial_composite_key(
        self, collection: str, object_type: str, attributes: Sequence[str] = ()
    ) -> Results[KV]:
        access = self._in(collection)
        return access.kvs(access.by_range(*keys.partial_range(object_type, attributes)))

    def get_private_data_query_result(self, collection: str, query: str) -> Results[KV]:
        """What a query in the words of the state database finds (CouchDB)."""
        access = self._in(collection)
        return access.kvs(access.by_query(query))

    def set_private_data_validation_parameter(self, collection: str, key: str, policy: bytes) -> None:
        """Who has to endorse changes of this key (see :func:`key_policy`)."""
        self._in(collection).set_policy(key, policy)

    def get_private_data_validation_parameter(self, collection: str, key: str) -> bytes | None:
        return self._in(collection).get_policy(key)

    def _in(self, collection: str) -> Access:
        if not collection:
            raise ValueError("a collection has a name")
        return Access(self._talk, collection)

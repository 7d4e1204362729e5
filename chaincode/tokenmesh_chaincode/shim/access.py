"""State and private data as one: what may be asked and written, by the name of a collection or by none."""

from __future__ import annotations

from collections.abc import Sequence

from fabric_protos.peer import chaincode_shim_pb2 as shim

from .conversation import Conversation, Message
from .keys import FIRST_PLAIN, SPACE
from .policies import VALIDATION_PARAMETER
from .results import KV, Results, read_kv


class Access:
    """Reads and writes of one collection, or of the public state, whose collection has no name."""

    def __init__(self, talk: Conversation, collection: str = "") -> None:
        self._talk = talk
        self._collection = collection

    def get(self, key: str) -> bytes | None:
        asked = shim.GetState(key=_named(key), collection=self._collection)
        return self._talk.ask(Message.GET_STATE, asked.SerializeToString()) or None

    def get_hash(self, key: str) -> bytes | None:
        asked = shim.GetState(key=_named(key), collection=self._collection)
        return self._talk.ask(Message.GET_PRIVATE_DATA_HASH, asked.SerializeToString()) or None

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        most = self._talk.abilities.keys_max
        if not most or len(keys) < 2:
            return [self.get(key) for key in keys]
        if not all(keys):
            raise ValueError("a key cannot be empty")
        values: list[bytes | None] = []
        for start in range(0, len(keys), most):
            asked = shim.GetStateMultiple(keys=keys[start : start + most], collection=self._collection)
            found = self._talk.ask(Message.GET_STATE_MULTIPLE, asked.SerializeToString())
            values += [value or None for value in shim.GetStateMultipleResult.FromString(found).values]
        return values

    def put(self, key: str, value: bytes) -> None:
        if not value:
            raise ValueError("to Fabric an empty value is a deletion: delete the key, or write a value")
        self._talk.write(shim.WriteRecord.PUT_STATE, key, value, self._collection)

    def delete(self, key: str) -> None:
        self._talk.write(shim.WriteRecord.DEL_STATE, key, collection=self._collection)

    def purge(self, key: str) -> None:
        self._talk.write(shim.WriteRecord.PURGE_PRIVATE_DATA, key, collection=self._collection)

    def set_policy(self, key: str, policy: bytes) -> None:
        kind = shim.WriteRecord.PUT_STATE_METADATA
        self._talk.write(kind, key, policy, self._collection, VALIDATION_PARAMETER)

    def get_policy(self, key: str) -> bytes | None:
        asked = shim.GetStateMetadata(key=_named(key), collection=self._collection)
        found = self._talk.ask(Message.GET_STATE_METADATA, asked.SerializeToString())
        entries = shim.StateMetadataResult.FromString(found).entries
        values = {entry.metakey: bytes(entry.value) for entry in entries}
        return values.get(VALIDATION_PARAMETER) or None

    def by_range(self, start: str, end: str, metadata: bytes = b"") -> bytes:
        """The peer's answer to a range. Without a first key composite keys are left out."""
        asked = shim.GetStateByRange(
            startKey=start or FIRST_PLAIN, endKey=end, collection=self._collection, metadata=metadata
        )
        return self._talk.ask(Message.GET_STATE_BY_RANGE, asked.SerializeToString())

    def by_query(self, query: str, metadata: bytes = b"") -> bytes:
        asked = shim.GetQueryResult(query=query, collection=self._collection, metadata=metadata)
        return self._talk.ask(Message.GET_QUERY_RESULT, asked.SerializeToString())

    def kvs(self, first: bytes) -> Results[KV]:
        return Results(first, read_kv, self.more, self.close)

    def more(self, query_id: str) -> bytes:
        asked = shim.QueryStateNext(id=query_id)
        return self._talk.ask(Message.QUERY_STATE_NEXT, asked.SerializeToString())

    def close(self, query_id: str) -> bytes:
        asked = shim.QueryStateClose(id=query_id)
        return self._talk.ask(Message.QUERY_STATE_CLOSE, asked.SerializeToString())


def plain(key: str) -> str:
    """A bound of a range of plain keys."""
    if key.startswith(SPACE):
        raise ValueError("a range of plain keys cannot begin or end with a composite key: ask by its parts")
    return key


def paging(page_size: int, bookmark: str) -> bytes:
    """What asks for one page."""
    if page_size < 1:
        raise ValueError("a page holds at least one item")
    return bytes(shim.QueryMetadata(pageSize=page_size, bookmark=bookmark).SerializeToString())


def _named(key: str) -> str:
    if not key:
        raise ValueError("a key cannot be empty")
    return key

"""Read and write sets: what a transaction saw when it was endorsed, and what it changes if it is valid.

A version is the place of the transaction that wrote a key last: (block, tx). A read without one saw that
the key was not there. Of private data the ledger has hashes only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2


class Version(NamedTuple):
    """Which transaction wrote a key."""

    block: int
    tx: int


class Read(NamedTuple):
    """A key that was read (of private data: its hash), and its version (None: it was not there)."""

    key: bytes
    version: Version | None


class Write(NamedTuple):
    """A key that is written (of private data: the hashes of key and value); ``value`` None deletes it.

    ``purge`` also takes private data out of history.
    """

    key: bytes
    value: bytes | None
    purge: bool = False


class MetadataWrite(NamedTuple):
    """What is noted about a key, such as a policy of its own; no entries: nothing any more."""

    key: bytes
    entries: tuple[tuple[str, bytes], ...]


class MerkleSummary(NamedTuple):
    """The reads of a long range, as hashes of hashes."""

    max_degree: int
    max_level: int
    hashes: tuple[bytes, ...]


class RangeQuery(NamedTuple):
    """A range that was read: its results, or a summary of them. ``end`` is what the last result was, unless
    the range was ``exhausted``."""

    start: bytes
    end: bytes
    exhausted: bool
    reads: tuple[Read, ...]
    summary: MerkleSummary | None


class Collection(NamedTuple):
    """The hashes of what was done in a collection of private data."""

    name: str
    reads: tuple[Read, ...]
    writes: tuple[Write, ...]
    metadata_writes: tuple[MetadataWrite, ...]
    private_hash: bytes


class Namespace(NamedTuple):
    """What a transaction did in the state of one chaincode."""

    name: str
    reads: tuple[Read, ...]
    range_queries: tuple[RangeQuery, ...]
    writes: tuple[Write, ...]
    metadata_writes: tuple[MetadataWrite, ...]
    collections: tuple[Collection, ...]


def read_write_set(octets: bytes) -> tuple[Namespace, ...]:
    """The namespaces of ``rwset.TxReadWriteSet``. Raises protobuf's ``DecodeError``."""
    return tuple(_namespace(one) for one in rwset_pb2.TxReadWriteSet.FromString(octets).ns_rwset)


def _namespace(message: Any) -> Namespace:
    public = kv_rwset_pb2.KVRWSet.FromString(message.rwset)
    return Namespace(
        name=str(message.namespace),
        reads=tuple(_read(one) for one in public.reads),
        range_queries=tuple(_range(one) for one in public.range_queries_info),
        writes=tuple(
            Write(one.key.encode(), None if one.is_delete else bytes(one.value)) for one in public.writes
        ),
        metadata_writes=tuple(
            MetadataWrite(one.key.encode(), _entries(one)) for one in public.metadata_writes
        ),
        collections=tuple(_collection(one) for one in message.collection_hashed_rwset),
    )


def _collection(message: Any) -> Collection:
    hashed = kv_rwset_pb2.HashedRWSet.FromString(message.hashed_rwset)
    return Collection(
        name=str(message.collection_name),
        reads=tuple(Read(bytes(one.key_hash), _version(one)) for one in hashed.hashed_reads),
        writes=tuple(
            Write(
                bytes(one.key_hash),
                None if one.is_delete or one.is_purge else bytes(one.value_hash),
                bool(one.is_purge),
            )
            for one in hashed.hashed_writes
        ),
        metadata_writes=tuple(
            MetadataWrite(bytes(one.key_hash), _entries(one)) for one in hashed.metadata_writes
        ),
        private_hash=bytes(message.pvt_rwset_hash),
    )


def _read(message: Any) -> Read:
    return Read(message.key.encode(), _version(message))


def _version(message: Any) -> Version | None:
    if not message.HasField("version"):
        return None
    return Version(int(message.version.block_num), int(message.version.tx_num))


def _range(message: Any) -> RangeQuery:
    kind = message.WhichOneof("reads_info")
    found = message.raw_reads.kv_reads if kind == "raw_reads" else ()
    summary = None
    if kind == "reads_merkle_hashes":
        given = message.reads_merkle_hashes
        hashes = tuple(bytes(one) for one in given.max_level_hashes)
        summary = MerkleSummary(int(given.max_degree), int(given.max_level), hashes)
    return RangeQuery(
        message.start_key.encode(),
        message.end_key.encode(),
        bool(message.itr_exhausted),
        tuple(_read(one) for one in found),
        summary,
    )


def _entries(message: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((str(one.name), bytes(one.value)) for one in message.entries)

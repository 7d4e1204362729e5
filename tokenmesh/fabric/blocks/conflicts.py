"""Whether what a transaction has read was still so when its turn came: Fabric's multi-version check.

``core/ledger/kvledger/txmgmt/validation`` in its source. A key read must have the version it had; a range
must hold the keys and versions it held. Long ranges are compared by the root hashes of a tree.
"""

from __future__ import annotations

from collections.abc import Collection as Keys
from collections.abc import Iterable, Sequence
from hashlib import sha256

from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from tokenmesh.fabric.blocks.codes import MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, VALID
from tokenmesh.fabric.blocks.rwsets import MerkleSummary, Namespace, RangeQuery, Read, Version
from tokenmesh.fabric.blocks.state import ChannelState

Key = tuple[str, str, bytes]


def written_keys(namespaces: Iterable[Namespace]) -> set[Key]:
    """All keys that a transaction writes, or notes something about."""
    found: set[Key] = set()
    for one in namespaces:
        found.update((one.name, "", write.key) for write in one.writes)
        found.update((one.name, "", noted.key) for noted in one.metadata_writes)
        for collection in one.collections:
            found.update((one.name, collection.name, write.key) for write in collection.writes)
            found.update((one.name, collection.name, noted.key) for noted in collection.metadata_writes)
    return found


def conflict(state: ChannelState, namespaces: Sequence[Namespace], in_block: Keys[Key]) -> tuple[int, str]:
    """The validation code, and what was not as it was read.

    ``in_block``: the keys that valid transactions before this one in the same block have written.
    """
    for one in namespaces:
        for read in one.reads:
            if not _is_current(state, one.name, "", read, in_block):
                return MVCC_READ_CONFLICT, f"{_name(read.key)} of {one.name} was written since it was read"
        for query in one.range_queries:
            if not _is_same(state, one.name, query):
                return PHANTOM_READ_CONFLICT, f"a range of {one.name} has changed since it was read"
        for collection in one.collections:
            for read in collection.reads:
                if not _is_current(state, one.name, collection.name, read, in_block):
                    what = f"{read.key.hex()} of {one.name}'s collection {collection.name}"
                    return MVCC_READ_CONFLICT, f"{what} was written since it was read"
    return VALID, ""


def _is_current(
    state: ChannelState, namespace: str, collection: str, read: Read, in_block: Keys[Key]
) -> bool:
    if (namespace, collection, read.key) in in_block:
        return False
    return state.version(namespace, collection, read.key) == read.version


def _is_same(state: ChannelState, namespace: str, query: RangeQuery) -> bool:
    now = state.range(namespace, query.start, query.end, last=not query.exhausted)
    if query.summary is None:
        return [tuple(read) for read in query.reads] == list(now)
    return summary(now, query.summary.max_degree) == query.summary


def summary(results: Iterable[tuple[bytes, Version]], max_degree: int) -> MerkleSummary | None:
    """The summary of a range's results; None if they are too few for one.

    Results are hashed in groups of one more than ``max_degree``, the hashes likewise, level upon level.
    """
    if max_degree < 2:
        return None
    levels: dict[int, list[bytes]] = {1: []}
    pending: list[tuple[bytes, Version]] = []
    for result in results:
        pending.append(result)
        if len(pending) > max_degree:
            _add(levels, _hash_of(pending), max_degree)
            pending = []
    if levels == {1: []}:
        return None
    if pending:
        _add(levels, _hash_of(pending), max_degree)
    return _close(levels, max_degree)


def _add(levels: dict[int, list[bytes]], leaf: bytes, max_degree: int) -> None:
    levels.setdefault(1, []).append(leaf)
    level = 1
    while len(levels[level]) > max_degree:
        combined = sha256(b"".join(levels.pop(level))).digest()
        level += 1
        levels.setdefault(level, []).append(combined)


def _close(levels: dict[int, list[bytes]], max_degree: int) -> MerkleSummary:
    """What is left over below the highest level is taken up to it."""
    top = max(levels)
    for level in range(1, top):
        left = levels.pop(level, [])
        if left:
            combined = left[0] if len(left) == 1 else sha256(b"".join(left)).digest()
            levels.setdefault(level + 1, []).append(combined)
    if len(levels[top]) > max_degree:
        levels = {top + 1: [sha256(b"".join(levels[top])).digest()]}
        top += 1
    return MerkleSummary(max_degree, top, tuple(levels[top]))


def _hash_of(results: Sequence[tuple[bytes, Version]]) -> bytes:
    reads = kv_rwset_pb2.QueryReads()
    for key, version in results:
        reads.kv_reads.add(
            key=key.decode(), version=kv_rwset_pb2.Version(block_num=version.block, tx_num=version.tx)
        )
    return sha256(reads.SerializeToString()).digest()


def _name(key: bytes) -> str:
    return repr(key.decode(errors="replace"))

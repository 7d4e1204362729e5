"""Reads that are not what they were: of keys, of ranges, of long ranges by their trees of hashes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2

from tokenmesh.fabric.blocks import Namespace, Read, Version, Write
from tokenmesh.fabric.blocks.codes import MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT, VALID
from tokenmesh.fabric.blocks.conflicts import conflict, summary, written_keys
from tokenmesh.fabric.blocks.rwsets import Collection, MerkleSummary, MetadataWrite, RangeQuery
from tokenmesh.fabric.blocks.state import VALIDATION_PARAMETER, ChannelState

FIRST, SECOND = Version(1, 0), Version(2, 3)
EMPTY = Namespace("cc", (), (), (), (), ())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ChannelState]:
    """Keys a, b and c of the first transaction, and a hashed one."""
    with closing(ChannelState(tmp_path / "state.db", lambda name: name == "cc")) as state:
        hashed = Collection("private", (), (Write(b"\x01", b"hash"),), (), b"")
        namespace = EMPTY._replace(
            writes=tuple(Write(key, b"1") for key in (b"a", b"b", b"c")), collections=(hashed,)
        )
        state.apply([namespace], FIRST, lambda name, collection: 0)
        yield state


def reading(*reads: Read) -> list[Namespace]:
    return [EMPTY._replace(reads=reads)]


def ranging(start: bytes, end: bytes, *reads: Read, exhausted: bool = True) -> list[Namespace]:
    return [EMPTY._replace(range_queries=(RangeQuery(start, end, exhausted, reads, None),))]


@pytest.mark.parametrize(
    ("read", "code"),
    [
        (Read(b"a", FIRST), VALID),
        (Read(b"a", SECOND), MVCC_READ_CONFLICT),
        (Read(b"a", None), MVCC_READ_CONFLICT),
        (Read(b"nothing", None), VALID),
        (Read(b"nothing", FIRST), MVCC_READ_CONFLICT),
    ],
)
def test_a_key_has_the_version_it_had(state: ChannelState, read: Read, code: int) -> None:
    assert conflict(state, reading(read), set())[0] == code
    hashed = Collection("private", (Read(b"\x01", read.version),), (), (), b"")
    expected = VALID if read.version == FIRST else MVCC_READ_CONFLICT
    assert conflict(state, [EMPTY._replace(collections=(hashed,))], set())[0] == expected


def test_what_was_written_in_the_same_block_is_a_conflict(state: ChannelState) -> None:
    """Whatever version the read names: it cannot have seen it."""
    assert conflict(state, reading(Read(b"a", FIRST)), {("cc", "", b"a")})[0] == MVCC_READ_CONFLICT


def test_a_range_holds_what_it_held(state: ChannelState) -> None:
    a, b, c = (Read(key, FIRST) for key in (b"a", b"b", b"c"))
    for valid in (
        ranging(b"a", b"c", a, b),
        ranging(b"a", b"", a, b, c),
        ranging(b"b", b"b", b, exhausted=False),
        ranging(b"x", b"z"),
    ):
        assert conflict(state, valid, set()) == (VALID, "")
    for phantom in (
        ranging(b"a", b"c", a),
        ranging(b"a", b"c", a, b, c),
        ranging(b"a", b"c", a, Read(b"b", SECOND)),
        ranging(b"a", b"c", a, Read(b"bb", FIRST)),
        ranging(b"a", b"c", a, b, exhausted=False),
    ):
        assert conflict(state, phantom, set())[0] == PHANTOM_READ_CONFLICT


def leaves(results: list[tuple[bytes, Version]], size: int) -> list[bytes]:
    found = []
    for at in range(0, len(results), size):
        reads = kv_rwset_pb2.QueryReads()
        for key, version in results[at : at + size]:
            reads.kv_reads.add(key=key.decode(), version={"block_num": version.block, "tx_num": version.tx})
        found.append(sha256(reads.SerializeToString()).digest())
    return found


def combined(*hashes: bytes) -> bytes:
    return sha256(b"".join(hashes)).digest()


def test_long_ranges_are_trees_of_hashes() -> None:
    """Groups of one more than the degree, hashed; as many hashes, hashed; what is left over goes up alone."""
    results = [(f"{number:03}".encode(), Version(number, 0)) for number in range(20)]
    assert summary(results[:2], 2) is None
    one = leaves(results[:3], 3)
    assert summary(results[:3], 2) == MerkleSummary(2, 1, tuple(one))
    two = leaves(results[:7], 3)
    assert summary(results[:7], 2) == MerkleSummary(2, 2, (combined(*two),))
    four = leaves(results[:10], 3)
    assert summary(results[:10], 2) == MerkleSummary(2, 2, (combined(*four[:3]), four[3]))
    seven = leaves(results, 3)
    halves = (combined(*seven[:3]), combined(*seven[3:6]))
    assert summary(results, 2) == MerkleSummary(2, 3, (combined(*halves, seven[6]),))
    assert summary(results, 1) is None


def test_a_tree_of_hashes_is_compared(state: ChannelState) -> None:
    kept = summary(state.range("cc", b"a", b"", last=True), 2)
    query = RangeQuery(b"a", b"", True, (), kept)
    assert conflict(state, [EMPTY._replace(range_queries=(query,))], set()) == (VALID, "")
    state.apply([EMPTY._replace(writes=(Write(b"b", b"2"),))], SECOND, lambda name, collection: 0)
    assert conflict(state, [EMPTY._replace(range_queries=(query,))], set())[0] == PHANTOM_READ_CONFLICT


def test_a_keys_own_policy_stays_until_the_key_goes(state: ChannelState) -> None:
    """A new value keeps it, and it is a write of its own; with the key it is gone, and does not come back."""

    def never(name: str, collection: str) -> int:
        return 0

    noted = (MetadataWrite(b"a", ((VALIDATION_PARAMETER, b"policy"),)),)
    state.apply([EMPTY._replace(metadata_writes=noted)], SECOND, never)
    assert (state.policy("cc", "", b"a"), state.version("cc", "", b"a")) == (b"policy", SECOND)
    state.apply([EMPTY._replace(writes=(Write(b"a", b"2"),))], Version(3, 0), never)
    assert (state.policy("cc", "", b"a"), state.value("cc", b"a")) == (b"policy", b"2")
    state.apply([EMPTY._replace(writes=(Write(b"a", None),), metadata_writes=noted)], Version(4, 0), never)
    assert state.version("cc", "", b"a") is None
    state.apply([EMPTY._replace(writes=(Write(b"a", b"3"),))], Version(5, 0), never)
    assert state.policy("cc", "", b"a") is None
    state.apply([EMPTY._replace(metadata_writes=(MetadataWrite(b"nothing", ()),))], Version(6, 0), never)
    assert state.version("cc", "", b"nothing") is None


def test_private_data_go_when_their_time_is_over(state: ChannelState) -> None:
    """Kept for two blocks after the one they were written in."""
    brief = Collection("brief", (), (Write(b"\x02", b"hash"),), (), b"")
    state.apply([EMPTY._replace(collections=(brief,))], Version(5, 0), lambda name, collection: 2)
    for block, there in ((6, True), (7, True), (8, False)):
        state.expire(block)
        assert (state.version("cc", "brief", b"\x02") is not None) == there
    assert state.version("cc", "private", b"\x01") == FIRST


def test_everything_written_is_named() -> None:
    hashed = Collection("c", (), (Write(b"\x01", b""),), (MetadataWrite(b"\x02", ()),), b"")
    namespace = EMPTY._replace(
        writes=(Write(b"a", None),), metadata_writes=(MetadataWrite(b"b", ()),), collections=(hashed,)
    )
    assert written_keys([namespace]) == {
        ("cc", "", b"a"),
        ("cc", "", b"b"),
        ("cc", "c", b"\x01"),
        ("cc", "c", b"\x02"),
    }

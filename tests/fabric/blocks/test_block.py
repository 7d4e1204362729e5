"""A block's header in DER and its hash, for numbers and contents that no test network reaches."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from fabric_protos.common import common_pb2

from tokenmesh.fabric.blocks.block import HEIGHT_MAX, Block, data_hash, header_bytes, read_block
from tokenmesh.fabric.errors import BlockError


@pytest.mark.parametrize(
    ("number", "integer"),
    [
        (0, "020100"),
        (127, "02017f"),
        (128, "02020080"),  # the highest bit set: a zero before it, for DER's integers have a sign
        (255, "020200ff"),
        (256, "02020100"),
        (2**63, "0209008000000000000000"),
        (2**64 - 1, "020900ffffffffffffffff"),
    ],
)
def test_numbers_are_der_integers(number: int, integer: str) -> None:
    content = bytes.fromhex(integer) + bytes.fromhex("0400") + bytes.fromhex("040161")
    assert header_bytes(number, b"", b"a") == bytes((0x30, len(content))) + content


def test_long_contents_have_long_lengths() -> None:
    """From 128 bytes on the length has a length of its own."""
    octets = header_bytes(1, bytes(128), bytes(300))
    assert octets[:3] == bytes.fromhex("3082") + octets[2:3]
    assert bytes.fromhex("048180") + bytes(128) + bytes.fromhex("0482012c") in octets


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_no_block_can_have(number: int) -> None:
    with pytest.raises(BlockError):
        header_bytes(number, b"", b"")


def test_a_block_is_read_as_it_was_written() -> None:
    """And what it lacks is empty: metadata of a block that no peer has committed, say."""
    block = Block(7, bytes(32), sha256(b"ab").digest(), (b"a", b"b"), (b"m",))
    assert read_block(block.to_bytes()) == block
    assert block.data_is_whole
    assert block.codes == b""
    assert not Block(7, b"", b"", (b"a",), ()).data_is_whole


def test_a_block_beyond_all_heights_is_none() -> None:
    """A peer may say any number; what is kept of blocks has room for half of them."""
    good = Block(HEIGHT_MAX, b"", b"", (), ())
    assert read_block(good.to_bytes()) == good
    with pytest.raises(BlockError, match="no block's number"):
        read_block(Block(HEIGHT_MAX + 1, b"", b"", (), ()).to_bytes())


def signed(payload: bytes, signature: bytes = b"signature") -> bytes:
    return bytes(common_pb2.Envelope(payload=payload, signature=signature).SerializeToString())


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda one, two: [one + two], id="run together: read as the second alone"),
        pytest.param(lambda one, two: [one, two, b""], id="one that is empty behind them"),
        pytest.param(lambda one, two: [one[:9], one[9:], two], id="cut in two between payload and signature"),
        pytest.param(lambda one, two: [one[:5], one[5:] + two], id="cut anywhere"),
        pytest.param(lambda one, _: [one + one], id="twice the same, run together"),
    ],
)
def test_where_a_transaction_ends_is_not_in_the_hash(cut: Callable[[bytes, bytes], list[bytes]]) -> None:
    """So it is looked at apart: a transaction cannot be hidden by running it into the next."""
    one, two = signed(b"payload"), signed(b"another payload")
    honest, hidden = [one, two], cut(one, two)
    if one + one not in hidden:
        assert data_hash(hidden) == data_hash(honest)
    assert Block(1, b"", b"", tuple(honest), ()).entries_run_together == []
    assert Block(1, b"", b"", tuple(hidden), ()).entries_run_together


def test_fields_that_are_not_known_stay_where_go_writes_them() -> None:
    """Behind the others: a client may have sent some, and the orderer keeps them."""
    unknown = b"\xfa\x06\x03abc"
    assert Block(1, b"", b"", (signed(b"payload") + unknown,), ()).entries_run_together == []
    assert Block(1, b"", b"", (signed(b"payload"), unknown), ()).entries_run_together == [1]

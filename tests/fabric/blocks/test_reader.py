"""Blocks as a peer gives them: the chain of hashes, and what stands in them; from a file, the same again."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from tokenmesh.fabric.blocks import (
    Version,
    ledger_info,
    read_block,
    read_block_files,
    read_blocks,
    read_creator,
    read_envelope,
    read_transaction,
    write_blocks,
)
from tokenmesh.fabric.errors import BlockError
from tokenmesh.fabric.gateway import Network
from tokenmesh.fabric.network import Network as LocalNetwork


def test_every_header_names_the_hash_of_the_one_before(channel: Network) -> None:
    """Our hash of a header is Fabric's own, from block 0 to the last; and so is that of the data."""
    blocks = list(read_blocks(channel))
    assert [block.number for block in blocks] == list(range(ledger_info(channel).height))
    for before, block in pairwise(blocks):
        assert block.previous_hash == before.hash
    assert all(block.data_is_whole for block in blocks)
    assert ledger_info(channel).hash == blocks[-1].hash


def test_the_profile_names_the_first_block(network: LocalNetwork, channel: Network) -> None:
    """A local network's profile holds the hash that whoever verifies it is to trust."""
    (first,) = read_blocks(channel, 0, 0)
    assert network.profile.channels["mesh"].genesis == first.hash.hex()


def test_a_transaction_is_taken_apart(channel: Network) -> None:
    """Who asked for what, what was answered, read and written, and who endorsed it."""
    contract = channel.get_contract("blocks")
    contract.submit_transaction("work", "taken-apart")
    written = contract.submit_async("work", ["taken-apart"])
    status = written.get_status()
    (block,) = read_blocks(channel, status.block_number, status.block_number)
    index, envelope = next(
        (index, one)
        for index, one in enumerate(map(read_envelope, block.data))
        if one.tx_id == written.transaction_id
    )
    assert block.codes[index] == 0
    assert envelope.channel == "mesh"
    assert sha256(envelope.nonce + envelope.creator).hexdigest() == envelope.tx_id
    assert read_creator(envelope.creator).msp_id == "GovernanceMSP"
    transaction = read_transaction(envelope)
    assert transaction.chaincode == transaction.invoked == transaction.header_chaincode == "blocks"
    assert transaction.arguments == (b"work", b"taken-apart")
    assert (transaction.status, transaction.payload) == (200, b"taken-apart")
    state = next(one for one in transaction.namespaces if one.name == "blocks")
    keys = [b"taken-apart-0", b"taken-apart-1", b"taken-apart-2"]
    assert [(one.key, one.value) for one in state.writes] == [(key, b"2") for key in keys]
    assert [one.key for one in state.reads] == keys
    (version,) = {one.version for one in state.reads}
    assert version is not None
    assert version < Version(block.number, index)
    endorsers = {read_creator(one.endorser).msp_id for one in transaction.endorsements}
    assert endorsers == {"GovernanceMSP", "ServicesMSP"}


def test_an_event_is_read(channel: Network) -> None:
    """What a chaincode emits stands in its transaction."""
    emitted = channel.get_contract("blocks").submit_async("emit", ["news", "of today"])
    number = emitted.get_status().block_number
    (block,) = read_blocks(channel, number, number)
    events = [
        read_transaction(one).event
        for one in map(read_envelope, block.data)
        if one.tx_id == emitted.transaction_id
    ]
    assert [(one.name, one.payload) for one in events if one] == [("news", b"of today")]


def test_a_block_that_is_not_there_yet_is_waited_for(channel: Network) -> None:
    """The last block may be one that is still to come."""
    height = ledger_info(channel).height
    coming = read_blocks(channel, height - 1, height)
    assert next(coming).number == height - 1
    channel.get_contract("blocks").submit_transaction("put", "to-come", "1")
    assert next(coming).number == height
    assert list(coming) == []


def test_files_hold_what_the_peer_gave(channel: Network, tmp_path: Path) -> None:
    """One file of many blocks, or a folder of files of one block each as `peer channel fetch` writes them."""
    blocks = list(read_blocks(channel))
    assert write_blocks(tmp_path / "all", iter(blocks)) == len(blocks)
    assert list(read_block_files(tmp_path / "all")) == blocks
    (tmp_path / "one-by-one").mkdir()
    for block in blocks:
        (tmp_path / "one-by-one" / f"mesh_{block.number}.block").write_bytes(block.to_bytes())
    assert list(read_block_files(tmp_path / "one-by-one")) == blocks


@pytest.mark.parametrize("content", [b"no block at all", b"fabric-blocks\n" + bytes(7) + b"\xff" + b"short"])
def test_a_file_that_holds_no_block(tmp_path: Path, content: bytes) -> None:
    """What is no block, or ends within one, is said to be so."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BlockError):
        list(read_block_files(tmp_path / "file"))


def test_no_file_and_no_blocks(tmp_path: Path) -> None:
    """A path that is not there, and a folder without blocks, are said to be so."""
    with pytest.raises(BlockError, match="cannot be read"):
        list(read_block_files(tmp_path / "nowhere"))
    with pytest.raises(BlockError, match="no blocks"):
        list(read_block_files(tmp_path))


@pytest.mark.parametrize("octets", [b"\xff\xff", b"\x0a\x80"])
def test_bytes_that_are_no_block(octets: bytes) -> None:
    """Damage is a BlockError, whatever protobuf says of it."""
    with pytest.raises(BlockError):
        read_block(octets)

"""Where blocks come from: a peer, or files.

A file holds one block as ``peer channel fetch`` writes it, or several, each with its length before it; a
folder holds such files. What comes from a peer is read as it was committed, and asked for only once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fabric_protos.common import ledger_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.block import Block, block_of, read_block
from tokenmesh.fabric.errors import BlockError
from tokenmesh.fabric.gateway import Network

BLOCK_BYTES_MAX = 256 * 2**20
"""No channel's blocks are larger (a message of Fabric's has at most 100 MB); a damaged file may claim so."""
MAGIC = b"fabric-blocks\n"
LENGTH_BYTES = 8


class LedgerInfo(NamedTuple):
    """How many blocks a peer has of a channel, and the hash of the last one's header."""

    height: int
    hash: bytes


def ledger_info(network: Network) -> LedgerInfo:
    """How far a peer has come on a channel. Raises :class:`~tokenmesh.fabric.errors.GatewayError`, or
    :class:`BlockError` if the answer cannot be read."""
    answer = network.get_contract("qscc").evaluate_transaction("GetChainInfo", network.name)
    try:
        info = ledger_pb2.BlockchainInfo.FromString(answer)
    except DecodeError as error:
        raise BlockError(f"what the peer says of the channel {network.name} cannot be read") from error
    return LedgerInfo(int(info.height), bytes(info.currentBlockHash))


def read_blocks(network: Network, first: int = 0, last: int | None = None) -> Generator[Block, None, None]:
    """The blocks ``first`` to ``last`` of a channel (None: the last there is now), one after another.

    A block that is not there yet is waited for. Raises :class:`~tokenmesh.fabric.errors.GatewayError`.
    """
    if last is None:
        last = ledger_info(network).height - 1
    if last < first:
        return
    with network.get_block_events(start_block=first) as events:
        for message in events:
            block = block_of(message)
            yield block
            if block.number >= last:
                return


def read_block_files(path: Path) -> Iterator[Block]:
    """The blocks in a file, or in a folder's files, in the order of their numbers.

    Raises :class:`BlockError` where a file holds none, or not whole.
    """
    if not path.is_dir():
        yield from _file(path)
        return
    files = [(first.number, file) for file in path.iterdir() if (first := next(_file(file), None))]
    if not files:
        raise BlockError(f"there are no blocks in {path}")
    for _, file in sorted(files):
        yield from _file(file)


def write_blocks(path: Path, blocks: Iterator[Block]) -> int:
    """Keep blocks in a file, each with its length before it; how many there were."""
    count = 0
    with path.open("wb") as file:
        file.write(MAGIC)
        for count, block in enumerate(blocks, 1):  # noqa: B007 - it is what is given back
            octets = block.to_bytes()
            file.write(len(octets).to_bytes(LENGTH_BYTES, "big") + octets)
    return count


def _file(path: Path) -> Iterator[Block]:
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                yield from _several(path, file)
                return
            file.seek(0)
            yield read_block(file.read(BLOCK_BYTES_MAX))
    except OSError as error:
        raise BlockError(f"the blocks in {path} cannot be read: {error}") from error


def _several(path: Path, file: BinaryIO) -> Iterator[Block]:
    while header := file.read(LENGTH_BYTES):
        length = int.from_bytes(header, "big")
        octets = file.read(length) if length <= BLOCK_BYTES_MAX else b""
        if len(header) < LENGTH_BYTES or len(octets) != length:
            raise BlockError(f"{path} ends within a block, or is no file of blocks")
        yield read_block(octets)

"""A block as the ledger keeps it: its header and how it is hashed, its data, its metadata.

Where the rules come from: ``protoutil/blockutils.go`` in Fabric's source. A header's hash is the SHA-256 of
its ASN.1 DER (number, hash of the header before, hash of the data), the data's hash the SHA-256 of all
envelopes, one after another. What is in the metadata is not part of any hash: orderers sign some of it
(:mod:`tokenmesh.fabric.blocks.orderers`), and the validation codes are no more than what a peer says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.errors import BlockError

SIGNATURES = 0
LAST_CONFIG = 1
TRANSACTIONS_FILTER = 2
COMMIT_HASH = 4
NUMBER_MAX = 2**64 - 1
HEIGHT_MAX = 2**63 - 1
"""No channel will ever be as long; SQLite's numbers, other than Fabric's, have a sign."""


@dataclass(frozen=True)
class Block:
    """A block. ``data`` holds the envelopes as bytes, in their order."""

    number: int
    previous_hash: bytes
    data_hash: bytes
    data: tuple[bytes, ...]
    metadata: tuple[bytes, ...]

    @cached_property
    def header_bytes(self) -> bytes:
        """What the header's hash is made of, and what orderers sign."""
        return header_bytes(self.number, self.previous_hash, self.data_hash)

    @cached_property
    def hash(self) -> bytes:
        """The hash of the header, which the next block names."""
        return sha256(self.header_bytes).digest()

    @property
    def data_is_whole(self) -> bool:
        """Whether the data are those that the header names."""
        return data_hash(self.data) == self.data_hash

    @property
    def entries_run_together(self) -> list[int]:
        """Which entries of the data are not one envelope each, as orderers write them.

        The hash is over all of them, one after another, and does not tell where one ends: two that run
        together have the same hash as the two, and are read as the second alone; and so has one that is cut
        in two, or one with an empty one behind it.
        """
        return [place for place, octets in enumerate(self.data) if not _is_one_envelope(octets)]

    @property
    def codes(self) -> bytes:
        """The validation code of each transaction, as the peer that gave the block noted it: one byte each,
        empty for a block that no peer has committed."""
        return self.metadata_at(TRANSACTIONS_FILTER)

    def metadata_at(self, index: int) -> bytes:
        """One entry of the metadata; empty where there is none."""
        return self.metadata[index] if index < len(self.metadata) else b""

    def to_bytes(self) -> bytes:
        """``common.Block``."""
        header = common_pb2.BlockHeader(
            number=self.number, previous_hash=self.previous_hash, data_hash=self.data_hash
        )
        message = common_pb2.Block(
            header=header,
            data=common_pb2.BlockData(data=self.data),
            metadata=common_pb2.BlockMetadata(metadata=self.metadata),
        )
        return bytes(message.SerializeToString())


def read_block(octets: bytes) -> Block:
    """A block from its bytes (``common.Block``). Raises :class:`BlockError`."""
    try:
        return block_of(common_pb2.Block.FromString(octets))
    except DecodeError as error:
        raise BlockError(f"these {len(octets)} bytes are no block: {error}") from error


def block_of(message: Any) -> Block:
    """A block from ``common_pb2.Block``. Raises :class:`BlockError` for a number that is none."""
    header = message.header
    if header.number > HEIGHT_MAX:
        raise BlockError(f"{header.number} is no block's number")
    return Block(
        int(header.number),
        bytes(header.previous_hash),
        bytes(header.data_hash),
        tuple(message.data.data),
        tuple(message.metadata.metadata),
    )


def _is_one_envelope(octets: bytes) -> bool:
    """Whether these are a payload and its signature, once each; behind them there may be fields not known."""
    try:
        message = common_pb2.Envelope.FromString(octets)
        known = common_pb2.Envelope(payload=message.payload, signature=message.signature)
        written = known.SerializeToString()
        rest = common_pb2.Envelope.FromString(octets[len(written) :])
    except DecodeError:
        return False
    more = bool(rest.payload or rest.signature)
    return bool(message.payload and message.signature) and octets.startswith(written) and not more


def data_hash(data: Sequence[bytes]) -> bytes:
    """The hash over a block's envelopes."""
    whole = sha256()
    for one in data:
        whole.update(one)
    return whole.digest()


def header_bytes(number: int, previous_hash: bytes, data_hash: bytes) -> bytes:
    """``SEQUENCE { INTEGER, OCTET STRING, OCTET STRING }`` in DER."""
    if not 0 <= number <= NUMBER_MAX:
        raise BlockError(f"{number} is no block's number")
    # One byte more than needed where the highest bit is set: DER's integers have a sign.
    integer = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return _der(0x30, _der(0x02, integer) + _der(0x04, previous_hash) + _der(0x04, data_hash))


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content

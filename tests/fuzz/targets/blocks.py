"""Blocks of a real channel, spoilt at any depth: read or refused by an error of ours, and never verified.

``corpus/blocks.xz`` has a channel's blocks from the first one on: a configuration, chaincode defined, a
ledger begun and used, a private contract settled.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Final

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from fuzz.chance import Chance
from fuzz.target import Target
from google.protobuf.message import DecodeError

from tokenmesh.errors import ConfigError, LedgerError
from tokenmesh.fabric.blocks import (
    Block,
    read_block,
    read_block_files,
    read_creator,
    read_envelope,
    read_transaction,
)
from tokenmesh.fabric.blocks.block import data_hash
from tokenmesh.fabric.blocks.msp import read_msp
from tokenmesh.fabric.errors import BlockError
from tokenmesh.ledger.fabric.verify import verify_blocks

CORPUS: Final = Path(__file__).parent.parent / "corpus" / "blocks.xz"
CHAINCODE: Final = "rules-1"
VERIFIED_ONE_IN: Final = 100
"""Verifying a whole channel takes as long as reading a few hundred blocks."""


def real_blocks(directory: Path) -> list[Block]:
    path = directory / "blocks"
    path.write_bytes(lzma.decompress(CORPUS.read_bytes()))
    return list(read_block_files(path))


class Blocks(Target):
    name: ClassVar[str] = "blocks"
    share: ClassVar[int] = 40

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blocks = real_blocks(directory)
        self.genesis = self.blocks[0].hash.hex()

    def one(self, chance: Chance) -> None:
        if chance.one_in(VERIFIED_ONE_IN):
            self.verify(chance)
            return
        block = chance.pick(self.blocks)
        if chance.one_in(8):
            _or_refused(read_block, chance.spoil(block.to_bytes()))
            return
        for data in spoilt(chance, block).data:
            envelope = _or_refused(read_envelope, data)
            if envelope is None:
                continue
            _or_refused(read_creator, envelope.creator)
            _or_refused(read_transaction, envelope)
        _or_refused(read_msp, chance.spoil(block.data[0]))

    def verify(self, chance: Chance) -> None:
        """``ok`` only for what is the channel, as far as it goes."""
        blocks = list(self.blocks)
        at = chance.below(len(blocks))
        way = chance.below(6)
        if way == 0:
            del blocks[at]
        elif way == 1:
            other = chance.below(len(blocks))
            blocks[at], blocks[other] = blocks[other], blocks[at]
        else:
            blocks[at] = spoilt(chance, blocks[at])
        try:
            came = (read_block(block.to_bytes()) for block in blocks)
            report = verify_blocks(came, CHAINCODE, genesis=self.genesis).report
        except (ConfigError, LedgerError):
            return
        if report.ok:
            for mine, real in zip_longest(blocks, self.blocks):
                if mine is None:
                    break  # the newest ones left out: a channel that has not come as far
                assert real is not None
                assert said(mine) == said(real), at


def said(block: Block) -> tuple[Any, ...]:
    """What a block says that counts: all but metadata which no verdict rests on, as on block 0's codes."""
    codes = block.codes if block.number else b""
    return block.number, block.previous_hash, block.data_hash, block.data, codes


def spoilt(chance: Chance, block: Block) -> Block:
    """A block with something wrong in it, the hash of its data put right in half of the cases."""
    data, metadata = list(block.data), list(block.metadata)
    number, previous, digest = block.number, block.previous_hash, block.data_hash
    way = chance.below(8)
    if way == 0:
        number = chance.pick((0, number + 1, 2**63, 2**64 - 1))
    elif way == 1:
        previous = chance.spoil(previous)
    elif way == 2 and metadata:
        at = chance.below(len(metadata))
        metadata[at] = chance.spoil(metadata[at])
    elif way == 3:
        cut = chance.below(len(data[0]))
        data = chance.pick(([], data * 2, [*data, b""], [b"".join(data * 2)], [data[0][:cut], data[0][cut:]]))
    else:
        at = chance.below(len(data))
        data[at] = _deeper(chance, data[at])
    if chance.one_in(2):
        digest = data_hash(data)
    return Block(number, previous, digest, tuple(data), tuple(metadata))


def _deeper(chance: Chance, envelope: bytes) -> bytes:
    """Something spoilt at any depth of an envelope, all around it whole."""
    depth = chance.below(7)
    if depth == 0:
        return chance.spoil(envelope)
    message = common_pb2.Envelope.FromString(envelope)
    payload = common_pb2.Payload.FromString(message.payload)
    if depth == 1:
        message.payload = chance.spoil(message.payload)
    elif depth == 2:
        part = chance.pick(("channel_header", "signature_header"))
        setattr(payload.header, part, chance.spoil(getattr(payload.header, part)))
        message.payload = payload.SerializeToString()
    elif depth == 3:
        payload.data = chance.spoil(payload.data)
        message.payload = payload.SerializeToString()
    else:
        payload.data = _deeper_still(chance, payload.data, depth)
        message.payload = payload.SerializeToString()
    return bytes(message.SerializeToString())


def _deeper_still(chance: Chance, data: bytes, depth: int) -> bytes:
    try:
        transaction = transaction_pb2.Transaction.FromString(data)
        action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(
            action.action.proposal_response_payload
        )
        done = proposal_pb2.ChaincodeAction.FromString(response.extension)
    except (DecodeError, IndexError):  # a configuration
        return chance.spoil(data)
    if depth == 4:
        action.chaincode_proposal_payload = chance.spoil(action.chaincode_proposal_payload)
    elif depth == 5:
        done.results = chance.spoil(done.results)
    else:
        done.response.payload = chance.spoil(done.response.payload)
    response.extension = done.SerializeToString()
    action.action.proposal_response_payload = response.SerializeToString()
    transaction.actions[0].payload = action.SerializeToString()
    return bytes(transaction.SerializeToString())


def _or_refused(read: Callable[[Any], Any], given: Any) -> Any:
    try:
        return read(given)
    except BlockError:
        return None

"""Blocks of a real channel with a transaction hidden where the hash of a block's data does not tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fuzz.targets.blocks import CHAINCODE, real_blocks

from tokenmesh.fabric.blocks import Block
from tokenmesh.ledger.fabric.verify import verify_blocks


@pytest.fixture
def blocks(tmp_path: Path) -> list[Block]:
    """A channel from its first block on: a ledger begun and used."""
    return real_blocks(tmp_path)


def test_the_blocks_as_they_are_hold(blocks: list[Block]) -> None:
    verified = verify_blocks(blocks, CHAINCODE, genesis=blocks[0].hash.hex())
    assert verified.report.findings == []
    assert verified.report.transactions == 10


def test_a_settlement_cut_in_two_is_found(blocks: list[Block]) -> None:
    """The last block's only transaction, cut between its payload and its signature: the data have the same
    hash, so header and orderers' signatures hold; each half alone is invalid, as the peer that gives the
    block says of them; and the settlement would be gone."""
    last = blocks[-1]
    (envelope,) = last.data
    cut = len(envelope) - 2 - envelope[-72:].rindex(b"\x12")
    metadata = list(last.metadata)
    metadata[2] = b"\x02\x02"
    for at in (cut, 100, len(envelope) - 10):
        hidden = replace(last, data=(envelope[:at], envelope[at:]), metadata=tuple(metadata))
        assert hidden.hash == last.hash
        assert hidden.data_is_whole
        report = verify_blocks([*blocks[:-1], hidden], CHAINCODE, genesis=blocks[0].hash.hex()).report
        assert "data" in {one.code for one in report.findings}

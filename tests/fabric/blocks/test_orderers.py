"""Who ordered a block, shown on a real channel: Raft's one orderer, and BFT's quorum of four."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from tokenmesh.fabric.blocks import Block, read_blocks, read_envelope
from tokenmesh.fabric.blocks.block import SIGNATURES
from tokenmesh.fabric.blocks.channel import Configuration, first_configuration, new_configuration
from tokenmesh.fabric.blocks.orderers import ordering_problem
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.blocks.validation import Validator
from tokenmesh.fabric.gateway import Network as Channel
from tokenmesh.fabric.gateway import connect_profile
from tokenmesh.fabric.network import Network


def with_configurations(blocks: list[Block]) -> Iterator[tuple[Block, Configuration, int]]:
    """Each block after the first, the configuration before it, and the last configuration block's number."""
    configuration, last = first_configuration(blocks[0]), 0
    for block in blocks[1:]:
        envelope = read_envelope(block.data[0])
        yield block, configuration, block.number if envelope.is_config else last
        if envelope.is_config:
            configuration, last = new_configuration(envelope), block.number


def test_every_block_was_ordered_by_the_orderer(channel: Channel) -> None:
    """Raft: the orderer's signature holds on every block after the first, by its organisation's authority."""
    blocks = list(read_blocks(channel))
    problems = [ordering_problem(*one) for one in with_configurations(blocks)]
    assert len(problems) >= 3
    assert set(problems) == {""}


def test_a_header_that_was_changed_is_not_ordered(channel: Channel) -> None:
    """The signature is over number, previous hash and data hash: any of them changed, it does not hold."""
    blocks = list(read_blocks(channel))
    block, configuration, last = list(with_configurations(blocks))[-1]
    for changed in (
        replace(block, number=block.number + 1),
        replace(block, previous_hash=bytes(32)),
        replace(block, data_hash=bytes(32)),
    ):
        assert "0 of 1 signatures" in ordering_problem(changed, configuration, last)


def test_a_signature_that_is_missing_or_no_signature(channel: Channel) -> None:
    """No signature, damaged metadata, and another's last configuration are all named."""
    blocks = list(read_blocks(channel))
    block, configuration, last = list(with_configurations(blocks))[-1]
    without = replace(block, metadata=(b"", *block.metadata[1:]))
    assert "0 of 0 signatures" in ordering_problem(without, configuration, last)
    damaged = replace(block, metadata=(b"\xff\xff", *block.metadata[1:]))
    assert "cannot be read" in ordering_problem(damaged, configuration, last)
    assert "last configuration" in ordering_problem(block, configuration, last + 1)


def set_batch_timeout(timeout: str, group: Any) -> None:
    value = orderer_pb2.BatchTimeout(timeout=timeout).SerializeToString()
    group.groups["Orderer"].values["BatchTimeout"].value = value


@contextmanager
def bft(home: Path) -> Iterator[Channel]:
    network = Network(home, orderers=4, consensus="bft")
    network.up()
    for timeout in ("90ms", "80ms"):
        network.update_channel("mesh", partial(set_batch_timeout, timeout))
    with connect_profile(network.profile) as gateway:
        yield gateway.get_network("mesh")


def test_bft_blocks_have_a_quorum(home: Path, tmp_path: Path) -> None:
    """BFT: three of four orderers sign, known by their numbers; two of them are no quorum."""
    with bft(home) as channel:
        blocks = list(read_blocks(channel))
    ordered = list(with_configurations(blocks))
    assert ordered
    assert {ordering_problem(*one) for one in ordered} == {""}
    with closing(ChannelState(tmp_path / "state.db", lambda namespace: True)) as state:
        validator = Validator(state, blocks[0].hash)
        assert all(one.is_valid for each in blocks for one in validator.take(each))
        assert validator.new_problems() == []
    block, configuration, last = ordered[-1]
    assert configuration.is_bft
    metadata = common_pb2.Metadata.FromString(block.metadata_at(SIGNATURES))
    assert len(metadata.signatures) >= 3
    del metadata.signatures[2:]
    fewer = replace(block, metadata=(metadata.SerializeToString(), *block.metadata[1:]))
    assert "2 of 2 signatures" in ordering_problem(fewer, configuration, last)
    metadata.signatures.append(metadata.signatures[0])
    doubled = replace(block, metadata=(metadata.SerializeToString(), *block.metadata[1:]))
    assert "2 of 3 signatures" in ordering_problem(doubled, configuration, last)

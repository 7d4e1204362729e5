"""A channel's blocks, decided anew: what peers found valid is valid, and what is tampered with is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from tokenmesh.fabric.blocks import Block, Envelope, read_blocks, read_envelope, read_transaction
from tokenmesh.fabric.blocks.block import TRANSACTIONS_FILTER, data_hash
from tokenmesh.fabric.blocks.codes import code_name
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.blocks.validation import Judged, Problem, Validator
from tokenmesh.fabric.errors import BlockError, CommitError
from tokenmesh.fabric.gateway import NO_RETRY, Contract
from tokenmesh.fabric.network import Network

from .conftest import BOTH, GOVERNANCE, Served, with_chaincode


def everything(network: Network, contract: Contract) -> None:
    """One of everything that Fabric's validation looks at, and of most ways to fail it."""
    do = contract.submit_transaction
    do("work", "plain")
    do("work", "plain")
    do("delete", "plain-1")
    do("put_many", "row", "250", "10")
    do("ranged", "row00010", "row00020")
    do("ranged", "row", "rox")  # long enough to be kept as a tree of hashes
    do("first_of_range", "row00100", "rox")
    do("paged", "row", "rox", "7", "")
    do("emit", "news", "of today")
    for collection in ("shared", "brief", "own"):
        contract.submit("put_private", [collection, "secret"], transient_data={"value": b"1"})
    do("private_hash", "shared", "secret")
    do("put", "a-block", "1")
    do("put", "another-block", "1")
    do("private_hash", "brief", "secret")  # gone by now
    do("del_private", "shared", "secret")
    contract.submit("put_private", ["shared", "secret"], transient_data={"value": b"2"})
    do("purge_private", "shared", "secret")
    do("set_policy", "guarded", "GovernanceMSP")
    contract.submit("put", ["guarded", "by one"], endorsing_organizations=["GovernanceMSP"])
    do("set_private_policy", "shared", "watched", "ServicesMSP")
    network.update_channel("mesh", partial(set_batch_timeout, "300ms"))
    failing(contract)
    network.update_channel("mesh", partial(set_batch_timeout, "50ms"))
    do("work", "plain")


def redefined(served: Served, contract: Contract) -> None:
    """Another policy from some block on; and a chaincode that writes by way of another, by that one's too."""
    one = {"endorsing_organizations": ["GovernanceMSP"], "retry": NO_RETRY}
    contract.submit_transaction("work", "plain")
    served.define("blocks", GOVERNANCE)
    contract.submit("work", ["plain"], **one)
    served.define("other", BOTH)
    contract.submit("call", ["other", "", "put", "by-call", "1"], retry=NO_RETRY)
    with pytest.raises(CommitError, match="ENDORSEMENT_POLICY_FAILURE"):
        contract.submit("call", ["other", "", "put", "by-call", "1"], **one)


def failing(contract: Contract) -> None:
    """Transactions that are ordered, some of them in one block, and then found invalid."""
    submit = partial(contract.submit, retry=NO_RETRY)
    with pytest.raises(CommitError, match="ENDORSEMENT_POLICY_FAILURE"):
        submit("put", ["plain-0", "by one"], endorsing_organizations=["GovernanceMSP"])
    with pytest.raises(CommitError, match="ENDORSEMENT_POLICY_FAILURE"):
        submit("put", ["guarded", "by the other"], endorsing_organizations=["ServicesMSP"])
    together = [
        contract.new_proposal(*one).endorse()
        for one in (
            ("work", ["hot"]),
            ("work", ["hot"]),
            ("ranged", ["row", "rox"]),
            ("ranged", ["row00010", "row00020"]),
            ("put", ["row00015-and-a-half", "new"]),
            ("ranged", ["row", "rox"]),
            ("ranged", ["row00010", "row00020"]),
            ("set_policy", ["guarded", "GovernanceMSP", "ServicesMSP"]),
            ("put", ["guarded", "too late"]),
        )
    ]
    for one in [transaction.submit() for transaction in together]:
        one.get_status()


def set_batch_timeout(timeout: str, group: Any) -> None:
    value = orderer_pb2.BatchTimeout(timeout=timeout).SerializeToString()
    group.groups["Orderer"].values["BatchTimeout"].value = value


@pytest.fixture(scope="module")
def blocks(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Block]]:
    network = Network(tmp_path_factory.mktemp("everything"))
    try:
        network.up()
        with with_chaincode(network) as served:
            channel = served.gateway.get_network("mesh")
            everything(network, channel.get_contract("blocks"))
            redefined(served, channel.get_contract("blocks"))
            yield list(read_blocks(channel))
    finally:
        network.clean()


def judge(
    path: Path, blocks: list[Block], genesis: bytes | None = None
) -> tuple[list[Judged], list[Problem]]:
    with closing(ChannelState(path / "state.db", lambda namespace: True)) as state:
        validator = Validator(state, genesis)
        judged = [one for block in blocks for one in validator.take(block)]
        return judged, validator.new_problems()


def test_every_code_is_found_anew(tmp_path: Path, blocks: list[Block]) -> None:
    """The peers' validation codes, one by one, without looking at them; and nothing else to find."""
    judged, problems = judge(tmp_path, blocks)
    assert problems == []
    expected = [code for block in blocks[1:] for code in block.codes]
    why = [(one.version, code_name(code), one.why) for one, code in zip(judged, expected, strict=True)]
    assert [one.code for one in judged] == expected, why
    found = {code_name(one.code) for one in judged}
    assert found == {"VALID", "ENDORSEMENT_POLICY_FAILURE", "MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"}


def test_the_first_block_is_the_one_that_is_trusted(tmp_path: Path, blocks: list[Block]) -> None:
    """Its hash decides; any other beginning ends the verification at once."""
    judge(tmp_path, blocks[:1], blocks[0].hash)
    (tmp_path / "state.db").unlink()
    with pytest.raises(BlockError, match="another one than the one that is trusted"):
        judge(tmp_path, blocks[:1], bytes(32))


def resealed(block: Block, data: list[bytes]) -> Block:
    """The block with other transactions, and a header that names them: what an orderer's key can't undo."""
    return replace(block, data=tuple(data), data_hash=data_hash(data))


def tampered(blocks: list[Block], at: int, block: Block) -> list[Block]:
    return [*blocks[:at], block, *blocks[at + 1 :]]


def last_with(blocks: list[Block], transactions: int) -> int:
    """The place of the last block with so many transactions or more."""
    return max(place for place, block in enumerate(blocks) if len(block.data) >= transactions)


def codes(problems: list[Problem], block: int) -> set[str]:
    return {one.code for one in problems if one.block == block}


def test_a_changed_transaction(tmp_path: Path, blocks: list[Block]) -> None:
    """In its place, the header does not name it; with a new header, orderers and chain do not."""
    at = last_with(blocks, 2)
    changed = [*blocks[at].data]
    changed[0] = changed[0].replace(b"work", b"play")
    assert codes(judge(tmp_path, tampered(blocks, at, replace(blocks[at], data=tuple(changed))))[1], at) == {
        "data",
        "flag",
    }
    (tmp_path / "state.db").unlink()
    _, problems = judge(tmp_path, tampered(blocks, at, resealed(blocks[at], changed)))
    assert codes(problems, at) == {"orderer", "flag"}
    assert "chain" in codes(problems, at + 1)
    flagged = next(one for one in problems if one.code == "flag")
    assert flagged.tx_id == read_envelope(blocks[at].data[0]).tx_id
    assert "BAD_CREATOR_SIGNATURE" in flagged.text


@pytest.mark.parametrize("how", ["removed", "swapped"])
def test_a_transaction_that_is_removed_or_moved(tmp_path: Path, blocks: list[Block], how: str) -> None:
    """The header does not name what is left, or its order."""
    at = last_with(blocks, 2)
    first, second, *rest = blocks[at].data
    data = (second, *rest) if how == "removed" else (second, first, *rest)
    _, problems = judge(tmp_path, tampered(blocks, at, replace(blocks[at], data=data)))
    assert "data" in codes(problems, at)


def test_a_block_that_is_missing(tmp_path: Path, blocks: list[Block]) -> None:
    """The one after it does not follow from the one before it."""
    at = last_with(blocks, 2)
    _, problems = judge(tmp_path, [*blocks[:at], *blocks[at + 1 :]])
    assert any(one.code == "chain" and f"where block {at} belongs" in one.text for one in problems)


def test_flipped_flags(tmp_path: Path, blocks: list[Block]) -> None:
    """A peer that says of a transaction that it is valid, or is not, against what it deserves."""
    at = last_with(blocks, 2)
    block = blocks[at]
    flipped = bytes(11 if code == 0 else 0 for code in block.codes)
    metadata = [*block.metadata]
    metadata[TRANSACTIONS_FILTER] = flipped
    _, problems = judge(tmp_path, tampered(blocks, at, replace(block, metadata=tuple(metadata))))
    assert [one.tx_id for one in problems] == [read_envelope(octets).tx_id for octets in block.data]
    assert {one.code for one in problems} == {"flag"}


def envelope_of(blocks: list[Block], function: bytes) -> Envelope:
    envelopes = (read_envelope(octets) for block in blocks for octets in block.data)
    return next(
        one for one in envelopes if one.is_transaction and read_transaction(one).arguments[:1] == (function,)
    )


def test_a_forged_endorsement_is_no_endorsement(tmp_path: Path, blocks: list[Block]) -> None:
    """One organisation's signature in place of the other's: the policy of both does not hold."""
    place = next(
        (at, index)
        for at, block in enumerate(blocks)
        for index, octets in enumerate(block.data)
        if read_envelope(octets).tx_id == envelope_of(blocks, b"emit").tx_id
    )
    at, index = place
    signature = read_transaction(envelope_of(blocks, b"emit")).endorsements[0].signature
    forged = signature[:-4] + bytes(4)
    data = [*blocks[at].data]
    data[index] = data[index].replace(signature, forged)
    _, problems = judge(tmp_path, tampered(blocks, at, replace(blocks[at], data=tuple(data))))
    flagged = [one for one in problems if one.code == "flag" and one.block == at]
    # The creator has signed the endorsements too, so the forgery shows there first.
    assert [one.tx_id for one in flagged] == [envelope_of(blocks, b"emit").tx_id]
    assert "BAD_CREATOR_SIGNATURE" in flagged[0].text
    assert sha256(b"".join(data)).digest() != blocks[at].data_hash

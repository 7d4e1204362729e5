"""Members and configurations of a real channel: who was revoked, and what administrators have to sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from tokenmesh.fabric.blocks import Block, Envelope, read_blocks, read_creator, read_envelope
from tokenmesh.fabric.blocks.channel import Configuration, first_configuration, new_configuration
from tokenmesh.fabric.blocks.updates import update_problem
from tokenmesh.fabric.errors import BlockError
from tokenmesh.fabric.gateway import connect_profile, read_identity
from tokenmesh.fabric.network import Network


class Changes(NamedTuple):
    """A channel that was configured a few times, and somebody whose certificate was revoked on the way."""

    blocks: list[Block]
    alice: bytes

    @property
    def configurations(self) -> list[Envelope]:
        envelopes = [read_envelope(block.data[0]) for block in self.blocks]
        return [one for one in envelopes if one.is_config]


@pytest.fixture(scope="module")
def changes(fabric_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changes]:
    network = Network(tmp_path_factory.mktemp("changes"))
    try:
        network.up()
        network.update_channel("mesh", partial(set_batch_timeout, "90ms"))
        network.identity("services", "alice")
        files = network.profile.client("services", "alice")
        alice = read_identity(files.msp_id, files.certificate).serialized
        network.revoke("services", "alice")
        with connect_profile(network.profile) as gateway:
            yield Changes(list(read_blocks(gateway.get_network("mesh"))), alice)
    finally:
        network.clean()


def set_batch_timeout(timeout: str, group: Any) -> None:
    value = orderer_pb2.BatchTimeout(timeout=timeout).SerializeToString()
    group.groups["Orderer"].values["BatchTimeout"].value = value


def test_a_revoked_certificate_counts_from_its_configuration_on(changes: Changes) -> None:
    """Good by the first configuration, revoked by the last; nobody else is touched by it."""
    first, *_, last = (new_configuration(one) for one in changes.configurations)
    assert first.members.member(changes.alice).problem == ""
    assert last.members.member(changes.alice).problem == "its certificate is revoked"
    creator = changes.configurations[-1].creator
    assert last.members.member(creator).problem == ""
    assert read_creator(creator).msp_id == last.members.member(creator).msp_id


def test_a_stranger_is_no_member(changes: Changes) -> None:
    """Another organisation's certificate under this one's name, or an organisation that isn't there."""
    configuration = first_configuration(changes.blocks[0])
    creator = read_creator(changes.alice)
    renamed = changes.alice.replace(b"ServicesMSP", b"GovernanceMSP"[: len(b"ServicesMSP")])
    with pytest.raises(BlockError, match="no organisation"):
        configuration.members.member(renamed)
    assert creator.msp_id == "ServicesMSP"
    governance = new_configuration(changes.configurations[0]).members.msps["GovernanceMSP"]
    member = configuration.members.member(changes.alice)
    assert "none of GovernanceMSP's authorities" in governance.problem_of(
        member, governance.chain_of(member.certificate)
    )


def test_updates_that_were_agreed_on_follow(changes: Changes) -> None:
    """Each configuration follows from the one before, by what its administrators signed."""
    configurations = changes.configurations
    assert len(configurations) >= 3
    for before, envelope in pairwise(configurations):
        assert update_problem(new_configuration(before), envelope) == ""


def edited(envelope: Envelope, edit: Callable[[Any, Any, Any], None]) -> Envelope:
    """The configuration with something else in it: ``edit(config, signed update, update)``."""
    message = configtx_pb2.ConfigEnvelope.FromString(envelope.data)
    payload = common_pb2.Payload.FromString(message.last_update.payload)
    signed = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data)
    update = configtx_pb2.ConfigUpdate.FromString(signed.config_update)
    before = update.SerializeToString()
    edit(message.config, signed, update)
    if update.SerializeToString() != before:
        signed.config_update = update.SerializeToString()
    payload.data = signed.SerializeToString()
    message.last_update.payload = payload.SerializeToString()
    return replace(envelope, data=message.SerializeToString())


def timeout_of(config: Any) -> Any:
    return config.channel_group.groups["Orderer"].values["BatchTimeout"]


def another_result(config: Any, signed: Any, update: Any) -> None:
    timeout_of(config).value = orderer_pb2.BatchTimeout(timeout="1s").SerializeToString()


def another_update(config: Any, signed: Any, update: Any) -> None:
    value = orderer_pb2.BatchTimeout(timeout="1s").SerializeToString()
    timeout_of(config).value = value
    update.write_set.groups["Orderer"].values["BatchTimeout"].value = value


def fewer_signatures(config: Any, signed: Any, update: Any) -> None:
    del signed.signatures[:]


def another_sequence(config: Any, signed: Any, update: Any) -> None:
    config.sequence += 1


def another_version(config: Any, signed: Any, update: Any) -> None:
    update.write_set.groups["Orderer"].values["BatchTimeout"].version += 1


def another_channel(config: Any, signed: Any, update: Any) -> None:
    update.channel_id = "other"


def nothing_changed(config: Any, signed: Any, update: Any) -> None:
    update.write_set.CopyFrom(update.read_set)


def read_otherwise(config: Any, signed: Any, update: Any) -> None:
    update.read_set.groups["Orderer"].version += 7


def no_update(config: Any, signed: Any, update: Any) -> None:
    signed.config_update = b"\xff\xff"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (another_result, "it is not what the signed update makes"),
        (another_update, "may not change /Channel/Orderer/BatchTimeout"),
        (fewer_signatures, "may not change /Channel/Orderer/BatchTimeout"),
        (another_sequence, "its sequence is"),
        (another_version, "the version"),
        (another_channel, "is for channel 'other'"),
        (nothing_changed, "changes nothing"),
        (read_otherwise, "in another version"),
        (no_update, "cannot be read"),
    ],
)
def test_what_was_not_agreed_on_is_found(
    changes: Changes, edit: Callable[[Any, Any, Any], None], problem: str
) -> None:
    before, envelope = changes.configurations[:2]
    configuration: Configuration = new_configuration(before)
    assert problem in update_problem(configuration, edited(envelope, edit))

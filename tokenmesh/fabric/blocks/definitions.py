"""Which chaincodes are defined on a channel, and what their definitions ask of transactions.

Definitions lie in the state of the chaincode ``_lifecycle``, so they follow from the blocks as all else does:
what a definition says counts from the block after the one that committed it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import collection_pb2, policy_pb2
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.channel import Configuration
from tokenmesh.fabric.blocks.msp import MEMBER, ROLE
from tokenmesh.fabric.blocks.state import ChannelState
from tokenmesh.fabric.errors import BlockError

LIFECYCLE = "_lifecycle"
LIFECYCLE_POLICY = "/Channel/Application/LifecycleEndorsement"
IMPLICIT = "_implicit_org_"
BUILTIN = "vscc"
DEFINITION = "ChaincodeDefinition"


class Definition(NamedTuple):
    """What counts for a chaincode's transactions; ``policy`` is an ``ApplicationPolicy`` in its bytes.

    ``collections`` maps each collection's name to its own policy (b"": the chaincode's) and to how many
    blocks its data are kept (0: for ever).
    """

    plugin: str
    policy: bytes
    collections: dict[str, tuple[bytes, int]]
    sequence: int


class Definitions:
    """The definitions by the state and the configuration before a block."""

    def __init__(self, state: ChannelState, configuration: Configuration) -> None:
        self._state = state
        self._configuration = configuration
        self._found: dict[str, Definition | None] = {}

    def get(self, chaincode: str) -> Definition | None:
        """A chaincode's definition; None if there is none. Raises :class:`BlockError`."""
        if chaincode not in self._found:
            self._found[chaincode] = self._read(chaincode)
        return self._found[chaincode]

    def collection_policy(self, chaincode: str, collection: str) -> bytes | None:
        """The policy for writes to a collection (b"": none of its own); None if there is no such one."""
        if collection.startswith(IMPLICIT):
            return self._implicit(collection.removeprefix(IMPLICIT))
        definition = self.get(chaincode)
        if definition is None or collection not in definition.collections:
            return None
        return definition.collections[collection][0] or definition.policy

    def lifetime(self, chaincode: str, collection: str) -> int:
        """For how many blocks the data of a collection are kept; 0: for ever."""
        definition = self.get(chaincode)
        return 0 if definition is None else definition.collections.get(collection, (b"", 0))[1]

    def _read(self, chaincode: str) -> Definition | None:
        if chaincode == LIFECYCLE:
            return Definition(BUILTIN, self._lifecycle_policy(), {}, 0)
        metadata = self._state.value(LIFECYCLE, f"namespaces/metadata/{chaincode}".encode())
        if metadata is None:
            return None
        try:
            if db_pb2.StateMetadata.FromString(metadata).datatype != DEFINITION:
                return None
            validation = self._field(
                chaincode, "ValidationInfo", chaincode_definition_pb2.ChaincodeValidationInfo()
            )
            collections = self._field(chaincode, "Collections", collection_pb2.CollectionConfigPackage())
            sequence = self._value(chaincode, "Sequence").Int64
        except DecodeError as error:
            raise BlockError(f"the definition of chaincode {chaincode} cannot be read: {error}") from error
        return Definition(
            str(validation.validation_plugin),
            bytes(validation.validation_parameter),
            {
                str(one.name): (
                    one.endorsement_policy.SerializeToString() if one.HasField("endorsement_policy") else b"",
                    int(one.block_to_live),
                )
                for one in (config.static_collection_config for config in collections.config)
            },
            int(sequence),
        )

    def _value(self, chaincode: str, field: str) -> Any:
        octets = self._state.value(LIFECYCLE, f"namespaces/fields/{chaincode}/{field}".encode())
        return db_pb2.StateData.FromString(octets or b"")

    def _field(self, chaincode: str, field: str, into: Any) -> Any:
        into.ParseFromString(self._value(chaincode, field).Bytes)
        return into

    def _lifecycle_policy(self) -> bytes:
        if self._configuration.policies.has(LIFECYCLE_POLICY):
            return _reference(LIFECYCLE_POLICY)
        organisations = sorted(self._configuration.application_organisations)
        return _members(organisations, len(organisations) // 2 + 1)

    def _implicit(self, msp_id: str) -> bytes | None:
        name = self._configuration.application_organisations.get(msp_id)
        if name is None:
            return None
        path = f"/Channel/Application/{name}/Endorsement"
        return _reference(path) if self._configuration.policies.has(path) else _members([msp_id], 1)


def _reference(path: str) -> bytes:
    return bytes(policy_pb2.ApplicationPolicy(channel_config_policy_reference=path).SerializeToString())


def _members(msp_ids: list[str], needed: int) -> bytes:
    """So many of these organisations, any member for each."""
    envelope = policies_pb2.SignaturePolicyEnvelope()
    for place, msp_id in enumerate(msp_ids):
        role = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=MEMBER)
        envelope.identities.add(principal_classification=ROLE, principal=role.SerializeToString())
        envelope.rule.n_out_of.rules.add(signed_by=place)
    envelope.rule.n_out_of.n = needed
    return bytes(policy_pb2.ApplicationPolicy(signature_policy=envelope).SerializeToString())

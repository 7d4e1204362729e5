"""Deploying chaincode: install on peers, approve by organisations, commit on a channel; and who is how far.

What the ``peer lifecycle chaincode`` commands do, over the connection that a :class:`Gateway` has. A gateway
stands for one peer and one administrator; so an organisation installs and approves through its own, and any
one of them commits once enough have approved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from fabric_protos.peer import collection_pb2, policy_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.errors import EndorseError, GatewayError, LifecycleError
from tokenmesh.fabric.gateway import flows, messages
from tokenmesh.fabric.gateway.explain import Failure
from tokenmesh.fabric.gateway.sync import Contract, Gateway
from tokenmesh.fabric.packages import Package
from tokenmesh.fabric.policies import parse_policy

CHAINCODE = "_lifecycle"
CHANNEL_POLICY = "/Channel/Application/Endorsement"
INSTALL_TIMEOUT_S = 300.0
"""Peers that build chaincode take minutes; those that only note where it runs, milliseconds."""
PEERS_LEVEL_S = 15.0
"""How long ``deploy`` waits until all peers have the block that one of them has."""

NOT_THERE = ("is not defined", "could not fetch approved chaincode definition", "not found")
DONE_BEFORE = ("chaincode already successfully installed", "with unchanged content")


@dataclass(frozen=True)
class Collection:
    """A private data collection; its policies are written as in :mod:`tokenmesh.fabric.policies`."""

    name: str
    policy: str
    required_peer_count: int = 0
    max_peer_count: int = 1
    block_to_live: int = 0
    member_only_read: bool = True
    member_only_write: bool = True
    endorsement_policy: str | None = None


@dataclass(frozen=True)
class Definition:
    """What the organisations agree on.

    ``endorsement_policy`` is a signature policy (``"AND('A.peer', …)"``) or the path of a policy in the
    channel's configuration (``"/Channel/…"``).
    """

    name: str
    version: str = "1"
    sequence: int = 1
    endorsement_policy: str = CHANNEL_POLICY
    collections: Sequence[Collection] = ()
    init_required: bool = False

    def fields(self) -> dict[str, Any]:
        """The fields that approving, committing and asking have in common."""
        return {
            "name": self.name,
            "version": self.version,
            "sequence": self.sequence,
            "endorsement_plugin": "escc",
            "validation_plugin": "vscc",
            "validation_parameter": _policy(self.endorsement_policy).SerializeToString(),
            "collections": _collections(self.collections),
            "init_required": self.init_required,
        }


class Installed(NamedTuple):
    """A package on a peer, and by which channels' chaincodes it is used."""

    package_id: str
    label: str
    references: Mapping[str, list[str]]


@dataclass(frozen=True)
class Committed:
    """A definition on a channel. ``approvals`` by MSP id, where it was asked for by name."""

    name: str
    version: str
    sequence: int
    validation_parameter: bytes
    collections: bytes
    init_required: bool
    approvals: Mapping[str, bool] = field(default_factory=dict)


class Approved(NamedTuple):
    """What this organisation has approved; ``package_id`` is None if it approved without a package."""

    name: str
    version: str
    sequence: int
    package_id: str | None


class Lifecycle:
    """Installs, approves, commits and asks, as the administrator of one organisation at one peer."""

    def __init__(self, gateway: Gateway) -> None:
        self._session = gateway._session  # the same package in all but name
        self.msp_id = gateway.identity.msp_id

    def install(self, package: Package) -> str:
        """Put a package on this peer; its id. Doing it again is fine."""
        arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package.content)
        try:
            answer = self._ask_peer("InstallChaincode", arguments, INSTALL_TIMEOUT_S)
        except GatewayError as error:
            if DONE_BEFORE[0] not in str(error):
                raise
            return package.package_id
        return str(_read(lifecycle_pb2.InstallChaincodeResult, answer).package_id)

    def query_installed(self) -> list[Installed]:
        """The packages on this peer."""
        answer = self._ask_peer("QueryInstalledChaincodes", lifecycle_pb2.QueryInstalledChaincodesArgs())
        found = _read(lifecycle_pb2.QueryInstalledChaincodesResult, answer).installed_chaincodes
        return [
            Installed(
                one.package_id,
                one.label,
                {channel: [cc.name for cc in used.chaincodes] for channel, used in one.references.items()},
            )
            for one in found
        ]

    def get_installed_package(self, package_id: str) -> bytes:
        """A package's bytes, from this peer."""
        arguments = lifecycle_pb2.GetInstalledChaincodePackageArgs(package_id=package_id)
        answer = self._ask_peer("GetInstalledChaincodePackage", arguments)
        result = _read(lifecycle_pb2.GetInstalledChaincodePackageResult, answer)
        return bytes(result.chaincode_install_package)

    def approve(self, channel: str, definition: Definition, package_id: str | None = None) -> None:
        """Approve a definition for this organisation, and say which package its peers are to run.

        Doing it again is fine. Each organisation may have a package of its own.
        """
        source = (
            lifecycle_pb2.ChaincodeSource(unavailable=lifecycle_pb2.ChaincodeSource.Unavailable())
            if package_id is None
            else lifecycle_pb2.ChaincodeSource(
                local_package=lifecycle_pb2.ChaincodeSource.Local(package_id=package_id)
            )
        )
        arguments = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**definition.fields(), source=source)
        try:
            self._contract(channel).submit(
                "ApproveChaincodeDefinitionForMyOrg",
                (arguments.SerializeToString(),),
                endorsing_organizations=(self.msp_id,),
            )
        except EndorseError as error:
            if DONE_BEFORE[1] not in str(error):
                raise

    def check_commit_readiness(self, channel: str, definition: Definition) -> dict[str, bool]:
        """Which organisations have approved this very definition, by MSP id."""
        arguments = lifecycle_pb2.CheckCommitReadinessArgs(**definition.fields())
        answer = self._ask_channel(channel, "CheckCommitReadiness", arguments)
        return dict(_read(lifecycle_pb2.CheckCommitReadinessResult, answer).approvals)

    def commit(
        self, channel: str, definition: Definition, *, endorsing_organizations: Sequence[str] = ()
    ) -> None:
        """Put a definition in force that enough organisations have approved."""
        arguments = lifecycle_pb2.CommitChaincodeDefinitionArgs(**definition.fields())
        self._contract(channel).submit(
            "CommitChaincodeDefinition",
            (arguments.SerializeToString(),),
            endorsing_organizations=endorsing_organizations,
        )

    def query_committed(self, channel: str, name: str) -> Committed | None:
        """The definition of a chaincode that is in force on a channel; None if there is none."""
        arguments = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=name)
        try:
            answer = self._ask_channel(channel, "QueryChaincodeDefinition", arguments)
        except GatewayError as error:
            if not any(mark in str(error) for mark in NOT_THERE):
                raise
            return None
        return _committed(name, _read(lifecycle_pb2.QueryChaincodeDefinitionResult, answer))

    def query_all_committed(self, channel: str) -> list[Committed]:
        """All definitions that are in force on a channel."""
        answer = self._ask_channel(
            channel, "QueryChaincodeDefinitions", lifecycle_pb2.QueryChaincodeDefinitionsArgs()
        )
        found = _read(lifecycle_pb2.QueryChaincodeDefinitionsResult, answer).chaincode_definitions
        return [_committed(one.name, one) for one in found]

    def query_approved(self, channel: str, name: str, sequence: int | None = None) -> Approved | None:
        """What this organisation has approved, last or at a sequence; None if nothing."""
        arguments = lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name=name, sequence=sequence or 0)
        try:
            answer = self._ask_channel(channel, "QueryApprovedChaincodeDefinition", arguments)
        except GatewayError as error:
            if not any(mark in str(error) for mark in NOT_THERE):
                raise
            return None
        found = _read(lifecycle_pb2.QueryApprovedChaincodeDefinitionResult, answer)
        return Approved(name, found.version, found.sequence, found.source.local_package.package_id or None)

    def _contract(self, channel: str) -> Contract:
        return Contract(self._session, channel, CHAINCODE, None)

    def _ask_channel(self, channel: str, function: str, arguments: Any) -> bytes:
        return self._contract(channel).evaluate(
            function, (arguments.SerializeToString(),), endorsing_organizations=(self.msp_id,)
        )

    def _ask_peer(self, function: str, arguments: Any, timeout_s: float = 15.0) -> bytes:
        return self._session.drive(self._peer_flow(function, arguments.SerializeToString(), timeout_s))

    def _peer_flow(self, function: str, arguments: bytes, timeout_s: float) -> flows.Flow[bytes]:
        """What concerns one peer and no channel goes to its endorser service, not to its gateway."""
        caller = self._session.caller
        draft = flows.Invocation("", CHAINCODE, (function, arguments)).draft(caller)
        signature = yield from caller.sign(draft.proposal, "connect(signer=)")
        request = messages.signed_proposal(draft.proposal, signature)
        try:
            raw = yield flows.Call(flows.PROCESS_PROPOSAL, request, timeout_s)
        except flows.CallFailed as error:
            raise caller.error(GatewayError, function, error.failure, draft.transaction_id) from error
        response = _read(proposal_response_pb2.ProposalResponse, raw).response
        if response.status >= 400:
            failure = Failure("ABORTED", f"{response.status}: {response.message}", ())
            raise caller.error(GatewayError, function, failure, draft.transaction_id)
        return bytes(response.payload)


def _read(kind: Any, answer: bytes) -> Any:
    """A peer's answer as a message of this kind."""
    try:
        return kind.FromString(answer)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise LifecycleError(f"what the peer answered is no {name}, or not whole: {error}") from error


def deploy(
    gateways: Sequence[Gateway], channel: str, definition: Definition, packages: Sequence[Package]
) -> Definition:
    """Put a chaincode in force: install at each gateway's peer, approve by each one's organisation, commit.

    ``packages`` is one for all, or one for each gateway. If the channel has another definition of that name,
    the new one gets the next sequence; if it has this very one, only packages that are missing are installed.
    Returns the definition with the sequence it got.
    """
    if len(packages) not in (1, len(gateways)):
        raise LifecycleError(
            f"{len(packages)} packages for {len(gateways)} gateways: give one, or one for each"
        )
    desks = [Lifecycle(gateway) for gateway in gateways]
    ids = [desk.install(packages[at % len(packages)]) for at, desk in enumerate(desks)]
    current = desks[0].query_committed(channel, definition.name)
    wanted = definition if current is None else replace(definition, sequence=current.sequence)
    if current is not None and not _same(wanted, current):
        wanted = replace(definition, sequence=current.sequence + 1)
    for desk, package_id in zip(desks, ids, strict=True):
        approved = desk.query_approved(channel, wanted.name, wanted.sequence)
        if (
            approved is None
            or approved.package_id != package_id
            or current is None
            or not _same(wanted, current)
        ):
            desk.approve(channel, wanted, package_id)
    if current is None or not _same(wanted, current):
        msps = {desk.msp_id for desk in desks}

        def approved_by_all() -> bool:
            ready = desks[0].check_commit_readiness(channel, wanted)
            return all(ready.get(msp) for msp in msps)

        if not _comes_true(approved_by_all):
            raise LifecycleError(
                f"not all of {', '.join(msps)} have approved this definition of {wanted.name}"
            )
        desks[0].commit(channel, wanted)
    for desk in desks:
        if not _comes_true(partial(_in_force, desk, channel, wanted)):
            raise LifecycleError(f"{wanted.name} is committed, but the peer of {desk.msp_id} has not seen it")
    return wanted


def _in_force(desk: Lifecycle, channel: str, definition: Definition) -> bool:
    found = desk.query_committed(channel, definition.name)
    return found is not None and found.sequence >= definition.sequence


def _comes_true(holds: Callable[[], bool]) -> bool:
    """Peers learn of a block one after the other: what one has committed another may know a moment later."""
    deadline = time.monotonic() + PEERS_LEVEL_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _same(definition: Definition, committed: Committed) -> bool:
    fields = definition.fields()
    return bool(
        fields["version"] == committed.version
        and fields["sequence"] == committed.sequence
        and fields["validation_parameter"] == committed.validation_parameter
        and fields["collections"].SerializeToString() == committed.collections
        and fields["init_required"] == committed.init_required
    )


def _committed(name: str, found: Any) -> Committed:
    return Committed(
        name,
        found.version,
        found.sequence,
        found.validation_parameter,
        found.collections.SerializeToString(),
        found.init_required,
        dict(getattr(found, "approvals", {})),
    )


def _policy(text: str) -> policy_pb2.ApplicationPolicy:
    if text.startswith("/"):
        return policy_pb2.ApplicationPolicy(channel_config_policy_reference=text)
    return policy_pb2.ApplicationPolicy(signature_policy=parse_policy(text))


def _collections(collections: Sequence[Collection]) -> collection_pb2.CollectionConfigPackage:
    return collection_pb2.CollectionConfigPackage(
        config=[
            collection_pb2.CollectionConfig(static_collection_config=_collection(collection))
            for collection in collections
        ]
    )


def _collection(collection: Collection) -> collection_pb2.StaticCollectionConfig:
    return collection_pb2.StaticCollectionConfig(
        name=collection.name,
        member_orgs_policy=collection_pb2.CollectionPolicyConfig(
            signature_policy=parse_policy(collection.policy)
        ),
        required_peer_count=collection.required_peer_count,
        maximum_peer_count=collection.max_peer_count,
        block_to_live=collection.block_to_live,
        member_only_read=collection.member_only_read,
        member_only_write=collection.member_only_write,
        endorsement_policy=_policy(collection.endorsement_policy) if collection.endorsement_policy else None,
    )

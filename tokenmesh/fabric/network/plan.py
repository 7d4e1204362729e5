"""What a local network consists of: organisations, nodes, ports. Decided once, kept in ``network.json``.

Addresses stand in the channels' configuration and in certificates, so they are the same at every ``up``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.files import write_private
from tokenmesh.fabric.lifecycle import CHANNEL_POLICY, Collection, Definition

HOST = "127.0.0.1"
"""The one interface that nodes listen on: a local network is reachable from this machine only."""
ORGANISATION_NAMES = ("governance", "services", "observers")
ORGANISATIONS_MAX = 8
ORDERERS_MAX = 10
PEERS_MAX = 4
CHANNELS_MAX = 16
CHAINCODES_MAX = 16
CHANNEL_NAME = re.compile(r"[a-z][a-z0-9.-]{0,63}")
ORGANISATION_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
CHAINCODE_NAME = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")
CHAINCODE_NAME_LENGTH_MAX = 64
CONSENSUS = ("raft", "bft")
BFT_ORDERERS_MIN = 4
"""Fewer can't bear one that lies: 3 f + 1 for f of them."""
BATCH_TIMEOUT_MS_MAX = 60_000
FOLLOWING = ".next"
VERSION = 1

PORTS = {
    "ca": ("listen", "operations"),
    "orderer": ("listen", "admin", "operations"),
    "peer": ("listen", "chaincode_listen", "operations", "chaincode"),
    "chaincode": ("listen", "spare"),
}
"""The ports of each kind of node. A peer's ``chaincode`` is kept free for one that is started by hand; at a
service's ``spare`` its next version will listen.
"""
NOT_ITS_OWN = ("chaincode", "spare")

Kind = Literal["ca", "orderer", "peer", "chaincode"]


@dataclass(frozen=True)
class Spec:
    """What is asked for. The organisations run the ordering service together: orderers are dealt out in turn.

    ``peer_settings`` and ``orderer_settings`` go over everything else in every ``core.yaml`` and
    ``orderer.yaml``, by their dotted names: ``{"peer.limits.concurrency.gatewayService": 50}``.
    """

    organisations: tuple[str, ...] = ORGANISATION_NAMES[:2]
    orderers: int = 1
    consensus: Literal["raft", "bft"] = "raft"
    channels: tuple[str, ...] = ("mesh",)
    peers: int = 1
    mutual_tls: bool = True
    batch_timeout_ms: int = 100
    batch_messages: int = 500
    batch_bytes: int = 512 * 2**10  # what alone is larger goes out at once, and waits for no company
    base_port: int | None = None
    peer_settings: dict[str, Any] = field(default_factory=dict)
    orderer_settings: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise :class:`NetworkError` at the first thing that cannot be."""
        names = self.organisations
        _demand(1 <= len(names) <= ORGANISATIONS_MAX, f"a network has 1 to {ORGANISATIONS_MAX} organisations")
        _demand(len(set(names)) == len(names), "two organisations have the same name")
        for name in names:
            _demand(
                ORGANISATION_NAME.fullmatch(name),
                f"{name!r} is no organisation's name: a-z, 0-9 and -, at most 31",
            )
        _demand(1 <= self.peers <= PEERS_MAX, f"an organisation has 1 to {PEERS_MAX} peers")
        _demand(1 <= len(self.channels) <= CHANNELS_MAX, f"a network has 1 to {CHANNELS_MAX} channels")
        _demand(len(set(self.channels)) == len(self.channels), "two channels have the same name")
        for name in self.channels:
            _demand(
                CHANNEL_NAME.fullmatch(name), f"{name!r} is no channel's name: a-z, 0-9, . and -, at most 64"
            )
        _demand(self.consensus in CONSENSUS, f"orderers agree by raft and bft, not {self.consensus}")
        _demand(1 <= self.orderers <= ORDERERS_MAX, f"a network has 1 to {ORDERERS_MAX} orderers")
        _demand(
            self.consensus != "bft" or self.orderers >= BFT_ORDERERS_MIN,
            f"BFT needs {BFT_ORDERERS_MIN} orderers or more (3 f + 1 bear f that fail or lie): --orderers 4",
        )
        _demand(
            1 <= self.batch_timeout_ms <= BATCH_TIMEOUT_MS_MAX,
            f"the batch timeout is 1 to {BATCH_TIMEOUT_MS_MAX} milliseconds",
        )


@dataclass(frozen=True)
class Node:
    """One process: ``peer0.services``, ``orderer0.services``, ``ca.services``, ``chaincode.kv.services``."""

    name: str
    kind: Kind
    organisation: str
    ports: dict[str, int]

    @property
    def port(self) -> int:
        return self.ports["listen"]

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def listens(self) -> list[int]:
        """The ports on which the node itself listens."""
        return [port for use, port in self.ports.items() if use not in NOT_ITS_OWN]


@dataclass(frozen=True)
class Chaincode:
    """A chaincode that the network runs: what the organisations agree on, and a service for each of them.

    ``following`` marks a version on its way: it runs beside the one before it until it is in force.
    """

    name: str
    command: tuple[str, ...]
    channels: tuple[str, ...]
    version: str = "1"
    endorsement_policy: str = CHANNEL_POLICY
    collections: tuple[Collection, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    following: bool = False
    services: tuple[Node, ...] = ()

    @classmethod
    def load(cls, kept: dict[str, Any]) -> Self:
        collections = tuple(Collection(**one) for one in kept["collections"])
        services = tuple(Node(**one) for one in kept["services"])
        lists = {name: tuple(kept[name]) for name in ("command", "channels")}
        return cls(**{**kept, **lists, "collections": collections, "services": services})

    @property
    def definition(self) -> Definition:
        return Definition(
            self.name,
            self.version,
            endorsement_policy=self.endorsement_policy,
            collections=self.collections,
        )

    @property
    def label(self) -> str:
        """The label of its packages."""
        return f"{self.name}_{self.version}"

    def follower(self, after: Self) -> Self:
        """``after`` as the next version, at the spare ports of this one, which goes on beside it."""
        services = tuple(
            replace(
                one,
                name=one.name + FOLLOWING,
                ports={"listen": one.ports["spare"], "spare": one.ports["listen"]},
            )
            for one in self.services
        )
        return replace(after, following=True, services=services)

    def leader(self) -> Self:
        """What a follower becomes once it is in force."""
        services = tuple(replace(one, name=one.name.removesuffix(FOLLOWING)) for one in self.services)
        return replace(self, following=False, services=services)

    def check(self, spec: Spec) -> None:
        """Raise :class:`NetworkError` at the first thing that cannot be."""
        _demand(
            CHAINCODE_NAME.fullmatch(self.name) and len(self.name) <= CHAINCODE_NAME_LENGTH_MAX,
            f"{self.name!r} is no chaincode's name: letters and digits, single - and _ between them, "
            f"at most {CHAINCODE_NAME_LENGTH_MAX}",
        )
        _demand(self.command, f"chaincode {self.name} has no command that serves it")
        _demand(self.channels, f"chaincode {self.name} is for no channel")
        for channel in self.channels:
            _demand(
                channel in spec.channels,
                f"there is no channel {channel}; the network has {', '.join(spec.channels)}",
            )


@dataclass(frozen=True)
class Plan:
    """A network as it was decided: the spec, every node with its ports, and the chaincodes it runs."""

    spec: Spec
    nodes: tuple[Node, ...] = field(default=())
    chaincodes: tuple[Chaincode, ...] = ()

    @classmethod
    def make(cls, spec: Spec, ports: Sequence[int]) -> Self:
        """Deal out ``ports`` (as many as :func:`ports_needed`) to the nodes of ``spec``."""
        left = iter(ports)
        return cls(
            spec,
            tuple(
                Node(name, kind, organisation, {use: next(left) for use in PORTS[kind]})
                for name, kind, organisation in _nodes(spec)
            ),
        )

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The plan kept in ``path``; None if there is none."""
        try:
            kept = json.loads(path.read_text())
            if kept["version"] != VERSION:
                raise NetworkError(
                    f"{path} is of another version of tokenmesh; `tokenmesh fabric clean`, then `up`"
                )
            wanted = kept["spec"]
            lists = {name: tuple(wanted[name]) for name in ("organisations", "channels")}
            return cls(
                Spec(**{**wanted, **lists}),
                tuple(Node(**node) for node in kept["nodes"]),
                tuple(Chaincode.load(one) for one in kept.get("chaincodes", ())),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise NetworkError(
                f"{path} is damaged ({error}); `tokenmesh fabric clean`, then `up`, begins again"
            ) from error

    def save(self, path: Path) -> None:
        content: dict[str, Any] = {"version": VERSION, **dataclasses.asdict(self)}
        write_private(path, json.dumps(content, indent=2))

    @property
    def everything(self) -> tuple[Node, ...]:
        """The nodes, and behind them the services of the chaincodes."""
        return (*self.nodes, *(service for one in self.chaincodes for service in one.services))

    def of(self, kind: Kind, organisation: str | None = None) -> list[Node]:
        """The nodes of a kind, of one organisation or of all."""
        return [
            node
            for node in self.everything
            if node.kind == kind and organisation in (None, node.organisation)
        ]

    def node(self, name: str) -> Node:
        for node in self.everything:
            if node.name == name:
                return node
        raise NetworkError(
            f"there is no node {name}; there are {', '.join(node.name for node in self.everything)}"
        )

    def chaincode(self, name: str, *, following: bool = False) -> Chaincode | None:
        """A chaincode by its name: the version in force, or the one on its way; None if there is none."""
        for one in self.chaincodes:
            if one.name == name and one.following == following:
                return one
        return None

    def in_force(self, name: str) -> Chaincode:
        """A chaincode that is deployed, as it is before a version that may be on its way."""
        found = self.chaincode(name)
        if found is None:
            raise NetworkError(f"chaincode {name} is not deployed yet: `Network.deploy` does that")
        return found

    def served(self, service: Node) -> Chaincode:
        """The chaincode that a service is for."""
        return next(one for one in self.chaincodes if service in one.services)

    def with_chaincode(self, chaincode: Chaincode) -> Self:
        """The same with ``chaincode``, in the place of what it has under that name."""
        plan = self.without_chaincode(chaincode.name, following=chaincode.following)
        _demand(
            len(plan.chaincodes) < CHAINCODES_MAX,
            f"a network runs {CHAINCODES_MAX} chaincodes at most; `Network.undeploy` ends one",
        )
        return replace(plan, chaincodes=(*plan.chaincodes, chaincode))

    def without_chaincode(self, name: str, *, following: bool) -> Self:
        kept = tuple(one for one in self.chaincodes if (one.name, one.following) != (name, following))
        return replace(self, chaincodes=kept)


def msp_id(organisation: str) -> str:
    """``governance`` → ``GovernanceMSP``."""
    return "".join(part.capitalize() for part in organisation.split("-")) + "MSP"


def organisation_names(count: int) -> tuple[str, ...]:
    """The names that organisations get if only their number is given."""
    named = ORGANISATION_NAMES[:count]
    return named + tuple(f"org{number}" for number in range(len(named) + 1, count + 1))


def service_name(chaincode: str, organisation: str) -> str:
    return f"chaincode.{chaincode}.{organisation}"


def ports_needed(spec: Spec) -> int:
    return sum(len(PORTS[kind]) for _, kind, _ in _nodes(spec))


def _nodes(spec: Spec) -> Iterator[tuple[str, Kind, str]]:
    for organisation in spec.organisations:
        yield f"ca.{organisation}", "ca", organisation
    for number in range(spec.orderers):
        organisation = spec.organisations[number % len(spec.organisations)]
        yield f"orderer{number}.{organisation}", "orderer", organisation
    for organisation in spec.organisations:
        for number in range(spec.peers):
            yield f"peer{number}.{organisation}", "peer", organisation


def _demand(holds: object, otherwise: str) -> None:
    if not holds:
        raise NetworkError(otherwise)

"""A ledger on a real Fabric network, for tests: ``make_fabric_domain(rules, tmp_path, {"service-a": 100})``.

The rules run as chaincode in the test's own process, endorsed by every organisation of the network, so a test
can hold their clock. Each domain is a chaincode definition of its own, of one package; that takes half a
second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self

import yaml
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2

from support.ledgers import GOVERNANCE, SUPPLY, Domain
from support.wallets import Wallets
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.lifecycle import Collection, Definition, Lifecycle, deploy
from tokenmesh.fabric.network import Network
from tokenmesh.fabric.packages import package_service
from tokenmesh.fabric.profile import Profile
from tokenmesh.ledger.fabric import FabricLedger
from tokenmesh_chaincode.contract import TokenmeshContract
from tokenmesh_chaincode.contract.batch import COLLECTION
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.rules import default_policy
from tokenmesh_chaincode.shim import Options, Server, Stub

CHANNEL = "mesh"
_numbers = count(1)


class Rules:
    """The rules as chaincode of a network, served by this process. Close it, or use it with ``with``."""

    def __init__(self, network: Network, channel: str = CHANNEL) -> None:
        self.network = network
        self.channel = channel
        self.profile: Profile = network.profile
        self._contracts: dict[str, TokenmeshContract] = {}
        self._server = Server(self._run, Options())
        self._package = package_service("rules", self._server.listen())
        self._server.start(self._package.package_id)
        for organisation in self.profile.organisations.values():
            for peer in organisation.peers:
                with connect_profile(self.profile, organisation.name, peer=peer) as gateway:
                    Lifecycle(gateway).install(self._package)

    def define(
        self,
        clock: Callable[[], float] = time.time,
        *,
        contract: type[TokenmeshContract] = TokenmeshContract,
        **definition: Any,
    ) -> str:
        """Have all organisations agree on a new definition; its name. Its endorsers have this clock."""
        name = f"rules-{next(_numbers)}"
        self._contracts[name] = contract(clock)
        peers = ", ".join(f"'{one.msp_id}.peer'" for one in self.profile.organisations.values())
        with ExitStack() as stack:
            gateways = [
                stack.enter_context(connect_profile(self.profile, organisation))
                for organisation in self.profile.organisations
            ]
            members = ", ".join(f"'{one.msp_id}.member'" for one in self.profile.organisations.values())
            usual = {
                "endorsement_policy": f"AND({peers})",
                "collections": [Collection(COLLECTION, f"OR({members})")],
            }
            given = Definition(name, **{**usual, **definition})
            deploy(gateways, self.channel, given, [self._package])
        return name

    def profile_of(self, chaincode: str) -> Path:
        """The network's profile, with that chaincode on the channel, in a file beside it."""
        content = yaml.safe_load(self.profile.path.read_text())
        content["channels"][self.channel]["chaincode"] = chaincode
        path = self.profile.path.with_name(f"{chaincode}.yaml")
        path.write_text(yaml.safe_dump(content))
        return path

    def connect(self) -> Gateway:
        """A gateway as the profile's own client, an administrator of governance."""
        return connect_profile(self.profile)

    def close(self) -> None:
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, stub: Stub) -> bytes:
        return self._contracts[_definition_of(stub)](stub)


def _definition_of(stub: Stub) -> str:
    """The name by which a chaincode was called; one package serves all definitions."""
    proposal = proposal_pb2.Proposal.FromString(stub.signed_proposal.proposal_bytes)
    channel = common_pb2.ChannelHeader.FromString(
        common_pb2.Header.FromString(proposal.header).channel_header
    )
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(channel.extension)
    return str(extension.chaincode_id.name)


def make_fabric_domain(
    rules: Rules,
    directory: Path,
    tokens: Mapping[str, int] | None = None,
    *,
    clock: Callable[[], float] = time.time,
    policy: Mapping[str, Any] | None = None,
    supply: int = SUPPLY,
    contract: type[TokenmeshContract] = TokenmeshContract,
    **options: Any,
) -> Domain:
    """A ledger on Fabric with ``governance`` and the wallets in ``tokens``, as ``make_ledger`` makes one.

    ``clock`` is that of its transactions and its endorsers; the peers of the fixture ``timeless`` take any.
    Close ``.ledger`` when done; others at the same domain open a :class:`FabricLedger` with its ``.channel``
    and ``.chaincode``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wallets = Wallets(directory, clock)
    governance = wallets.new(GOVERNANCE, "governor")
    ledger = FabricLedger.create(
        rules.connect(),
        rules.channel,
        rules.define(clock, contract=contract),
        ca=[wallets.authority.certificate_pem],
        governors={GOVERNANCE: governance.certificate_pem},
        policy={**default_policy(), **(policy or {})},
        nonce=new_id(),
        clock=clock,
        **options,
    )
    domain = Domain(ledger, wallets, clock)
    if supply:
        domain.do(GOVERNANCE, "mint", {"tokens": supply})
    for name, amount in ({"service-a": 1_000, "service-b": 0} if tokens is None else tokens).items():
        domain.open_wallet(name, amount)
    return domain

"""Putting chaincode on channels: its services started, its definition agreed on by all organisations.

Each step does what isn't done yet, so that what broke off is finished by doing it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from tokenmesh.fabric import lifecycle
from tokenmesh.fabric.files import private_folder
from tokenmesh.fabric.gateway import Gateway, connect_profile
from tokenmesh.fabric.network import ports, processes
from tokenmesh.fabric.network.bringup import Bringup, each
from tokenmesh.fabric.network.chaincodes import give_keys, service_package
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.organisations import ADMIN
from tokenmesh.fabric.network.peers import PeerAdmin
from tokenmesh.fabric.network.plan import FOLLOWING, PORTS, Chaincode, Node, Plan, ports_needed, service_name
from tokenmesh.fabric.network.tools import Tools
from tokenmesh.fabric.packages import Package
from tokenmesh.fabric.profile import load_profile

KNOWN_S = 30.0
"""How long peers may take to tell each other which chaincode they have."""


class Deployment:
    """The chaincodes of a network that is up."""

    def __init__(self, layout: Layout, plan: Plan, tools: Tools, environ: Mapping[str, str]) -> None:
        self._layout = layout
        self._plan = plan
        self._tools = tools
        self._environ = environ

    def put(self, chaincode: Chaincode) -> None:
        """Serve a chaincode, and agree on it.

        One that is served already keeps its services and their ports; they are started anew if they are to
        be told something else.
        """
        before = self._plan.chaincode(chaincode.name)
        chaincode = replace(chaincode, services=before.services if before else self._services(chaincode.name))
        self._keep(self._plan.with_chaincode(chaincode))
        if before is not None and (before.command, before.environ) != (chaincode.command, chaincode.environ):
            self._stop(before.services)
        self._agree(chaincode)

    def replace(self, before: Chaincode, after: Chaincode) -> None:
        """Serve a new version beside the one before it, agree on it, and end the one before it."""
        follower = before.follower(after)
        self._keep(self._plan.with_chaincode(follower))
        self._overtake(before, follower)

    def take_up(self) -> None:
        """Finish what broke off: each version on its way comes into force.

        Its services and those before it are started anew: which of both a process is that an earlier try
        has left cannot be told for sure.
        """
        for follower in [one for one in self._plan.chaincodes if one.following]:
            before = self._plan.in_force(follower.name)
            self._stop([*before.services, *follower.services])
            self._start(before.services)
            self._overtake(before, follower)

    def give_up(self, name: str) -> None:
        """Forget a version that is on its way and did not come into force; what was before it goes on."""
        for follower in [one for one in self._plan.chaincodes if one.following and one.name == name]:
            before = self._plan.in_force(name)
            self._stop([*before.services, *follower.services])
            self._keep(self._plan.without_chaincode(name, following=True))
            self._start(before.services)

    def remove(self, name: str) -> None:
        """End a chaincode's services and forget them. What is on the channels stays there."""
        for one in [one for one in self._plan.chaincodes if one.name == name]:
            self._stop(one.services)
            self._keep(self._plan.without_chaincode(name, following=one.following))
            for service in one.services:
                shutil.rmtree(self._layout.node(service), ignore_errors=True)

    def _overtake(self, before: Chaincode, follower: Chaincode) -> None:
        self._agree(follower)
        self._stop(before.services)
        for one in follower.services:
            processes.rename(one.name, one.name.removesuffix(FOLLOWING), self._layout.run)
        alone = self._plan.without_chaincode(follower.name, following=True)
        self._keep(alone.with_chaincode(follower.leader()))

    def _agree(self, chaincode: Chaincode) -> None:
        """Start the services; install, approve and commit on every channel; wait until all peers know."""
        each(partial(give_keys, self._layout, self._plan), chaincode.services)
        self._start(chaincode.services)
        packages = {
            one.organisation: service_package(self._layout, chaincode, one) for one in chaincode.services
        }
        with ExitStack() as stack:
            firsts = []
            for organisation, package in packages.items():
                gateways = [stack.enter_context(one) for one in self._gateways(organisation)]
                each(partial(_install, package), gateways)
                firsts.append(gateways[0])
            agree = partial(_agree_on, firsts, chaincode.definition, list(packages.values()))
            each(agree, chaincode.channels)
        each(partial(self._await_known, chaincode), self._plan.of("peer"))

    def _gateways(self, organisation: str) -> list[Gateway]:
        """The organisation's admin at each of its peers."""
        profile = load_profile(self._layout.profile)
        return [
            connect_profile(profile, organisation, ADMIN, peer=peer.name)
            for peer in self._plan.of("peer", organisation)
        ]

    def _await_known(self, chaincode: Chaincode, peer: Node) -> None:
        with closing(PeerAdmin(self._layout, peer)) as admin:
            for channel in chaincode.channels:
                processes.wait_until(
                    partial(admin.plans, channel, chaincode.name),
                    f"seeing peers enough to endorse {chaincode.name} on {channel}",
                    name=peer.name,
                    run=self._layout.run,
                    log=self._layout.log(peer.name),
                    within_s=KNOWN_S,
                )

    def _services(self, chaincode: str) -> tuple[Node, ...]:
        """A service for each organisation, on ports that are free."""
        spec, uses = self._plan.spec, PORTS["chaincode"]
        behind = ports_needed(spec) + len(uses) * len(self._plan.of("chaincode"))
        services: list[Node] = []
        for organisation in spec.organisations:
            service = Node(service_name(chaincode, organisation), "chaincode", organisation, {})
            folder = private_folder(self._layout.node(service))
            # Behind the network's own, where it was said from which port on.
            base = None if spec.base_port is None else spec.base_port + behind + len(uses) * len(services)
            numbers = ports.take_ports(folder, len(uses), base=base, environ=self._environ)
            services.append(replace(service, ports=dict(zip(uses, numbers, strict=True))))
        return tuple(services)

    def _start(self, services: Sequence[Node]) -> None:
        Bringup(self._layout, self._plan, self._tools, self._environ).start(services)

    def _stop(self, services: Sequence[Node]) -> None:
        processes.stop([service.name for service in services], self._layout.run)

    def _keep(self, plan: Plan) -> None:
        plan.save(self._layout.plan)
        self._plan = plan


def _install(package: Package, gateway: Gateway) -> None:
    lifecycle.Lifecycle(gateway).install(package)


def _agree_on(
    gateways: Sequence[Gateway],
    definition: lifecycle.Definition,
    packages: Sequence[Package],
    channel: str,
) -> None:
    lifecycle.deploy(gateways, channel, definition, packages)

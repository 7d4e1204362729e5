"""What ``up`` does, step by step: each step does what isn't done yet, so it may be repeated."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar

from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.network import organisations, ports, processes
from tokenmesh.fabric.network.channels import write_first_block
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.nodes import command, environment, write_builders, write_node
from tokenmesh.fabric.network.orderers import OrdererAdmin
from tokenmesh.fabric.network.peers import PeerAdmin
from tokenmesh.fabric.network.plan import HOST, Node, Plan, msp_id
from tokenmesh.fabric.network.tools import Tools

START_S = 60.0
"""How long a node may take to answer after its start. On a quiet machine it is under a second."""
WORKERS = 8

Item = TypeVar("Item")


class Bringup:
    """Brings the nodes of one planned network to where they answer, and its channels to where they work."""

    def __init__(self, layout: Layout, plan: Plan, tools: Tools, environ: Mapping[str, str]) -> None:
        self._layout = layout
        self._plan = plan
        self._tools = tools
        self._environ = environ

    def found(self) -> None:
        """The first time: each organisation's certificate authority, and from it all identities."""
        write_builders(self._layout)
        each(self._found, self._plan.of("ca"))

    def make_channels(self) -> None:
        """The first block of each channel."""
        make = partial(write_first_block, self._layout, self._plan, tools=self._tools)
        each(make, self._plan.spec.channels)

    def start(self, nodes: Sequence[Node]) -> None:
        """Start these nodes, unless they run, and wait until all of them answer."""
        for node in nodes:
            self._launch(node)
        each(self._await_answer, nodes)

    def join(self) -> None:
        """Channels are joined by the orderers first, all at once: BFT works when most have joined."""
        each(self._join, self._plan.of("orderer"))
        each(self._join, self._plan.of("peer"))

    def await_work(self) -> None:
        """Wait until each channel has a leader among the orderers, and each peer sees every organisation."""
        each(self._await_members, self._plan.of("peer"))
        for channel in self._plan.spec.channels:
            self._await_leader(channel)

    def _found(self, node: Node) -> None:
        secret = organisations.write_ca(self._layout, node)
        self._launch(node)
        self._await_answer(node)
        organisations.found(self._layout, self._plan, node, secret)
        organisations.close_ca(self._layout, node)
        processes.stop([node.name], self._layout.run)
        self._launch(node)
        self._await_answer(node)

    def _launch(self, node: Node) -> None:
        if processes.running(node.name, self._layout.run) is not None:
            return
        taken = ports.in_use(node.listens)
        if taken:
            raise NetworkError(
                f"{node.name} cannot start: something else listens on {HOST}:{taken[0]}; stop that "
                f"(`ss -ltnp sport = :{taken[0]}` names it), or make the network anew on other ports"
            )
        if node.kind in ("orderer", "peer"):
            write_node(self._layout, self._plan, node, self._tools)
        log = self._layout.log(node.name)
        log.parent.mkdir(exist_ok=True)
        processes.start(
            node.name,
            command(self._layout, self._plan, node, self._tools),
            environ=environment(self._layout, self._plan, node, self._environ),
            folder=self._layout.node(node),
            log=log,
            run=self._layout.run,
        )

    def _join(self, node: Node) -> None:
        orders = node.kind == "orderer"
        admin = OrdererAdmin(self._layout, node) if orders else PeerAdmin(self._layout, node)
        with closing(admin):
            joined = admin.channels()
            for channel in self._plan.spec.channels:
                if channel not in joined:
                    admin.join(self._layout.block(channel).read_bytes())

    def _await_answer(self, node: Node) -> None:
        with self._answering(node) as answers:
            self._await(node, answers, "answering")

    def _await_members(self, node: Node) -> None:
        everyone = {msp_id(name) for name in self._plan.spec.organisations}
        with closing(PeerAdmin(self._layout, node)) as peer:
            for channel in self._plan.spec.channels:
                sees_all = partial(_sees, peer, channel, everyone)
                self._await(node, sees_all, f"seeing every organisation on {channel}")

    def _await_leader(self, channel: str) -> None:
        orderers = self._plan.of("orderer")
        found = partial(leader, self._layout, self._plan, channel)
        self._await(orderers[0], lambda: found() is not None, f"with a leader on {channel}")

    def _await(self, node: Node, ready: Callable[[], bool], what: str) -> None:
        log = self._layout.log(node.name)
        processes.wait_until(ready, what, name=node.name, run=self._layout.run, log=log, within_s=START_S)

    @contextmanager
    def _answering(self, node: Node) -> Iterator[Callable[[], bool]]:
        """What tells whether a node is ready for work, and not merely listens."""
        if node.kind in ("ca", "chaincode"):
            yield lambda: listens(node.port)
        elif node.kind == "orderer":
            with closing(OrdererAdmin(self._layout, node)) as orderer:
                yield lambda: listens(node.ports["admin"]) and orderer.answers()
        else:
            with closing(PeerAdmin(self._layout, node)) as peer:
                yield lambda: listens(node.port) and peer.answers()


def leader(layout: Layout, plan: Plan, channel: str) -> str | None:
    """The orderer that leads a channel, by what the orderers say of themselves; None if none does now."""
    for node in plan.of("orderer"):
        if processes.running(node.name, layout.run) is not None:
            with closing(OrdererAdmin(layout, node)) as orderer:
                if channel in orderer.leads():
                    return node.name
    return None


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def each(work: Callable[[Item], None], over: Iterable[Item]) -> None:
    """Do ``work`` for each, all at once; when all have ended, raise the first error."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="fabric-network") as pool:
        done: list[Future[None]] = [pool.submit(work, one) for one in over]
    for one in done:
        one.result()


def _sees(peer: PeerAdmin, channel: str, everyone: set[str]) -> bool:
    return peer.members(channel) >= everyone

"""How a network's nodes are now, by looking at processes and ports: so it is true after any crash."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokenmesh.fabric.network import processes
from tokenmesh.fabric.network.bringup import listens
from tokenmesh.fabric.network.layout import Layout
from tokenmesh.fabric.network.plan import Node


class NodeStatus(NamedTuple):
    """One node: ``running``, ``silent`` (runs, but its port does not answer), ``crashed`` or ``stopped``."""

    name: str
    kind: str
    organisation: str
    state: str
    address: str
    pid: int | None
    memory_bytes: int
    log: Path


def node_status(layout: Layout, node: Node) -> NodeStatus:
    """One node as it is now."""
    process = processes.running(node.name, layout.run)
    if process is not None:
        state = "running" if listens(node.port) else "silent"
    else:
        state = "crashed" if processes.was_started(node.name, layout.run) else "stopped"
    return NodeStatus(
        node.name,
        node.kind,
        node.organisation,
        state,
        node.address,
        process.pid if process is not None else None,
        process.memory_bytes if process is not None else 0,
        layout.log(node.name),
    )

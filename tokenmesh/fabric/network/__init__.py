"""A Fabric network on this machine, without Docker: real peers, orderers and certificate authorities."""

from tokenmesh.fabric.network.network import Network
from tokenmesh.fabric.network.plan import Chaincode, Node, Plan, Spec
from tokenmesh.fabric.network.status import NodeStatus
from tokenmesh.fabric.network.tools import Tools, available, find_tools

__all__ = ["Chaincode", "Network", "Node", "NodeStatus", "Plan", "Spec", "Tools", "available", "find_tools"]

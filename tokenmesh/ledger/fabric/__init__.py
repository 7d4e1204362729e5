"""The ledger on Hyperledger Fabric: the rules run as chaincode on every peer, the history is the channel."""

from tokenmesh.ledger.fabric.ledger import FabricLedger
from tokenmesh.ledger.fabric.opening import open_fabric

__all__ = ["FabricLedger", "open_fabric"]

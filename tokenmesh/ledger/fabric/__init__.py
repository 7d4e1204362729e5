"""The ledger on Hyperledger Fabric: the rules run as chaincode on every peer, the history is the channel."""

from tokenmesh.ledger.fabric.ledger import FabricLedger

__all__ = ["FabricLedger"]

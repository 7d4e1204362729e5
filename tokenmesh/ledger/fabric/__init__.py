"""The ledger on Hyperledger Fabric: the rules run as chaincode on every peer, the history is the channel."""

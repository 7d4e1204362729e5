"""Hyperledger Fabric for Python. Stands alone: imports nothing else of tokenmesh."""

"""``python -m tokenmesh_chaincode``: the rules as a service for Fabric's peers.

Where and under which id is in the environment (``CHAINCODE_SERVER_ADDRESS``, ``CHAINCODE_ID``, TLS): see
:class:`tokenmesh_chaincode.shim.Options`. It ends in peace on SIGTERM.
"""

from __future__ import annotations

import logging

from tokenmesh_chaincode.contract import ContractError, TokenmeshContract
from tokenmesh_chaincode.shim import Chaincode, ChaincodeError, Stub, serve


def for_peers(contract: TokenmeshContract) -> Chaincode:
    """The contract as the shim calls it: what it refuses is the chaincode's answer, not a failure of it."""

    def run(stub: Stub) -> bytes:
        try:
            return contract(stub)
        except ContractError as error:
            raise ChaincodeError(str(error)) from error

    return run


def main() -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(for_peers(TokenmeshContract()))


if __name__ == "__main__":
    main()

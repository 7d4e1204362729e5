"""``python -m tokenmesh_chaincode``: the rules as a service for Fabric's peers.

Where and under which id is in the environment (``CHAINCODE_SERVER_ADDRESS``, ``CHAINCODE_ID``, TLS): see
:class:`tokenmesh_chaincode.shim.Options`. It ends in peace on SIGTERM, and with 2 if it cannot begin.
"""

from __future__ import annotations

import logging
import sys

from tokenmesh_chaincode.contract import ContractError, TokenmeshContract
from tokenmesh_chaincode.shim import Chaincode, ChaincodeError, Options, Stub, serve
from tokenmesh_chaincode.verifiers import Verifiers


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
    try:
        serve(for_peers(TokenmeshContract(verify_many=Verifiers())), options=Options.from_environment())
    except (ValueError, OSError) as error:
        print(f"the rules cannot be served: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""The rules as a service for Fabric's peers, by a clock that a run can put forward.

``python rules.py FILE``: once there is a file, it says by how many seconds. All else is as in
``python -m tokenmesh_chaincode``.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from tokenmesh_chaincode.__main__ import for_peers
from tokenmesh_chaincode.contract import TokenmeshContract
from tokenmesh_chaincode.shim import Options, serve
from tokenmesh_chaincode.verifiers import Verifiers

AHEAD = Path(sys.argv[1])


def clock() -> float:
    return time.time() + (float(AHEAD.read_text()) if AHEAD.exists() else 0.0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    contract = TokenmeshContract(clock, verify_many=Verifiers())
    serve(for_peers(contract), options=Options.from_environment())

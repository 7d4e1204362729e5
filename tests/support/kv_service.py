"""The small chaincode of ``kv_chaincode`` as a process, told how to serve as Fabric's samples are."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import grpc

from support.kv_chaincode import Service

COMMAND = [sys.executable, "-m", "support.kv_service"]
ENVIRON = {"PYTHONPATH": str(Path(__file__).parents[1])}


def main() -> None:
    """Serve by mutual TLS until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    key, certificate, peers = (
        Path(os.environ[f"CHAINCODE_{name}"]).read_bytes()
        for name in ("TLS_KEY", "TLS_CERT", "CLIENT_CA_CERT")
    )
    service = Service(
        port=int(os.environ["CHAINCODE_SERVER_ADDRESS"].rpartition(":")[2]),
        credentials=grpc.ssl_server_credentials([(key, certificate)], peers, require_client_auth=True),
    )
    service.start(os.environ["CHAINCODE_ID"])
    signal.sigwait({signal.SIGTERM})
    service.stop()


if __name__ == "__main__":
    main()

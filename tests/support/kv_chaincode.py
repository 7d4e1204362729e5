"""A small chaincode on the project's shim, for tests of clients and networks: it runs in the test's own
process (``Service``), or as a process of its own (``COMMAND`` with ``ENVIRON``)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tokenmesh_chaincode.shim import ChaincodeError, Options, Server, Stub, serve

COMMAND = [sys.executable, "-m", "support.kv_chaincode"]
ENVIRON = {"PYTHONPATH": str(Path(__file__).parents[1])}


def kv(stub: Stub) -> bytes | None:
    """The functions that the tests call."""
    arguments = [parameter.decode() for parameter in stub.parameters]
    match stub.function, *arguments:
        case "put", key, value:
            stub.put_state(key, value.encode())
            return value.encode()
        case "get", key:
            return stub.get_state(key)
        case "increment", key:
            number = b"%d" % (int(stub.get_state(key) or b"0") + 1)
            stub.put_state(key, number)
            return number
        case "emit", name, payload:
            stub.put_state(f"emitted-{name}", b"emitted")
            stub.set_event(name, payload.encode())
            return None
        case "transient", key:
            return stub.transient[key]
        case ("who",):
            return stub.identity.mspid.encode()
        case "large", size:
            return bytes(int(size))
        case ("version",):
            return os.environ.get("KV_VERSION", "").encode()
        case "sleep", seconds:
            time.sleep(float(seconds))
            return b"slept"
    raise ChaincodeError(f"no function {stub.function}")


class Service:
    """The chaincode, listening; one service for the peers of all organisations."""

    def __init__(self) -> None:
        self._address = "127.0.0.1:0"
        self._package_id = ""
        self._server: Server | None = None

    def reserve(self) -> str:
        """An address on which :meth:`start` will listen; a package has to name it before."""
        self._server = Server(kv, Options(address=self._address, stop_grace_s=0.0))
        self._address = self._server.listen()
        return self._address

    def start(self, package_id: str) -> None:
        if self._server is None:
            self.reserve()
        assert self._server is not None
        self._package_id = package_id
        self._server.start(package_id)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def restart(self) -> None:
        """Listen where it listened before :meth:`stop`."""
        self.start(self._package_id)


if __name__ == "__main__":
    serve(kv)

"""The chaincode that the Gateway clients are measured with: keys read and written, and its own CPU time.

python -m tokenmesh_benchmarks.fabric_chaincode     (as a service; the environment says where)
"""

from __future__ import annotations

import json
import time

from tokenmesh_chaincode.shim import ChaincodeError, Stub, serve

KEYS = 3
"""Keys that ``move`` reads and writes."""


class Work:
    """``put KEY VALUE``, ``get KEY``, ``move NAME`` (three reads, three writes), ``cpu``."""

    def __init__(self) -> None:
        self.transactions = 0

    def __call__(self, stub: Stub) -> bytes:
        self.transactions += 1
        arguments = [parameter.decode() for parameter in stub.parameters]
        if stub.function == "put":
            stub.put_state(arguments[0], arguments[1].encode())
            return b""
        if stub.function == "get":
            return stub.get_state(arguments[0]) or b""
        if stub.function == "move":
            keys = [f"{arguments[0]}-{number}" for number in range(KEYS)]
            for key, value in zip(keys, stub.get_states(keys), strict=True):
                stub.put_state(key, b"%d" % (int(value or b"0") + 1))
            return b""
        if stub.function == "cpu":
            return json.dumps({"cpu_s": time.process_time(), "transactions": self.transactions}).encode()
        raise ChaincodeError(f"no function {stub.function}")


if __name__ == "__main__":
    serve(Work())

"""A small chaincode that runs as a service in the test's own process, for tests of clients.

It keeps to what Fabric's protocol demands and no more; the project's real shim is in tokenmesh_chaincode.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, chaincode_shim_pb2, proposal_pb2
from fabric_protos.peer import proposal_response_pb2 as responses

Message = chaincode_shim_pb2.ChaincodeMessage
METHOD = "protos.Chaincode"
OPTIONS = [
    ("grpc.max_receive_message_length", 100 * 2**20),
    ("grpc.max_send_message_length", 100 * 2**20),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class Stub:
    """What one invocation may do."""

    def __init__(self, stream: Stream, message: Any) -> None:
        self._stream = stream
        self._message = message
        self.answers: queue.Queue[Any] = queue.Queue()
        self.event: Any = None

    def get(self, key: str) -> bytes:
        return self._ask(Message.GET_STATE, chaincode_shim_pb2.GetState(key=key))

    def put(self, key: str, value: bytes) -> None:
        self._ask(Message.PUT_STATE, chaincode_shim_pb2.PutState(key=key, value=value))

    def emit(self, name: str, payload: bytes) -> None:
        self.event = chaincode_event_pb2.ChaincodeEvent(
            event_name=name, payload=payload, tx_id=self._message.txid
        )

    @property
    def creator(self) -> Any:
        header = common_pb2.Header.FromString(self._proposal.header)
        signature = common_pb2.SignatureHeader.FromString(header.signature_header)
        return identities_pb2.SerializedIdentity.FromString(signature.creator)

    @property
    def transient(self) -> dict[str, bytes]:
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(self._proposal.payload)
        return dict(payload.TransientMap)

    @property
    def _proposal(self) -> Any:
        return proposal_pb2.Proposal.FromString(self._message.proposal.proposal_bytes)

    def _ask(self, kind: int, payload: Any) -> bytes:
        self._stream.send(self._message, kind, payload.SerializeToString())
        answer = self.answers.get(timeout=30)
        if answer.type == Message.ERROR:
            raise RuntimeError(answer.payload.decode())
        return bytes(answer.payload)


class Stream:
    """One peer's connection."""

    def __init__(self, package_id: str, run: Callable[[Stub, list[bytes]], bytes]) -> None:
        self._out: queue.Queue[Any] = queue.Queue()
        self._package_id = package_id
        self._run = run
        self._stubs: dict[str, Stub] = {}

    def serve(self, incoming: Iterator[Any], pool: ThreadPoolExecutor) -> Iterator[Any]:
        name = chaincode_pb2.ChaincodeID(name=self._package_id)
        yield Message(type=Message.REGISTER, payload=name.SerializeToString())
        threading.Thread(target=self._read, args=(incoming, pool), daemon=True).start()
        while (message := self._out.get()) is not None:
            yield message

    def send(self, about: Any, kind: int, payload: bytes, event: Any = None) -> None:
        self._out.put(
            Message(
                type=kind,
                payload=payload,
                txid=about.txid,
                channel_id=about.channel_id,
                chaincode_event=event,
            )
        )

    def _read(self, incoming: Iterator[Any], pool: ThreadPoolExecutor) -> None:
        try:
            for message in incoming:
                if message.type in (Message.TRANSACTION, Message.INIT):
                    stub = self._stubs[message.channel_id + message.txid] = Stub(self, message)
                    pool.submit(self._invoke, stub, message)
                elif message.type in (Message.RESPONSE, Message.ERROR):
                    self._stubs[message.channel_id + message.txid].answers.put(message)
                elif message.type == Message.KEEPALIVE:
                    self._out.put(Message(type=Message.KEEPALIVE))
        except grpc.RpcError:
            pass  # the peer has hung up, which is how a stream of this kind ends
        finally:
            self._out.put(None)

    def _invoke(self, stub: Stub, message: Any) -> None:
        arguments = list(chaincode_pb2.ChaincodeInput.FromString(message.payload).args)
        try:
            answer = responses.Response(status=200, payload=self._run(stub, arguments))
        except Exception as error:
            answer = responses.Response(status=500, message=str(error))
        del self._stubs[message.channel_id + message.txid]
        self.send(message, Message.COMPLETED, answer.SerializeToString(), stub.event)


def kv(stub: Stub, arguments: list[bytes]) -> bytes:
    """The functions that the tests call."""
    name, *args = [argument.decode() for argument in arguments]
    if name == "put":
        stub.put(args[0], args[1].encode())
        return args[1].encode()
    if name == "get":
        return stub.get(args[0])
    if name == "increment":
        value = str(int(stub.get(args[0]) or b"0") + 1).encode()
        stub.put(args[0], value)
        return value
    if name == "emit":
        stub.put(f"emitted-{args[0]}", args[1].encode())
        stub.emit(args[0], args[1].encode())
        return b""
    if name == "transient":
        return stub.transient[args[0]]
    if name == "who":
        return str(stub.creator.mspid).encode()
    if name == "large":
        return bytes(int(args[0]))
    if name == "version":
        return os.environ.get("KV_VERSION", "").encode()
    if name == "sleep":
        time.sleep(float(args[0]))
        return b"slept"
    raise ValueError(f"no function {name}")


class Service:
    """The chaincode, listening; one service for the peers of all organisations."""

    def __init__(
        self,
        run: Callable[[Stub, list[bytes]], bytes] = kv,
        threads: int = 64,
        *,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._run = run
        self._threads = threads
        self._server: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._credentials = credentials
        self.port = port
        self._package_id = ""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reserve(self) -> str:
        """An address on which :meth:`start` will listen; a package has to name it before."""
        self._make()
        return self.address

    def restart(self) -> None:
        """Listen where it listened before :meth:`stop`."""
        self.start(self._package_id)

    def start(self, package_id: str) -> None:
        if self._server is None:
            self._make()
        self._package_id = package_id
        handler = grpc.stream_stream_rpc_method_handler(
            lambda incoming, context: Stream(package_id, self._run).serve(incoming, self._pool),
            request_deserializer=Message.FromString,
            response_serializer=Message.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(METHOD, {"Connect": handler}),)
        )
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=0).wait()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._server = None

    def _make(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads)
        self._server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)

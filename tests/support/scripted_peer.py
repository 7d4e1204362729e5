"""A peer as a chaincode server meets it, on gRPC's own client: says what a test tells it to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_response_pb2

Message: Any = chaincode_shim_pb2.ChaincodeMessage
METHOD = "/protos.Chaincode/Connect"
LARGE = 200 * 2**20
ABLE = chaincode_pb2.ChaincodeAdditionalParams(
    use_write_batch=True,
    max_size_write_batch=1000,
    use_get_multiple_keys=True,
    max_size_get_multiple_keys=1000,
)


class ScriptedPeer:
    """One stream. What it is asked comes by :meth:`asked`, in order; nothing is answered by itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._out: SimpleQueue[Any] = SimpleQueue()
        stream: Any = channel.stream_stream(
            METHOD,
            request_serializer=Message.SerializeToString,
            response_deserializer=Message.FromString,
        )
        self.call = stream(iter(self._out.get, None), timeout=60)

    def asked(self) -> Any:
        return next(self.call)

    def say(self, kind: int, payload: bytes = b"", tx_id: str = "", channel: str = "") -> None:
        self._out.put(Message(type=kind, payload=payload, txid=tx_id, channel_id=channel))

    def hang_up(self) -> None:
        self._out.put(None)

    def welcome(self, offered: Any = ABLE) -> None:
        """Take the registration and say what this peer can do; None: nothing, as Fabric 2.5."""
        assert self.asked().type == Message.REGISTER
        self.say(Message.REGISTERED)
        self.say(Message.READY, offered.SerializeToString() if offered is not None else b"")

    def invoke(self, tx_id: str, *args: str | bytes, channel: str = "mesh") -> None:
        given = [argument.encode() if isinstance(argument, str) else argument for argument in args]
        spoken = chaincode_pb2.ChaincodeInput(args=given).SerializeToString()
        self.say(Message.TRANSACTION, spoken, tx_id, channel)

    def answer(self, about: Any, payload: bytes = b"", kind: int = Message.RESPONSE) -> None:
        self.say(kind, payload, about.txid, about.channel_id)

    def completed(self) -> Any:
        """The response that ends an invocation."""
        message = self.asked()
        assert message.type == Message.COMPLETED, message
        return proposal_response_pb2.Response.FromString(message.payload)


@contextmanager
def scripted_peer(
    address: str, credentials: grpc.ChannelCredentials | None = None, **options: int
) -> Iterator[ScriptedPeer]:
    """Connected to a chaincode server; ``options`` are gRPC's, with ``_`` for ``.`` after ``grpc``."""
    sizes = [("grpc.max_receive_message_length", LARGE), ("grpc.max_send_message_length", LARGE)]
    settings = [*sizes, *((f"grpc.{name}", value) for name, value in options.items())]
    made = (
        grpc.secure_channel(address, credentials, options=settings)
        if credentials
        else grpc.insecure_channel(address, options=settings)
    )
    with made as channel:
        peer = ScriptedPeer(channel)
        yield peer
        peer.hang_up()

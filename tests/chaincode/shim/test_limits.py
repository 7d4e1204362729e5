"""What a server does past its limits: one connection or stream suffers, and nobody else."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from fabric_protos.peer import chaincode_pb2

from support.scripted_peer import METHOD, Message, scripted_peer
from support.shim_chaincode import chaincode
from tokenmesh_chaincode.shim import Options, Server, frames, http2, wire
from tokenmesh_chaincode.shim import server as serving
from tokenmesh_chaincode.shim.frames import PREFACE, WINDOW_MAX, Code, Kind, Setting

REQUEST = [(":method", "POST"), (":path", METHOD), ("content-type", "application/grpc")]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(chaincode, Options("label:hash"))
    server.start()
    yield server
    server.stop()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_one_stream_more_than_a_connection_may_have_is_refused(server: Server) -> None:
    """The others stay: they were told to register."""
    opened = b"".join(frames.headers(2 * number + 1, REQUEST) for number in range(http2.STREAMS_MAX + 1))
    answer = b""
    with connect(server) as client:
        client.sendall(PREFACE + frames.settings({}) + opened)
        client.shutdown(socket.SHUT_WR)
        while more := client.recv(65_536):
            answer += more
    found, _ = frames.split(answer)
    refused = [
        (frame.stream, frames.number(frame.payload)) for frame in found if frame.kind == Kind.RST_STREAM
    ]
    assert refused == [(2 * http2.STREAMS_MAX + 1, Code.REFUSED_STREAM)]
    assert len([frame for frame in found if frame.kind == Kind.DATA]) == http2.STREAMS_MAX


def test_one_connection_more_than_may_be_is_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one still works."""
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 1)
    with scripted_peer(server.address) as peer:
        peer.welcome()
        with connect(server) as second:
            assert second.recv(1) == b""
        peer.invoke("tx", "length", "four")
        assert peer.completed().payload == b"4"


def test_who_connects_and_says_nothing_is_hung_up_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_S_MAX", 0.05)
    with connect(server) as silent:
        assert silent.recv(1) == b""


def test_a_peer_that_asks_and_never_reads_is_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it may grow so far and no farther; other peers go on."""
    monkeypatch.setattr(wire, "BACKLOG_BYTES_MAX", 2**20)
    ended = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "does not read" in record.getMessage():
                ended.set()

    listener = Listener()
    logging.getLogger("tokenmesh.chaincode").addHandler(listener)
    asked = chaincode_pb2.ChaincodeInput(args=[b"large", b"%d" % (20 * 2**20)]).SerializeToString()
    message = Message(type=Message.TRANSACTION, txid="tx", channel_id="mesh", payload=asked)
    with connect(server) as greedy:
        greedy.sendall(
            PREFACE
            + frames.settings({Setting.INITIAL_WINDOW_SIZE: WINDOW_MAX})
            + frames.window_update(0, 2**30)
            + frames.headers(1, REQUEST)
            + frames.frame(Kind.DATA, 0, 1, frames.prefixed(message.SerializeToString()))
        )
        assert ended.wait(30)
    logging.getLogger("tokenmesh.chaincode").removeHandler(listener)
    with scripted_peer(server.address) as peer:
        peer.welcome()
        peer.invoke("tx", "length", "four")
        assert peer.completed().payload == b"4"

"""The transport, against gRPC's own client and against bytes that no client would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.authority import Authority
from support.scripted_peer import ScriptedPeer, scripted_peer
from support.shim_chaincode import chaincode
from tokenmesh_chaincode.shim import Options, Server, http2
from tokenmesh_chaincode.shim.frames import FRAME_BYTES_MAX, PREFACE, Code, Flag, Kind, frame, split

MEBIBYTE = 2**20


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(chaincode, Options("label:hash", message_bytes_max=30 * MEBIBYTE))
    server.start()
    yield server
    server.stop()


def length_of(peer: ScriptedPeer, size: int) -> int:
    peer.invoke("tx", "length", b"x" * size)
    return int(peer.completed().payload)


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES_MAX - 20, FRAME_BYTES_MAX, 70_000, 20 * MEBIBYTE])
def test_messages_of_any_size_go_both_ways(server: Server, size: int) -> None:
    """In one frame, on the edge of one, over the window, in a thousand frames."""
    with scripted_peer(server.address) as peer:
        peer.welcome()
        assert length_of(peer, size) == size
        peer.invoke("tx", "large", str(size))
        assert len(peer.completed().payload) == size


def test_what_a_peer_sends_may_exceed_every_window(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is widened as it is used: with one of 100 kB, ten times as much goes through."""
    monkeypatch.setattr(http2, "WINDOW", 100_000)
    monkeypatch.setattr(http2, "REPLENISH", 50_000)
    with scripted_peer(server.address) as peer:
        peer.welcome()
        for _ in range(10):
            assert length_of(peer, 99_000) == 99_000


def test_a_message_over_the_limit_ends_the_connection(server: Server) -> None:
    """Before it is read: nobody fills our memory."""
    with scripted_peer(server.address) as peer:
        peer.welcome()
        peer.invoke("tx", "length", b"x" * 31 * MEBIBYTE)
        with pytest.raises(grpc.RpcError):
            peer.completed()


def test_pings_are_answered_as_often_as_they_come(server: Server) -> None:
    """A peer's keep-alive, here every 20 ms without data, which gRPC's own servers take for an attack."""
    pings = {
        "keepalive_time_ms": 20,
        "keepalive_timeout_ms": 5_000,
        "http2.max_pings_without_data": 0,
        "keepalive_permit_without_calls": 1,
    }
    with scripted_peer(server.address, None, **pings) as peer:
        peer.welcome()
        for _ in range(5):
            with pytest.raises(grpc.FutureTimeoutError):
                peer.call.result(timeout=0.1)
        assert length_of(peer, 5) == 5


def test_other_services_and_other_protocols_are_turned_away(server: Server) -> None:
    """An unknown method is unimplemented; a browser gets a status, garbage gets hung up on."""
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    answer = bytes_after(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [found.kind for found in split(answer)[0]] == [Kind.GOAWAY]


def bytes_after(server: Server, data: bytes) -> bytes:
    """What comes back until the server hangs up."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        while more := client.recv(65_536):
            answer += more
    return answer


HEADERS = bytes([0x83, 0x86])  # :method POST, :scheme http


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (struct.pack(">BHBBL", 1, 0, Kind.DATA, 0, 1) + bytes(65_536), Code.FRAME_SIZE_ERROR),
        (frame(Kind.DATA, 0, 1, b"no such stream"), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, Flag.END_HEADERS, 2, HEADERS), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
        (frame(Kind.HEADERS, 0, 1, HEADERS) + frame(Kind.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, Flag.PADDED | Flag.END_HEADERS, 1, b"\x09"), Code.PROTOCOL_ERROR),
        (frame(Kind.CONTINUATION, 0, 1, HEADERS), Code.PROTOCOL_ERROR),
        (frame(Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
        (frame(Kind.WINDOW_UPDATE, 0, 0, b"\x00"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.SETTINGS, 0, 0, b"\x00"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.PUSH_PROMISE, 0, 1), Code.PROTOCOL_ERROR),
        (
            frame(Kind.HEADERS, 0, 1, HEADERS) + frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
            Code.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_who_breaks_the_rules_is_told_which_and_hung_up_on(server: Server, broken: bytes, code: Code) -> None:
    """GOAWAY with the code of RFC 9113, then the end; the server goes on serving others."""
    found, rest = split(bytes_after(server, PREFACE + frame(Kind.SETTINGS, 0, 0) + broken))
    assert not rest
    last = found[-1]
    assert (last.kind, int.from_bytes(last.payload[4:8], "big")) == (Kind.GOAWAY, code)
    with scripted_peer(server.address) as peer:
        peer.welcome()
        assert length_of(peer, 3) == 3


def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    """Messages of every size within mutual TLS; without a certificate there is no stream."""
    authority = Authority(tmp_path)
    pair, own = authority.issue("server"), authority.issue("peer")
    options = Options(
        "label:hash",
        "127.0.0.1:0",
        tls_key=pair.key,
        tls_certificate=pair.certificate,
        client_ca_certificate=authority.certificate,
    )
    server = Server(chaincode, options)
    server.start()
    root = authority.certificate.read_bytes()
    try:
        ours = grpc.ssl_channel_credentials(root, own.key.read_bytes(), own.certificate.read_bytes())
        with scripted_peer(server.address, ours) as peer:
            peer.welcome()
            for size in (5, 70_000, 20 * MEBIBYTE):
                assert length_of(peer, size) == size
        with (
            scripted_peer(server.address, grpc.ssl_channel_credentials(root)) as stranger,
            pytest.raises(grpc.RpcError) as refused,
        ):
            stranger.asked()
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop()

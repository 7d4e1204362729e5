"""The bytes of one connection: how it ends, by whichever side and however it is told."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.authority import Authority
from tokenmesh_chaincode.shim.wire import PROTOCOL, Wire

SECONDS = 10.0
Ends = Callable[[ssl.SSLSocket], object]


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Wire, ssl.SSLSocket]]:
    """Our side of a TLS connection, and the peer's."""
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(pair.certificate, pair.key)
    ours.set_alpn_protocols([PROTOCOL])
    theirs = ssl.create_default_context(cafile=str(authority.certificate))
    theirs.set_alpn_protocols([PROTOCOL])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    wire = Wire(near, ours)
    greeting = threading.Thread(target=wire.handshake)
    greeting.start()
    peer = theirs.wrap_socket(far, server_hostname="127.0.0.1")
    greeting.join(SECONDS)
    wire.settle()
    yield wire, peer
    peer.close()
    wire.end()
    near.close()


def close_tls(peer: ssl.SSLSocket) -> None:
    """Say by TLS that nothing more will come, and keep the connection."""
    peer.settimeout(0.01)
    with pytest.raises(OSError, match=r"timed out|SSL"):
        peer.unwrap()


def hang_up(peer: ssl.SSLSocket) -> None:
    """End the connection without a word by TLS."""
    peer.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("end", [close_tls, hang_up])
def test_reading_ends_when_the_other_side_ends(ends: tuple[Wire, ssl.SSLSocket], end: Ends) -> None:
    """What was sent before is read, and then nothing; nobody spins, and the lock is free for who writes."""
    wire, peer = ends
    peer.sendall(b"the last words")
    end(peer)
    read: list[bytes] = []

    def reader() -> None:
        while data := wire.receive():
            read.append(data)

    reading = threading.Thread(target=reader, daemon=True)
    reading.start()
    reading.join(SECONDS)
    assert not reading.is_alive()
    assert b"".join(read) == b"the last words"
    wire.send(b"nobody hears this")

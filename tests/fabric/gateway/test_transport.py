"""The connection itself: a peer that is far away is reached all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tokenmesh.fabric.gateway import NO_RETRY, Tls, connect, read_identity, read_signer
from tokenmesh.fabric.network import Network

LINE_S = 0.2
"""How long a message takes each way."""


@contextlib.contextmanager
def slow_line(address: str) -> Iterator[str]:
    """An address from which all goes to ``address``, and comes back, late."""
    host, _, port = address.rpartition(":")
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [listener]
    threads: list[threading.Thread] = []

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65_536):
                ended.wait(LINE_S)
                target.sendall(octets)
        for end in (source, target):
            hang_up(end)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                sockets.append(near)
                far = socket.create_connection((host, int(port)))
                sockets.append(far)
                threads.extend(
                    threading.Thread(target=carry, args=ends) for ends in ((near, far), (far, near))
                )
                for thread in threads[-2:]:
                    thread.start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        for one in sockets.copy():
            hang_up(one)
        for thread in threads:
            thread.join(timeout=10)
        for one in sockets:
            one.close()


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.mark.timeout(60)
def test_a_peer_behind_a_slow_line_is_reached_at_the_first_attempt(kv: Network) -> None:
    """TLS and HTTP/2 go to and fro several times before the first call can be made."""
    files, (peer, *_) = kv.profile.client(), kv.profile.peers
    with (
        slow_line(peer.address) as address,
        connect(
            address,
            read_identity(files.msp_id, files.certificate),
            read_signer(files.key),
            tls=Tls.of(peer, files),
        ) as gateway,
    ):
        kv_of = gateway.get_network("mesh").get_contract("kv")
        assert kv_of.evaluate("who", retry=NO_RETRY) == b"GovernanceMSP"

"""The wire of the lossy scoreboard: what it loses is done, and it loses the same for everyone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tokenmesh_benchmarks.lossy_wire import LossyWire, coin, first_of

PAID = {"token-contract": "a contract"}


@contextmanager
def serving(asked: Counter[str], status: int = 200) -> Iterator[int]:
    """A server that counts what it is asked; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_response_is_lost_after_the_work() -> None:
    """The caller's connection is closed; the next response to the same comes through."""
    asked = Counter[str]()
    with (
        serving(asked) as port,
        LossyWire(port, payment="token-contract", lose=first_of("/item/1")) as wire,
        httpx.Client(base_url=f"http://127.0.0.1:{wire.port}", headers=PAID) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/item/1")
        assert asked["/item/1"] == wire.lost == 1
        assert client.get("/item/1").text == "ok"
        assert client.get("/item/2").text == "ok"
    assert (asked, wire.lost) == ({"/item/1": 2, "/item/2": 1}, 1)
    assert wire.went_out == asked


def test_what_is_lost_follows_from_the_seed_and_the_request() -> None:
    """Not from the order of calls; and it is the part that it says."""
    fates = [coin(20, 0.2)(f"GET /item/{number}", 1) for number in range(1_000)]
    assert fates == [coin(20, 0.2)(f"GET /item/{number}", 1) for number in range(1_000)]
    assert 150 < sum(fates) < 250
    assert fates != [coin(21, 0.2)(f"GET /item/{number}", 1) for number in range(1_000)]
    assert fates != [coin(20, 0.2)(f"GET /item/{number}", 2) for number in range(1_000)]


def test_only_a_paid_request_is_copied() -> None:
    asked = Counter[str]()
    with (
        serving(asked) as port,
        LossyWire(port, payment="token-contract", copies=7) as wire,
        httpx.Client(base_url=f"http://127.0.0.1:{wire.port}") as client,
    ):
        client.get("/plain")
        assert client.get("/item/1", headers=PAID).text == "ok"
    assert asked == {"/plain": 1, "/item/1": 7}


def test_a_payment_comes_with_another_request_first() -> None:
    asked = Counter[str]()
    with (
        serving(asked) as port,
        LossyWire(port, payment="authorization", diverted=True) as wire,
        httpx.Client(base_url=f"http://127.0.0.1:{wire.port}") as client,
    ):
        client.get("/item/1", headers={"authorization": "Bearer not a payment"})
        client.get("/item/2", headers={"authorization": "Payment of something"})
    assert list(asked) == ["/item/1", "/item/2-other", "/item/2"]


def test_a_server_that_is_gone_is_a_bad_gateway() -> None:
    """Not a lost response: nothing was done."""
    with serving(Counter()) as port:
        pass
    with LossyWire(port) as wire:
        assert httpx.get(f"http://127.0.0.1:{wire.port}/").status_code == 502
    assert wire.lost == 0

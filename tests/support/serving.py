"""Real servers in threads of this process, for WSGI and ASGI applications, and a wire that can be cut.

``Cut`` decides for each response, when all the work is done, whether the connection is closed instead of
answering: a real socket, closed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

START_S_MAX = 30.0


class Cut:
    """Says which responses are lost; ``lost`` counts them. ``after`` is called once the work is done."""

    def __init__(self, lose: Callable[[str], bool] = lambda path: False) -> None:
        self.lose = lose
        self.lost = 0
        self._lock = threading.Lock()

    def next(self, count: int = 1) -> None:
        """Lose the next ``count`` responses to contracts."""
        left = [count]

        def lose(path: str) -> bool:
            left[0] -= 1
            return left[0] >= 0

        self.lose = lose

    def decides(self, path: str, paid: bool) -> bool:
        with self._lock:
            if not paid or not self.lose(path):
                return False
            self.lost += 1
            return True


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
        """Say nothing."""


def _cut_wsgi(app: Any, cut: Cut) -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if not cut.decides(environ["PATH_INFO"], "HTTP_TOKEN_CONTRACT" in environ):
            return app(environ, start_response)
        body = app(environ, lambda status, headers, exc_info=None: lambda data: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("200 OK", [])
        return [b""]

    return application


def _cut_asgi(app: Any, cut: Cut) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        paid = scope["type"] == "http" and any(name == b"token-contract" for name, _ in scope["headers"])
        if not paid or not cut.decides(scope["path"], True):
            await app(scope, receive, send)
            return

        async def swallow(message: Any) -> None:
            """The work is done, its response goes nowhere."""

        await app(scope, receive, swallow)
        send.__self__.transport.abort()

    return application


@contextmanager
def serve_wsgi(app: Any, cut: Cut | None = None, port: int = 0) -> Iterator[str]:
    """Serve ``app`` with a thread for each connection; gives its url."""
    server = make_server(
        "127.0.0.1", port, _cut_wsgi(app, cut or Cut()), threaded=True, request_handler=_Handler
    )
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join(START_S_MAX)
        server.server_close()


@contextmanager
def serve_asgi(app: Any, cut: Cut | None = None, port: int = 0) -> Iterator[str]:
    """Serve ``app`` on an event loop in a thread; gives its url."""
    config = uvicorn.Config(
        _cut_asgi(app, cut or Cut()), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    turn = threading.Event()
    for _ in range(int(START_S_MAX / 0.01)):
        if server.started:
            break
        turn.wait(0.01)
    assert server.started, "the server did not start"
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_S_MAX)
        listening.close()

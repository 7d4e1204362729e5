"""Requests to an application in this process, over WSGI and over ASGI, as a server would make them.

Both give the same :class:`Reply`, with nothing added or taken away by a client library; both can go away
after some pieces of a streamed response.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

Headers = Sequence[tuple[str, str]]


class Reply(NamedTuple):
    """A response as it left the application. ``complete`` is False if it broke off."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool = True

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem; None for any other response."""
        if self.header("Content-Type") != "application/problem+json":
            return None
        return str(self.json()["code"])

    def without(self, *names: str) -> Reply:
        """The same without these headers, the rest in lower case and in order, as HTTP compares them."""
        left = [(key.lower(), value) for key, value in self.headers if key.lower() not in names]
        return self._replace(headers=sorted(left))


def over_wsgi(
    app: Any,
    method: str,
    target: str,
    *,
    headers: Headers = (),
    body: bytes = b"",
    leave_after: int | None = None,
) -> Reply:
    """One request over WSGI; the client goes away after ``leave_after`` pieces of the body."""
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "quotes.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    joined: dict[str, list[str]] = {}
    for name, value in headers:
        joined.setdefault(name.upper().replace("-", "_"), []).append(value)
    for name, values in joined.items():
        key = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        environ[key] = ",".join(values)  # as servers do, for headers that come twice
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], None]:
        started.append((int(status.split(maxsplit=1)[0]), headers))
        return lambda _: None

    pieces: list[bytes] = []
    complete = False
    result = app(environ, start_response)
    try:
        for piece in result:
            pieces.append(piece)
            if leave_after is not None and len(pieces) >= leave_after:
                break
        else:
            complete = True
    finally:
        if hasattr(result, "close"):
            result.close()
    return Reply(*started[-1], b"".join(pieces), complete)


def over_asgi(app: Any, method: str, target: str, **options: Any) -> Reply:
    """One request over ASGI, on an event loop of its own; ``options`` are those of :func:`asgi`."""
    return asyncio.run(asgi(app, method, target, **options))


async def asgi(
    app: Any,
    method: str,
    target: str,
    *,
    headers: Headers = (),
    body: bytes = b"",
    leave_after: int | None = None,
    root_path: str = "",
) -> Reply:
    """One request over ASGI, as a server of ASGI 2.3 (uvicorn) makes it; the client goes away after
    ``leave_after`` pieces of the body."""
    path, _, query = target.partition("?")
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    raw.append((b"host", b"quotes.test"))
    if body:
        raw.append((b"content-length", str(len(body)).encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("latin-1"),
        "root_path": root_path,
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": ("quotes.test", 80),
        "state": {},
    }
    gone = asyncio.Event()
    half = len(body) // 2
    requests = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    started: dict[str, Any] = {}
    pieces: list[bytes] = []
    complete = False

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal complete
        if message["type"] == "http.response.start":
            assert not started, "a response starts once"
            started.update(message)
        elif not gone.is_set():
            assert started, "a body comes after its start"
            assert not complete, "nothing comes after the end"
            pieces.append(message.get("body", b""))
            complete = not message.get("more_body", False)
            if complete or len(pieces) == leave_after:
                gone.set()

    await app(scope, receive, send)
    texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in started["headers"]]
    return Reply(started["status"], texts, b"".join(pieces), complete)

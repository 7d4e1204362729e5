"""The body of an ASGI request: read as a whole, within its limit, and given to the framework once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from tokenmesh.provider import Problem, Refused

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class ClientGone(Exception):
    """The client went away before it had sent its request."""


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The whole body; raises :class:`Refused` when it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
            raise _too_large(most)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        if len(whole) > most:
            raise _too_large(most)
        return whole
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()


def _too_large(most: int) -> Refused:
    return Refused(Problem("request_too_large", f"At most {most} bytes are taken."))


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body which was read, and then goes on."""
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

"""What an invocation answers: payload, status and message."""

from __future__ import annotations

from typing import NamedTuple

STATUS_OK = 200
STATUS_REFUSED_FROM = 400


class Response(NamedTuple):
    """An answer. A status of 400 and over is an error: the peer endorses nothing and writes nothing."""

    payload: bytes = b""
    status: int = STATUS_OK
    message: str = ""

    @property
    def refused(self) -> bool:
        return self.status >= STATUS_REFUSED_FROM

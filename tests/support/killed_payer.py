"""A payer that makes one call, and kills itself with SIGKILL at a chosen point of it.

``python killed_payer.py URL POINT``: the points are put around the product's own parts, from outside. Prints
the response's body if it lives.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import httpx

from tokenmesh import default_mesh

POINTS = ("opening", "opened", "signed", "sent", "answered")
"""Before an allowance is opened, when it is, before the request goes out, while it is on its way, and when
the response has come but nobody has seen it."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Transport(httpx.BaseTransport):
    """The wire, on which the payer dies."""

    def __init__(self, point: str) -> None:
        self._point = point
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        paid = "Token-Contract" in request.headers
        if paid and self._point == "signed":
            die()
        if paid and self._point == "sent":
            response = self._inner.handle_request(request)
            die()
        response = self._inner.handle_request(request)
        response.read()
        if paid and self._point == "answered":
            die()
        return response


def before(method: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        die()
        return method(*args, **kwargs)

    return called


def after(method: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        answer.add_done_callback(lambda _: die())
        return answer

    return called


def main(url: str, point: str) -> None:
    mesh = default_mesh()
    if point == "opening":
        mesh.ledger.submit = before(mesh.ledger.submit)  # type: ignore[method-assign]
    if point == "opened":
        mesh.ledger.submit = after(mesh.ledger.submit)  # type: ignore[method-assign]
    with mesh.client("payee", url=url, transport=Transport(point)) as client:
        print(client.post("/work/once", json={"order": 17}, idempotency_key="order-17").text)


if __name__ == "__main__":
    main(*sys.argv[1:])

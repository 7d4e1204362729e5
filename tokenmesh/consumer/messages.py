"""What goes between the consumer and whoever carries its requests, in no transport's own terms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from tokenmesh.errors import TokenmeshError
from tokenmesh.retry import Policy
from tokenmesh_chaincode.documents import Receipt

CONTRACT_HEADER = "Token-Contract"
RECEIPT_HEADER = "Token-Receipt"
IDEMPOTENCY_HEADER = "Idempotency-Key"


class OutRequest(NamedTuple):
    """A request to send. ``url`` is absolute; ``target`` is its path and query, as they go over the wire.

    ``body`` is None for a body that nobody has read yet, a stream: :class:`ReadBody` asks for it.
    """

    method: str
    url: str
    target: str
    body: bytes | None
    idempotency_key: str | None = None


class ResponseHeaders(Protocol):
    """Headers of any library: looked up without regard to case."""

    def get(self, name: str, /) -> str | None: ...


class InResponse(NamedTuple):
    """A response. ``native`` is the library's own.

    ``body`` holds the bytes as they came, content coding included; it is None for a response (below 400)
    that the caller reads as a stream. Then ``pending`` is what :meth:`Consumer.conclude` needs once the
    stream has been read to its end, or :meth:`Consumer.abandon` if it is not.
    """

    status: int
    headers: ResponseHeaders
    body: bytes | None
    native: Any
    info: CallInfo | None = None
    pending: Any = None


@dataclass(slots=True)
class CallInfo:
    """What became of a call, for its caller: ``response.extensions["tokenmesh"]`` in httpx,
    ``response.tokenmesh`` in requests.

    ``contract_id`` and ``operation`` are None for an operation that is not priced. ``charged`` and
    ``receipt`` are None as long as a streamed response has not been read to its end. ``tries`` counts the
    requests it took.
    """

    service: str
    operation: str | None = None
    contract_id: str | None = None
    charged: int | None = 0
    receipt: Receipt | None = None
    receipt_text: str | None = field(default=None, repr=False)
    tries: int = 1


class CallOptions(NamedTuple):
    """How a client calls one service.

    ``url``: where it is. ``max_tokens``: the most one call may cost. ``via``: how to pay, if the offer
    leaves it open. ``retry``: when to try again, None for the consumer's own policy. ``private``: say to
    nobody but the payee what is paid for, whether it asks for that or not.
    """

    url: str
    max_tokens: int | None = None
    via: Literal["allowance", "hold"] | None = None
    retry: Policy | None = None
    private: bool = False


class Send(NamedTuple):
    """An effect: send the caller's request, with ``contract`` in the header ``CONTRACT_HEADER`` if there is
    one; give the :class:`InResponse`, or raise :class:`TransportFailed`."""

    contract: str | None


class Ask(NamedTuple):
    """An effect: get ``url``, a small question of the mesh itself, with ``own_headers`` of the caller's
    headers. The answer is read whole, whatever the caller wants of its own, but at most ``OWN_BYTES_MAX``."""

    url: str


class ReadBody(NamedTuple):
    """An effect: give the whole body of the caller's request, as bytes."""


OWN_BYTES_MAX = 4 * 2**20
"""The longest answer to one of the mesh's own requests that is read."""


_NOT_FOR_OWN = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "range",
        "transfer-encoding",
        CONTRACT_HEADER.lower(),
        IDEMPOTENCY_HEADER.lower(),
    }
)


def own_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a question of the mesh's own: it gets through where the caller's request does."""
    kept = [(name, value) for name, value in headers if name.lower() not in _NOT_FOR_OWN]
    return [*kept, ("Accept", "application/json, application/jose"), ("Accept-Encoding", "identity")]


class TransportFailed(TokenmeshError):
    """No response came; ``__cause__`` is the library's error. ``sent``: the request may have arrived."""

    retryable = True

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent

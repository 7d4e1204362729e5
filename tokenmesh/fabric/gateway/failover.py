"""Several peers as one: whoever is reached first serves, and when it is gone the next one does.

A :class:`FailoverChannel` stands in the place of a connection to one peer. A call that fails because its peer
cannot be reached, or does not answer in time, fails as always; but the next call goes to the next peer. What
is safe to repeat is repeated by the flows as ever (:mod:`.flows`), so it ends well there; and a stream of
blocks goes on at the next peer with the block after the last one seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway._session import Session
from tokenmesh.fabric.gateway.explain import DETAILS_KEY, failure_of
from tokenmesh.fabric.gateway.flows import Caller
from tokenmesh.fabric.gateway.identity import Hash, Identity, Signer, hash_sha256
from tokenmesh.fabric.gateway.options import MESSAGE_BYTES_MAX, Deadlines, Retry, Tls
from tokenmesh.fabric.gateway.sync import Gateway
from tokenmesh.fabric.gateway.transport import open_channel

Opener = Callable[[], grpc.Channel]


def connect_any(
    peers: Sequence[tuple[str, Tls | None]],
    identity: Identity,
    signer: Signer | None = None,
    *,
    hash: Hash = hash_sha256,  # noqa: A002 - Fabric's own name for it
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    retry: Retry = Retry(),  # noqa: B008 - frozen
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> Gateway:
    """Connect to the first of ``peers`` (address and TLS) that can be reached; when it is gone, to the next.

    Otherwise as :func:`~tokenmesh.fabric.gateway.connect`. The TLS certificate of ours is the same for all.
    """
    if not peers:
        raise FabricError("there is no peer to connect to")

    def opener(target: str, tls: Tls | None) -> Opener:
        return lambda: open_channel(target, tls, message_bytes_max)

    tls = peers[0][1]
    caller = Caller.over(tls, identity, signer, hash=hash, deadlines=deadlines, retry=retry)
    channel: Any = FailoverChannel([opener(*peer) for peer in peers])
    return Gateway(Session(channel, caller, owned=True, commit_stream=True))


class FailoverChannel:
    """As much of a ``grpc.Channel`` as a gateway uses, over the channels to several peers.

    The channel to a peer is opened when its turn comes. Safe to use from many threads.
    """

    def __init__(self, openers: Sequence[Opener]) -> None:
        self._openers = openers
        self._channels: dict[int, grpc.Channel] = {}
        self._at = 0
        self._lock = threading.Lock()

    def unary_unary(self, method: str) -> Callable[..., bytes]:
        def call(request: bytes, timeout: float | None = None) -> bytes:
            at, channel = self._current()
            try:
                response: bytes = channel.unary_unary(method)(request, timeout=timeout)
            except grpc.RpcError as error:
                self.note(at, error)
                raise
            return response

        return call

    def unary_stream(self, method: str) -> Callable[[bytes], FailoverStream]:
        def call(request: bytes) -> FailoverStream:
            at, channel = self._current()
            return FailoverStream(self, at, channel.unary_stream(method)(request))

        return call

    def stream_stream(self, method: str) -> Callable[[Iterator[bytes]], FailoverStream]:
        def call(requests: Iterator[bytes]) -> FailoverStream:
            at, channel = self._current()
            return FailoverStream(self, at, channel.stream_stream(method)(requests))

        return call

    def note(self, at: int, error: grpc.RpcError) -> None:
        """Turn to the next peer if ``error`` says that the one numbered ``at`` is gone."""
        failure = failure_of(error)
        # UNAVAILABLE with details is a peer that lives and says it of others, as of the orderers.
        gone = failure.code == "UNAVAILABLE" and all(key != DETAILS_KEY for key, _ in failure.trailers)
        if not gone and failure.code != "DEADLINE_EXCEEDED":
            return
        with self._lock:
            if at == self._at:  # else somebody has noticed it before
                self._at = (at + 1) % len(self._openers)

    def close(self) -> None:
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()

    def _current(self) -> tuple[int, Any]:
        with self._lock:
            at = self._at
            if at not in self._channels:
                self._channels[at] = self._openers[at]()
            return at, self._channels[at]


class FailoverStream(Iterator[bytes]):
    """The messages of one peer's stream."""

    def __init__(self, channel: FailoverChannel, at: int, stream: Any) -> None:
        self._channel = channel
        self._at = at
        self._stream = stream

    def __next__(self) -> bytes:
        try:
            message: bytes = next(self._stream)
        except grpc.RpcError as error:
            self._channel.note(self._at, error)
            raise
        return message

    def cancel(self) -> None:
        """End the stream; an iteration in another thread ends too."""
        self._stream.cancel()

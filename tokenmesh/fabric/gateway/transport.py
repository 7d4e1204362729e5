"""The gRPC channel to a peer: its credentials and its settings."""

from __future__ import annotations

from typing import Any

import grpc

from tokenmesh.fabric.gateway.options import Tls

KEEPALIVE_MS = 120_000
"""A ping on a connection that is in use but silent. Peers hang up on those who ping oftener than once a
minute.
"""
KEEPALIVE_TIMEOUT_MS = 20_000
CONNECT_MS_MAX = 3_000
"""How long one attempt to connect may take, TLS included: over a slow line, or to a peer that is busy."""
RECONNECT_MS_MAX = 1_000
"""How long gRPC waits at most before it tries to reach a peer that is down again."""


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


def settings(tls: Tls | None, message_bytes_max: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # By this name gRPC goes for how long an attempt may take, not for the pause before the next one.
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS_MAX),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is not None and tls.server_name is not None:
        found.append(("grpc.ssl_target_name_override", tls.server_name))
    return found


def open_channel(target: str, tls: Tls | None, message_bytes_max: int) -> grpc.Channel:
    options = settings(tls, message_bytes_max)
    if tls is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials(tls), options)


def open_async_channel(target: str, tls: Tls | None, message_bytes_max: int) -> grpc.aio.Channel:
    options = settings(tls, message_bytes_max)
    if tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials(tls), options)

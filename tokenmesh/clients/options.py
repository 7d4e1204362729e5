"""What a client is told besides what its library is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import tenacity

from tokenmesh.consumer import CallOptions
from tokenmesh.errors import ConfigError
from tokenmesh.retry import Policy, policy_of
from tokenmesh.steps import run

if TYPE_CHECKING:
    from tokenmesh.mesh import Mesh

_PORTS = {"http": 80, "https": 443}

Via = Literal["allowance", "hold"]
Retry = Policy | tenacity.BaseRetrying


def call_options(
    mesh: Mesh,
    service: str,
    url: str | None,
    max_tokens: int | None,
    via: Via | None,
    retry: Retry | None,
    private: bool,
) -> CallOptions:
    """The options of a client for ``service``, checked.

    Raises :class:`ConfigError`, and :class:`Unreachable` if nobody knows where the service is.
    """
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 0):
        raise ConfigError(f"max_tokens is {max_tokens!r}: it must be a whole number, 0 or more")
    if via not in (None, "allowance", "hold"):
        raise ConfigError(f"via is {via!r}: it must be 'allowance' or 'hold'")
    policy = None if retry is None else policy_of(retry, Policy())
    found = run(mesh.domain(service).consumer.url_of(service, url))
    return CallOptions(found, max_tokens, via, policy, bool(private))


def belongs(url: str, base: str) -> bool:
    """Whether a request to ``url`` goes to the service at ``base``: contracts go nowhere else."""
    if url.startswith(base + "/"):
        return True
    one, other = urlsplit(url), urlsplit(base)
    return (
        (one.scheme, one.hostname, one.port or _PORTS.get(one.scheme))
        == (other.scheme, other.hostname, other.port or _PORTS.get(other.scheme))
    ) and (one.path + "/").startswith(other.path.rstrip("/") + "/")


def key_of(key: str | None, first: tuple[str, str] | None, method: str, url: str) -> str | None:
    """The idempotency key of one request of a call that began with ``first`` (method and url).

    What a redirect leads to is another request, and so another job: with a key of its own.
    """
    if key is None or first is None or first == (method, url):
        return key
    return f"{key} {method} {url}"

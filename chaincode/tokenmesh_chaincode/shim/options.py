"""How a chaincode is served: where, under which id, with which TLS, within which bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Options:
    """What a server needs to know; :meth:`from_environment` reads what Fabric's own servers read.

    Key and certificate make it TLS; with the CA of the peers' certificates too, a peer must show one.
    """

    chaincode_id: str = ""
    """The package's id at the peer, ``label:hash``."""
    address: str = "127.0.0.1:0"
    """Host and port to listen on; port 0 takes a free one."""
    tls_key: Path | None = None
    tls_certificate: Path | None = None
    client_ca_certificate: Path | None = None
    concurrency_max: int = 32
    """So many invocations run at once; the rest wait."""
    waiting_max: int = 5000
    """So many invocations wait; one more is refused at once. A peer's own limit of endorsements is 2,500."""
    message_bytes_max: int = 100 * MEBIBYTE
    """The largest message either way. A peer's own limit is 100 MiB."""
    answer_wait_s_max: float = 60.0
    """How long an invocation waits for an answer. A peer gives an invocation up after 30 s by itself."""
    stop_grace_s: float = 5.0
    """How long :meth:`Server.stop` waits for what is running."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Options:
        """``CHAINCODE_ID`` or ``CORE_CHAINCODE_ID_NAME``, ``CHAINCODE_SERVER_ADDRESS``;
        ``CHAINCODE_TLS_DISABLED`` (``true`` unless there is a key); the files ``CHAINCODE_TLS_KEY``,
        ``CHAINCODE_TLS_CERT`` and ``CHAINCODE_CLIENT_CA_CERT``; ``CHAINCODE_CONCURRENCY``.
        """
        chaincode_id = environment.get("CHAINCODE_ID") or environment.get("CORE_CHAINCODE_ID_NAME") or ""
        address = environment.get("CHAINCODE_SERVER_ADDRESS", "")
        if not chaincode_id or not address:
            raise ValueError(
                "a chaincode server needs CHAINCODE_ID (the package's id at the peer) "
                "and CHAINCODE_SERVER_ADDRESS (host:port to listen on)"
            )
        concurrency = environment.get("CHAINCODE_CONCURRENCY", "")
        if concurrency and not concurrency.isdigit():
            raise ValueError("CHAINCODE_CONCURRENCY is to be a number")
        files = _tls_files(environment)
        return cls(
            chaincode_id,
            address,
            tls_key=files.get("CHAINCODE_TLS_KEY"),
            tls_certificate=files.get("CHAINCODE_TLS_CERT"),
            client_ca_certificate=files.get("CHAINCODE_CLIENT_CA_CERT"),
            concurrency_max=int(concurrency or cls.concurrency_max),
        )

    def __post_init__(self) -> None:
        if (self.tls_key is None) != (self.tls_certificate is None):
            raise ValueError("TLS needs both a key and a certificate")
        if self.client_ca_certificate is not None and self.tls_key is None:
            raise ValueError(
                "peers can be asked for certificates by TLS only: give a key and a certificate too"
            )
        if self.concurrency_max < 1:
            raise ValueError("at least one invocation must be able to run")


def _tls_files(environment: Mapping[str, str]) -> dict[str, Path]:
    names = ("CHAINCODE_TLS_KEY", "CHAINCODE_TLS_CERT", "CHAINCODE_CLIENT_CA_CERT")
    given = {name: Path(environment[name]) for name in names if environment.get(name)}
    disabled = environment.get("CHAINCODE_TLS_DISABLED", "").lower()
    if disabled not in ("", "true", "false", "1", "0"):
        raise ValueError("CHAINCODE_TLS_DISABLED is true or false")
    if disabled in ("true", "1"):
        return {}
    if disabled in ("false", "0") and not given:
        raise ValueError("TLS is on, but there is no CHAINCODE_TLS_KEY and CHAINCODE_TLS_CERT")
    return given

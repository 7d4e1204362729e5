"""How long calls may take, how often they are tried again, and how the peer is reached."""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tokenmesh.fabric.errors import IdentityError
from tokenmesh.fabric.profile import Endpoint, IdentityFiles

MESSAGE_BYTES_MAX = 100 * 2**20
"""What Fabric's peers and orderers take at most, as they are configured out of the box."""


@dataclass(frozen=True)
class Deadlines:
    """Seconds until a call is given up; every call can say otherwise by ``timeout_s``."""

    evaluate_s: float = 5.0
    endorse_s: float = 15.0
    submit_s: float = 5.0
    commit_status_s: float = 60.0


@dataclass(frozen=True)
class Retry:
    """What ``contract.submit`` and ``contract.evaluate`` do by themselves, and how much of it.

    Tried again, with a new proposal: endorsement that a busy or absent peer could not give, results of
    endorsers that were not at the same block, and transactions invalid by a conflict (``MVCC_READ_CONFLICT``,
    ``PHANTOM_READ_CONFLICT``). Sent again as it is: a transaction of which it is unknown whether it was taken
    for ordering. Never: what the chaincode itself refused.

    A transaction that was taken for ordering and is in no block after ``resend_s`` seconds is handed in once
    more, then after twice as long, and so on: an orderer that is killed forgets what it had not written yet.

    ``attempts`` counts the first; ``wait_s`` doubles from try to try up to ``wait_s_max``, of which a random
    part is waited; no new attempt begins after ``budget_s``.
    """

    attempts: int = 6
    wait_s: float = 0.1
    wait_s_max: float = 2.0
    budget_s: float = 30.0
    resend_s: float = 5.0
    random: Callable[[], float] = _random.random

    def pause(self, attempt: int, spent_s: float) -> float | None:
        """Seconds to wait before the attempt after ``attempt`` (1 is the first); None: no more."""
        wait = min(self.wait_s_max, self.wait_s * 2 ** (attempt - 1)) * (0.5 + 0.5 * self.random())
        return wait if attempt < self.attempts and spent_s + wait <= self.budget_s else None


NO_RETRY = Retry(attempts=1)
"""Everything once, as Fabric's own clients do."""


@dataclass(frozen=True)
class Tls:
    """How a peer proves who it is, and we to it. All PEM.

    ``ca`` is the CA of the peer's TLS certificate; ``certificate`` and ``key`` are ours, for mutual TLS;
    ``server_name`` is the name in the peer's certificate, where that is not the address.
    """

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Say now, and in words, what gRPC would say of the connection, and not in words."""
        try:
            x509.load_pem_x509_certificates(self.ca)
        except ValueError as error:
            raise IdentityError(f"the CA's certificate for TLS cannot be read as PEM: {error}") from error
        if self.certificate is None or self.key is None:
            return
        try:
            own = x509.load_pem_x509_certificate(self.certificate).public_key()
            key = load_pem_private_key(self.key, None)
        except (ValueError, TypeError) as error:
            raise IdentityError(f"our certificate and key for TLS cannot be read as PEM: {error}") from error
        if _spki(own) != _spki(key.public_key()):
            raise IdentityError("our certificate and key for TLS do not belong together")

    @classmethod
    def read(
        cls,
        ca: str | Path,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """The same from files."""
        try:
            own = [Path(path).read_bytes() if path is not None else None for path in (certificate, key)]
            return cls(Path(ca).read_bytes(), own[0], own[1], server_name)
        except OSError as error:
            raise IdentityError(f"a file for TLS cannot be read: {error}") from error

    @classmethod
    def of(cls, node: Endpoint, files: IdentityFiles) -> Tls:
        """For a node of a profile, and one of its identities."""
        own = (files.tls_certificate, files.tls_key)
        try:
            certificate, key = (path.read_bytes() if path is not None else None for path in own)
            return cls(node.tls_ca.encode(), certificate, key, node.server_name)
        except (OSError, IdentityError) as error:
            raise IdentityError(f"{files.tls_certificate} cannot be used: {error}") from error

    @property
    def certificate_hash(self) -> bytes:
        """SHA-256 of our TLS certificate, by which Fabric ties a request to its connection; empty without
        one.
        """
        if self.certificate is None:
            return b""
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate)
        except ValueError as error:
            raise IdentityError(f"the TLS certificate cannot be read as PEM: {error}") from error
        return sha256(certificate.public_bytes(Encoding.DER)).digest()


def _spki(key: Any) -> bytes:
    """A public key of any kind, to be compared."""
    octets: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets

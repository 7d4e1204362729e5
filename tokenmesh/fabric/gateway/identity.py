"""Who calls, and what signs for them.

An :class:`Identity` is public: an organisation's MSP id and a certificate. A :class:`Signer` is whatever
holds its private key: a function from a digest to a signature. Keys in files are here; a hardware module, a
remote signing service or a person with an offline machine fits the same protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from fabric_protos.msp import identities_pb2

from tokenmesh.fabric.errors import IdentityError
from tokenmesh.fabric.signing import CURVE_ORDERS, low_s

PREHASHED = {32: ec.ECDSA(Prehashed(hashes.SHA256())), 48: ec.ECDSA(Prehashed(hashes.SHA384()))}


class Hash(Protocol):
    """What is signed, made from the message: a digest, or for Ed25519 the message itself."""

    def __call__(self, message: bytes, /) -> bytes: ...


class Signer(Protocol):
    """Signs a digest; an ECDSA signature is ASN.1 DER with low s, or Fabric refuses it."""

    def __call__(self, digest: bytes, /) -> bytes: ...


class AsyncSigner(Protocol):
    """As :class:`Signer`, and may be awaited; for the gateway that runs on asyncio."""

    def __call__(self, digest: bytes, /) -> bytes | Awaitable[bytes]: ...


@dataclass(frozen=True)
class Identity:
    """A member of an organisation: its MSP id and its certificate in PEM."""

    msp_id: str
    credentials: bytes

    @cached_property
    def serialized(self) -> bytes:
        """``SerializedIdentity``, as every message of Fabric carries it (the creator)."""
        message = identities_pb2.SerializedIdentity(mspid=self.msp_id, id_bytes=self.credentials)
        return bytes(message.SerializeToString())


def hash_sha256(message: bytes, /) -> bytes:
    """What Fabric's ECDSA identities sign, unless a channel says otherwise."""
    return sha256(message).digest()


def hash_none(message: bytes, /) -> bytes:
    """The message as it is: for Ed25519, which hashes by itself."""
    return message


def new_private_key_signer(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Signer:
    """A signer with its key in this process: ECDSA on P-256 or P-384, or Ed25519 (with ``hash_none``)."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    curve = key.curve
    if curve.name not in CURVE_ORDERS:
        raise IdentityError(f"Fabric knows no keys on {curve.name}; use P-256 or P-384")

    def sign(digest: bytes, /) -> bytes:
        algorithm = PREHASHED.get(len(digest))
        if algorithm is None:
            raise IdentityError(f"{len(digest)} bytes are no digest of SHA-256 or SHA-384: check `hash`")
        return low_s(key.sign(digest, algorithm), curve)

    return sign


def read_identity(msp_id: str, certificate: str | Path) -> Identity:
    """An identity from its certificate's PEM file."""
    try:
        pem = Path(certificate).read_bytes()
        x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError) as error:
        raise IdentityError(f"{certificate} cannot be read as a certificate in PEM: {error}") from error
    return Identity(msp_id, pem)


def read_signer(key: str | Path, password: bytes | None = None) -> Signer:
    """A signer from its key's PEM file (PKCS#8 or SEC 1)."""
    try:
        loaded = serialization.load_pem_private_key(Path(key).read_bytes(), password)
    except (OSError, ValueError, TypeError) as error:
        raise IdentityError(f"{key} cannot be read as a private key in PEM: {error}") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise IdentityError(f"{key} is no EC or Ed25519 key; Fabric signs with nothing else")
    return new_private_key_signer(loaded)

"""Identities (a key and its certificate) in files: never readable by others, written whole, durably.

The mode is set when a file is made, not afterwards, so there is no moment in which others could read it. A
file that others can read, or whose directory others can write, is refused, with the command that mends it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tokenmesh.errors import IdentityError
from tokenmesh_chaincode.documents import raw_signature

Passphrase: TypeAlias = Callable[[], str | None]
"""Asked for a passphrase only when a key needs one; None: there is none."""

KEY_FILE_BYTES_MAX = 65_536

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_SIGNATURE = ec.ECDSA(Prehashed(hashes.SHA256()))


class Identity:
    """A key and its certificate. Never changes, so its ``x5t`` and its signatures always belong together."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate
        self.certificate_pem = certificate.public_bytes(Encoding.PEM).decode()
        self.x5t = _base64url(certificate.fingerprint(hashes.SHA256()))
        self.name = _attribute(certificate, NameOID.COMMON_NAME)
        self.role = _attribute(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)
        self.not_after = certificate.not_valid_after_utc

    def sign(self, data: bytes) -> bytes:
        """The ECDSA signature over SHA-256 of ``data`` as 64 bytes, r then s (RFC 7518, section 3.4)."""
        return raw_signature(self.key.sign(sha256(data).digest(), _SIGNATURE))

    def to_pem(self, passphrase: str | None) -> bytes:
        """Key and certificate as one PEM text; the key encrypted if there is a passphrase."""
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase:
            encryption = BestAvailableEncryption(passphrase.encode())
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        return key + self.certificate_pem.encode()

    @classmethod
    def read(cls, path: Path, passphrase: Passphrase) -> Identity:
        """The identity in the file at ``path``; :class:`IdentityError` if anything about it is not right."""
        key_pem, found, certificate_pem = (
            read_private(path).decode("ascii", "replace").partition(_CERTIFICATE)
        )
        secret = None
        if "ENCRYPTED" in key_pem:
            secret = passphrase()
            if not secret:
                raise IdentityError(f"the key in {path} is encrypted: set TOKENMESH_PASSPHRASE to open it")
        try:
            key = load_pem_private_key(key_pem.encode(), secret.encode() if secret else None)
            certificate = x509.load_pem_x509_certificate((found + certificate_pem).encode())
        except (ValueError, TypeError) as error:
            why = (
                "the passphrase does not open it" if secret else "it does not hold a PEM key and certificate"
            )
            raise IdentityError(f"cannot read the identity in {path}: {why}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise IdentityError(f"the key in {path} is not a P-256 key, the only kind that tokenmesh uses")
        if certificate.public_key() != key.public_key():
            raise IdentityError(f"the certificate in {path} belongs to another key than the one beside it")
        return cls(key, certificate)


def read_private(path: Path) -> bytes:
    """The bytes of a key file, if nobody but its owner can read it or put another in its place."""
    try:
        with path.open("rb") as file:
            _check_modes(path, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > KEY_FILE_BYTES_MAX:
        raise IdentityError(f"{path} is larger than {KEY_FILE_BYTES_MAX} bytes: it cannot be an identity")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Write a new key file (0600, its directories 0700); :class:`IdentityError` if there is one already."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _make_directories(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            path.hardlink_to(temporary)  # unlike a rename, it fails if somebody was faster
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise IdentityError(f"{path} is there already and is not overwritten") from error
    except OSError as error:
        raise IdentityError(f"cannot write {path}: {error.strerror}") from error


def replace_private(source: Path, path: Path) -> None:
    """Put the key file ``source`` in the place of ``path``, in one step and durably."""
    try:
        source.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise IdentityError(f"cannot put {source} in the place of {path}: {error.strerror}") from error


def _check_modes(path: Path, mode: int) -> None:
    if mode & 0o077:
        raise IdentityError(
            f"{path} can be read by others (mode {mode:04o}), so its key is not used: chmod 600 {path}"
        )
    if stat.S_IMODE(path.parent.stat().st_mode) & 0o022:
        raise IdentityError(
            f"{path.parent} can be written by others, so a key in it is not used: chmod 700 {path.parent}"
        )


def _make_directories(path: Path) -> None:
    """Like ``mkdir -p -m 700``: pathlib gives the mode to the last directory only."""
    if not path.is_dir():
        _make_directories(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

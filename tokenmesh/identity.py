"""Wallets as X.509 identities: a P-256 key and a certificate from the home's own certificate authority.

A home directory holds them, one file each, key and certificate together, so that a rotation replaces both
in one step::

    home/ca/identity.pem               the certificate authority, made by ``tokenmesh init``
    home/wallets/NAME/identity.pem     a wallet: CN = name, OU = role ("governor" or "service")
    home/wallets/NAME/next.pem         a rotation on its way: the ledger may know it already

Where the ledger is on Fabric, the authorities are those of its organisations: their OUs are Fabric's, and the
role is an attribute.

Files are 0600 from the moment they exist, directories 0700. A key that others could read, or a directory in
which they could replace it, is refused. With ``TOKENMESH_PASSPHRASE`` set, new keys are encrypted.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tokenmesh.errors import ConfigError, IdentityError
from tokenmesh.fabric.certificates import certificate_attributes
from tokenmesh.keyfiles import Identity, Passphrase, read_private, replace_private, write_private
from tokenmesh_chaincode.documents import Signer

Role: TypeAlias = Literal["governor", "service"]

CA_NAME = "tokenmesh-ca"
ROLE_ATTRIBUTE = "tokenmesh.role"
"""Where a certificate of fabric-ca says the role of its wallet."""
CA_DAYS = 3650
WALLET_DAYS = 365
EXPIRY_WARNING_DAYS = 30
BACKDATE_S = 300
"""A certificate is valid from a little before it was made: clocks of other processes may be behind."""
RELOAD_INTERVAL_S = 1.0

# Narrower than what the rules take: a name is a host's name too, and TOKENMESH_URL_NAME must lead to it.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_log = logging.getLogger("tokenmesh.identity")


def check_name(name: str) -> str:
    """Give ``name`` back if it can name a wallet: a DNS label (RFC 1123), lower case, 1 to 63 characters."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} cannot name a wallet: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end"
        )
    return name


def passphrase_from_environment() -> str | None:
    """The passphrase in ``TOKENMESH_PASSPHRASE``, if there is one."""
    return os.environ.get("TOKENMESH_PASSPHRASE") or None


class Issuer(Protocol):
    """Who gives wallets their certificates; each raises an error that says what is in the way."""

    def new_identity(self, name: str, role: Role = "service", /) -> Identity:
        """A new key with a certificate for it, in memory only."""

    def renewed(self, identity: Identity, role: Role, /) -> Identity:
        """The same with another key."""


class CertificateAuthority:
    """The authority of one home: it gives every wallet of the domain its certificate."""

    def __init__(self, identity: Identity, clock: Callable[[], float] = time.time) -> None:
        self._identity = identity
        self._clock = clock
        self.certificate_pem = identity.certificate_pem
        self.not_after = identity.not_after

    @classmethod
    def create(
        cls,
        home: Path | str,
        *,
        passphrase: Passphrase = passphrase_from_environment,
        clock: Callable[[], float] = time.time,
    ) -> CertificateAuthority:
        """Make a new authority in ``home``; :class:`IdentityError` if there is one already."""
        key = ec.generate_private_key(ec.SECP256R1())
        # A serial in the name tells the authorities of two homes apart wherever only names are shown.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{CA_NAME}-{secrets.token_hex(4)}")])
        start = _moment(clock())
        certificate = (
            _certificate(name, name, key.public_key(), start, start + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        identity = Identity(key, certificate)
        write_private(_ca_path(home), identity.to_pem(passphrase()))
        return cls(identity, clock)

    @classmethod
    def load(
        cls,
        home: Path | str,
        *,
        passphrase: Passphrase = passphrase_from_environment,
        clock: Callable[[], float] = time.time,
    ) -> CertificateAuthority:
        """The authority of ``home``; :class:`IdentityError` if there is none."""
        path = _ca_path(home)
        if _missing(path):
            raise IdentityError(f"no certificate authority in {home}: make one with 'tokenmesh init'")
        return cls(Identity.read(path, passphrase), clock)

    def issue(self, name: str, public_key: ec.EllipticCurvePublicKey, role: Role = "service") -> str:
        """A certificate (PEM) for the wallet ``name``; it ends no later than the authority's own."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, check_name(name)),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            ]
        )
        start = _moment(self._clock())
        end = min(start + timedelta(days=WALLET_DAYS), self.not_after)
        if end <= start:
            raise IdentityError(
                f"the certificate authority ended on {self.not_after:%Y-%m-%d} and can issue nothing more: "
                "start a new domain with 'tokenmesh init' in a new home"
            )
        certificate = (
            _certificate(subject, self._identity.certificate.subject, public_key, start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._identity.key.public_key()),
                critical=False,
            )
            .sign(self._identity.key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()

    def new_identity(self, name: str, role: Role = "service") -> Identity:
        """A new key with a certificate for it, in memory only."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.issue(name, key.public_key(), role)
        return Identity(key, x509.load_pem_x509_certificate(certificate.encode()))

    def renewed(self, identity: Identity, role: Role) -> Identity:
        """The same with another key."""
        return self.new_identity(identity.name, role)


class Reloading(Signer, Protocol):
    """A wallet as those see it who sign with it: it takes up a rotated key when there is one."""

    def reload(self) -> object: ...


class Wallet:
    """The identity of one service, as it signs: a ``Signer`` (``name``, ``x5t``, ``sign``) kept in a file.

    Any number of threads may sign while one calls :meth:`reload`. :meth:`sign` uses the key whose ``x5t``
    the same thread read last, so a document whose header was written just before a rotation is picked up
    is signed with the key that its header names.
    """

    def __init__(
        self,
        identity: Identity,
        path: Path,
        *,
        passphrase: Passphrase = passphrase_from_environment,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = identity.name
        self.path = path
        self._identity = identity
        self._passphrase = passphrase
        self._clock = clock
        self._told = threading.local()
        self._reload_lock = threading.Lock()
        self._stamp = _stamp(path)
        self._looked_at = clock()

    @classmethod
    def create(
        cls,
        home: Path | str,
        name: str,
        authority: Issuer,
        role: Role = "service",
        *,
        passphrase: Passphrase = passphrase_from_environment,
    ) -> Wallet:
        """Make key, certificate and file; :class:`IdentityError` if the wallet's file is there already."""
        path = wallet_path(home, name)
        identity = authority.new_identity(name, role)
        write_private(path, identity.to_pem(passphrase()))
        return cls(identity, path, passphrase=passphrase)

    @classmethod
    def load(
        cls,
        home: Path | str,
        name: str,
        *,
        passphrase: Passphrase = passphrase_from_environment,
        clock: Callable[[], float] = time.monotonic,
    ) -> Wallet:
        """The wallet ``name`` of ``home``; :class:`IdentityError` says what is wrong and how to mend it."""
        path = wallet_path(home, name)
        if _missing(path):
            begun = not _missing(path.parent.parent)
            begin = (
                f"make it with 'tokenmesh wallet create {name}'" if begun else "begin with 'tokenmesh init'"
            )
            raise IdentityError(
                f"no key for wallet {name!r} in {home}: {begin}, or name its home (--home, TOKENMESH_HOME)"
            )
        return cls(_read_as(name, path, passphrase), path, passphrase=passphrase, clock=clock)

    @property
    def x5t(self) -> str:
        """SHA-256 of the certificate (DER), base64url without padding (RFC 7515, section 4.1.8)."""
        identity = self._told.identity = self._identity
        return identity.x5t

    @property
    def certificate_pem(self) -> str:
        return self._identity.certificate_pem

    @property
    def role(self) -> str:
        role = self._identity.role
        if role in get_args(Role):
            return role
        return certificate_attributes(self._identity.certificate_pem).get(ROLE_ATTRIBUTE, role)

    @property
    def not_after(self) -> datetime:
        return self._identity.not_after

    def sign(self, data: bytes) -> bytes:
        """64 bytes, r then s, made with the key whose ``x5t`` this thread read last."""
        identity: Identity = getattr(self._told, "identity", self._identity)
        return identity.sign(data)

    def reload(self) -> bool:
        """Take up a rotated identity file; True if there was one.

        Cheap enough for every call: it looks at the file at most once in ``RELOAD_INTERVAL_S``. A file that
        is gone or cannot be read leaves the wallet as it was, with a warning in the log.
        """
        if self._clock() - self._looked_at < RELOAD_INTERVAL_S or not self._reload_lock.acquire(
            blocking=False
        ):
            return False
        try:
            self._looked_at = self._clock()
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            self._identity = _read_as(self.name, self.path, self._passphrase)
        except IdentityError as error:
            known = {"wallet": self.name}
            _log.warning("wallet %s goes on with the identity it has: %s", self.name, error, extra=known)
            return False
        finally:
            self._reload_lock.release()
        return True

    def expiry_warning(self, now: float) -> str | None:
        """A sentence for people if the certificate has ended or nears its end."""
        return expiry_warning(self.name, self.not_after, now)


def prepare_rotation(
    home: Path | str,
    wallet: Wallet,
    authority: Issuer,
    *,
    passphrase: Passphrase = passphrase_from_environment,
) -> Identity:
    """The identity that is to follow the wallet's own, kept in ``next.pem`` before the ledger hears of it.

    A rotation that broke off earlier is taken up again: the ledger may know its certificate already. The
    new key is encrypted if the old one is.
    """
    path = _next_path(home, wallet.name)
    if not _missing(path):
        return _read_as(wallet.name, path, passphrase)
    role: Role = "governor" if wallet.role == "governor" else "service"
    identity = authority.renewed(_read_as(wallet.name, wallet.path, passphrase), role)
    encrypted = b"ENCRYPTED" in read_private(wallet.path)
    write_private(path, identity.to_pem(passphrase() if encrypted else None))
    return identity


def finish_rotation(home: Path | str, name: str) -> None:
    """Put ``next.pem`` in the place of the wallet's identity, once the ledger has its certificate."""
    replace_private(_next_path(home, name), wallet_path(home, name))


def wallet_path(home: Path | str, name: str) -> Path:
    """Where the identity of the wallet ``name`` lies."""
    return Path(home) / "wallets" / check_name(name) / "identity.pem"


def certificate_end(certificate_pem: str) -> datetime:
    """When a certificate (PEM) ends."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_after_utc


def expiry_warning(name: str, not_after: datetime, now: float) -> str | None:
    """A sentence for people if a certificate has ended, or ends within ``EXPIRY_WARNING_DAYS``."""
    left = not_after - datetime.fromtimestamp(now, UTC)
    if left > timedelta(days=EXPIRY_WARNING_DAYS):
        return None
    if left <= timedelta(0):
        state = f"ended on {not_after:%Y-%m-%d}: nothing it signs is accepted any more"
    else:
        state = f"ends on {not_after:%Y-%m-%d}, in {left.days} days"
    return f"the certificate of wallet {name} {state}; renew it with 'tokenmesh wallet rotate {name}'"


def _read_as(name: str, path: Path, passphrase: Passphrase) -> Identity:
    identity = Identity.read(path, passphrase)
    if identity.name != name:
        raise IdentityError(f"{path} holds the certificate of {identity.name!r}, not of {name!r}")
    return identity


def _missing(path: Path) -> bool:
    """Whether there is certainly no such file; one that may not be looked at is for its reader to report."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _ca_path(home: Path | str) -> Path:
    return Path(home) / "ca" / "identity.pem"


def _next_path(home: Path | str, name: str) -> Path:
    return wallet_path(home, name).with_name("next.pem")


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(seconds=BACKDATE_S))
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)

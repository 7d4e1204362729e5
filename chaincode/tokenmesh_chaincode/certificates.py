"""X.509 certificates of wallets: thumbprints, keys, and whether a certificate is a wallet's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tokenmesh_chaincode.documents import is_name
from tokenmesh_chaincode.documents.jws import encode_segment
from tokenmesh_chaincode.limits import CERTIFICATE_BYTES_MAX, KEY_CACHE_MAX


class CertificateError(ValueError):
    """A certificate cannot be read, or is not one for this wallet; the message says why."""


class CertificateInfo(NamedTuple):
    """What the rules keep of a certificate. ``pem`` holds nothing else; times are Unix seconds, inclusive."""

    pem: str
    x5t: str
    name: str
    not_before: int
    not_after: int
    key: ec.EllipticCurvePublicKey


def parse_certificate(pem: str) -> x509.Certificate:
    """The one certificate in a PEM text; :class:`CertificateError` if there is none or it is too large."""
    if len(pem) > CERTIFICATE_BYTES_MAX:
        raise CertificateError(f"a certificate longer than {CERTIFICATE_BYTES_MAX} bytes")
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("not a certificate in PEM") from error


def thumbprint_of(certificate: x509.Certificate) -> str:
    """``x5t#S256`` (RFC 7515, section 4.1.8): SHA-256 of the DER, base64url, 43 characters."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return encode_segment(hashlib.sha256(der).digest())


def x5t_s256(pem: str) -> str:
    """``x5t#S256`` of a certificate in PEM."""
    return thumbprint_of(parse_certificate(pem))


def _key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("the certificate's key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the certificate's key is not on P-256, which ES256 needs")
    return key


@lru_cache(maxsize=KEY_CACHE_MAX)
def public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """The P-256 key of a certificate; parsed once, for parsing costs more than a signature's check."""
    return _key_of(parse_certificate(pem))


def _common_name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise CertificateError("the certificate's subject cannot be read") from error
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise CertificateError("the certificate's subject has not exactly one common name")
    return names[0].value


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.value.ca


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _covers(certificate: x509.Certificate, now: int) -> bool:
    return _seconds(certificate.not_valid_before_utc) <= now <= _seconds(certificate.not_valid_after_utc)


def check_authority(pem: str) -> None:
    """Raise :class:`CertificateError` unless this is the certificate of an authority."""
    if not _is_authority(parse_certificate(pem)):
        raise CertificateError("the certificate is not an authority's: basic constraints do not say CA")


def check_certificate(cert_pem: str, ca_pems: Iterable[str], name: str, now: int) -> CertificateInfo:
    """Read a wallet's certificate; raise :class:`CertificateError` unless it is one for ``name`` at ``now``.

    One of ``ca_pems`` must have issued it directly and be valid itself; its only common name must be
    ``name``, its key on P-256. Every authority in the list is trusted, an intermediate one as a root.
    """
    certificate = parse_certificate(cert_pem)
    key = _key_of(certificate)
    common_name = _common_name(certificate)
    if not is_name(name) or common_name != name:
        raise CertificateError(f"the certificate is for {common_name[:80]!r}, not for {name!r}")
    if not _covers(certificate, now):
        raise CertificateError("the certificate is not valid now")
    authorities = [parse_certificate(pem) for pem in ca_pems]
    if not any(
        _is_authority(authority) and _covers(authority, now) and _is_issued_by(certificate, authority)
        for authority in authorities
    ):
        raise CertificateError("no authority of this domain has issued the certificate")
    return CertificateInfo(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        thumbprint_of(certificate),
        common_name,
        _seconds(certificate.not_valid_before_utc),
        _seconds(certificate.not_valid_after_utc),
        key,
    )

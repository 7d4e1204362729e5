"""Certificates as fabric-ca wants them asked for, and what it writes in them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ATTRIBUTES_OID = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""The certificate extension in which fabric-ca writes attributes, as JSON."""


def certificate_attributes(certificate: str) -> dict[str, str]:
    """The attributes that stand in a certificate of fabric-ca, by name."""
    try:
        extension = x509.load_pem_x509_certificate(certificate.encode()).extensions.get_extension_for_oid(
            ATTRIBUTES_OID
        )
    except x509.ExtensionNotFound:
        return {}
    value = extension.value
    if not isinstance(value, x509.UnrecognizedExtension):
        return {}
    attributes = json.loads(value.value)["attrs"]
    return {str(name): str(text) for name, text in attributes.items()}


def certificate_request(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    profile: str,
    attributes: Iterable[str] | None,
) -> dict[str, Any]:
    """The body of enroll and reenroll: a CSR whose common name is the identity, as fabric-ca insists."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
    csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    body: dict[str, Any] = {"certificate_request": csr, "profile": profile}
    if attributes is not None:
        body["attr_reqs"] = [{"name": name, "optional": False} for name in attributes]
    return body


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def common_name(certificate: str) -> str:
    """The name of whom a certificate is for."""
    subject = x509.load_pem_x509_certificate(certificate.encode()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

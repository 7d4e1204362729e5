"""Identities as folders that Fabric's own programs read: an MSP, and TLS files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tokenmesh.fabric.ca import Enrollment
from tokenmesh.fabric.errors import NetworkError
from tokenmesh.fabric.files import private_folder, write_private, write_public

CERTIFICATE = "signcerts/cert.pem"
KEY = "keystore/key.pem"
CA_CERTIFICATE = "cacerts/ca.pem"
TLS_CA_CERTIFICATE = "tlscacerts/ca.pem"


class TlsFiles(NamedTuple):
    """Paths of a TLS certificate, its key, and the certificate of the CA."""

    certificate: Path
    key: Path
    ca: Path


def write_msp(folder: Path, ca: str, node_ous: dict[str, Any], identity: Enrollment | None = None) -> None:
    """An MSP that trusts ``ca``; with ``identity``, one that can sign."""
    write_public(folder / CA_CERTIFICATE, ca)
    write_public(folder / TLS_CA_CERTIFICATE, ca)
    write_public(folder / "config.yaml", yaml.safe_dump({"NodeOUs": node_ous}))
    if identity is not None:
        private_folder(folder / "keystore")
        write_private(folder / KEY, identity.key_pem)
        write_public(folder / CERTIFICATE, identity.certificate)  # last: with it the MSP is complete


def write_tls(folder: Path, ca: str, identity: Enrollment) -> None:
    files = tls_files(folder)
    private_folder(folder)
    write_public(files.ca, ca)
    write_private(files.key, identity.key_pem)
    write_public(files.certificate, identity.certificate)


def tls_files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


def read_msp(folder: Path) -> Enrollment:
    """The identity that :func:`write_msp` wrote."""
    try:
        key = load_pem_private_key((folder / KEY).read_bytes(), password=None)
        certificate = (folder / CERTIFICATE).read_text()
        chain = (folder / CA_CERTIFICATE).read_text()
    except (OSError, ValueError) as error:
        raise NetworkError(f"there is no readable identity in {folder}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NetworkError(f"the key in {folder} is not of an elliptic curve, as Fabric's are")
    return Enrollment(certificate, key, chain)

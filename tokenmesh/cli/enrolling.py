"""Wallets of a ledger on Fabric: their certificates come from the fabric-ca of one of its organisations.

Who makes a wallet needs the organisation's ``registrar`` among the profile's identities. The wallet's key is
kept in the home, as always; what it connects with by TLS lies in the profile's ``identities/NAME/tls``.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tokenmesh.cli.desk import Fault
from tokenmesh.fabric.ca import Attribute, CAClient, Enrollment
from tokenmesh.fabric.errors import CAError, ProfileError
from tokenmesh.fabric.network.msp import tls_files, write_tls
from tokenmesh.fabric.network.organisations import ALREADY_REGISTERED, REGISTRAR, SECRET_BYTES
from tokenmesh.fabric.profile import CertificateAuthority, Organisation, Profile
from tokenmesh.identity import ROLE_ATTRIBUTE, Role
from tokenmesh.keyfiles import Identity

NOT_AUTHENTICATED = 20
"""fabric-ca's code for a certificate that it does not accept any more."""
CLIENT = "client"
"""What wallets are to Fabric, governors too: to mint tokens, nobody need be able to change the network."""


class FabricAuthority:
    """The fabric-ca of an organisation, an ``Issuer`` of wallets. Raises ``FabricError``."""

    def __init__(self, profile: Profile, organisation: str) -> None:
        self._organisation = _organisation(profile, organisation)
        self._ca = _ca(profile, self._organisation)

    def new_identity(self, name: str, role: Role = "service") -> Identity:
        """Register ``name`` and enroll it; a wallet that the CA knows already is enrolled once more."""
        folder = self._folder(name)  # before anything is asked for: it says what the profile lacks
        registrar = self._registrar()
        with open_ca(self._ca) as ca:
            secret = self._register(ca, registrar, name, role)
            return _enrolled(ca, ca.enroll(name, secret), name, folder)

    def renewed(self, identity: Identity, role: Role) -> Identity:
        """Enroll once more, as whom it is; by the registrar if its certificate is revoked, or has ended."""
        folder = self._folder(identity.name)
        with open_ca(self._ca) as ca:
            try:
                enrollment = ca.reenroll(Enrollment(identity.certificate_pem, identity.key, ""))
            except CAError as error:
                if error.code != NOT_AUTHENTICATED:
                    raise
                return self.new_identity(identity.name, role)
            return _enrolled(ca, enrollment, identity.name, folder)

    def revoke(self, certificate_pem: str) -> str:
        """Put one certificate on the CA's revocation list; the new list, in PEM."""
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        issuer = (key_id.key_identifier or b"").hex()
        registrar = self._registrar()
        with open_ca(self._ca) as ca:
            ca.revoke(by=registrar, serial=f"{certificate.serial_number:x}", aki=issuer)
            return ca.gencrl(by=registrar)

    def _register(self, ca: CAClient, registrar: Enrollment, name: str, role: Role) -> str:
        secret, attributes = secrets.token_urlsafe(SECRET_BYTES), [Attribute(ROLE_ATTRIBUTE, role)]
        try:
            ca.register(name, by=registrar, kind=CLIENT, secret=secret, attributes=attributes)
        except CAError as error:
            if error.code != ALREADY_REGISTERED:
                raise
            known = ca.identity(name, by=registrar)
            if all(one["name"] != ROLE_ATTRIBUTE for one in known.get("attrs") or ()):
                raise Fault(
                    f"{name} is known to {self._ca.url} already, and is no wallet: take another name"
                ) from error
            ca.modify_identity(name, by=registrar, secret=secret, attributes=attributes)
        return secret

    def _registrar(self) -> Enrollment:
        files = self._organisation.identity(REGISTRAR)
        try:
            key = load_pem_private_key(files.key.read_bytes(), password=None)
            certificate = files.certificate.read_text()
        except (OSError, ValueError, TypeError) as error:
            raise ProfileError(f"the registrar's {files.key} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ProfileError(f"{files.key} is not a key of an elliptic curve, as fabric-ca's are")
        return Enrollment(certificate, key, "")

    def _folder(self, name: str) -> Path:
        identities = self._organisation.identities
        if identities is None:
            raise ProfileError(
                f"the profile names no folder of identities for {self._organisation.name}: "
                f"that of its {REGISTRAR} is needed, and that of the wallet is to be made there"
            )
        return identities / name / "tls"


def authorities(profile: Profile) -> list[str]:
    """The certificates (PEM) of all organisations' CAs, one each: who may issue wallets of a ledger."""
    found: list[str] = []
    for organisation in profile.organisations.values():
        if organisation.ca is not None:
            found += _split(_chain(organisation.ca))
    if not found:
        raise ProfileError(f"{profile.path} names no organisation's fabric-ca (organisations.NAME.ca)")
    return list(dict.fromkeys(found))


def issuer_of(profile: Profile, certificate_pem: str) -> str:
    """The organisation whose CA has issued a certificate; a fault if it is none of the profile's."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    for organisation in profile.organisations.values():
        if organisation.ca is not None and _has_issued(_chain(organisation.ca), certificate):
            return organisation.name
    issuer = certificate.issuer.rfc4514_string()
    raise Fault(
        f"the wallet's certificate was issued by {issuer}, which is no organisation's CA in {profile.path}, "
        "though one may have its name (of a network that was removed?): "
        "name the home that belongs to this network with --home, or another ledger with --ledger"
    )


def open_ca(ca: CertificateAuthority) -> CAClient:
    """A client of a CA that a profile names."""
    return CAClient(ca.url, tls_ca=ca.tls_ca or None, name=ca.name)


def _organisation(profile: Profile, name: str) -> Organisation:
    if name not in profile.organisations:
        raise ProfileError(
            f"{profile.path} has no organisation {name}; there are {', '.join(profile.organisations)}"
        )
    return profile.organisations[name]


def _ca(profile: Profile, organisation: Organisation) -> CertificateAuthority:
    if organisation.ca is None:
        raise ProfileError(
            f"{profile.path} does not say where {organisation.name}'s fabric-ca is "
            f"(organisations.{organisation.name}.ca): wallets get their certificates from it"
        )
    return organisation.ca


def _chain(authority: CertificateAuthority) -> str:
    with open_ca(authority) as ca:
        return ca.info().chain


def _split(chain: str) -> list[str]:
    return [
        one.public_bytes(Encoding.PEM).decode() for one in x509.load_pem_x509_certificates(chain.encode())
    ]


def _has_issued(chain: str, certificate: x509.Certificate) -> bool:
    for authority in x509.load_pem_x509_certificates(chain.encode()):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _enrolled(ca: CAClient, enrollment: Enrollment, name: str, folder: Path) -> Identity:
    """The identity that was enrolled, once it has a certificate to connect with by TLS.

    A key that is there for TLS stays: a process that reads the files in between has a pair that fits.
    """
    key = _tls_key(folder)
    tls = ca.reenroll(enrollment, profile="tls", hosts=(name,), key=key)
    write_tls(folder, enrollment.ca_chain, tls)
    return Identity(enrollment.key, x509.load_pem_x509_certificate(enrollment.certificate.encode()))


def _tls_key(folder: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = load_pem_private_key(tls_files(folder).key.read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None

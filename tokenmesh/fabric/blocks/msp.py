"""Membership of an organisation, as its MSP in the channel's configuration says: whose certificates count,
and as what.

Where the rules come from: ``msp/`` in Fabric's source. As there, a certificate's time is not looked at (who
hands a transaction in is asked for one that is still good by the peer and the orderer; a block is validated
years later too), and a revoked certificate counts for nothing from the moment its CRL is in the
configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import sha3_256, sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.x509.oid import NameOID
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from google.protobuf.message import DecodeError

from tokenmesh.fabric.blocks.envelopes import Creator, read_creator
from tokenmesh.fabric.errors import BlockError
from tokenmesh.fabric.signing import CURVE_ORDERS

MEMBER, ADMIN, CLIENT, PEER, ORDERER = range(5)
"""The roles of ``MSPRole``."""
ROLE, ORGANIZATION_UNIT, IDENTITY, ANONYMITY, COMBINED = range(5)
"""The classifications of ``MSPPrincipal``."""
CHAIN_MAX = 10
DEPTH_MAX = 20
IDENTITIES_MAX = 4_096
"""So many certificates are remembered as they were found."""


class Member:
    """Somebody with a certificate that an organisation's authorities may or may not have issued."""

    def __init__(self, msp: Msp, creator: Creator) -> None:
        self.msp = msp
        self.msp_id = creator.msp_id
        self.certificate = _certificate(creator.certificate)
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self._key = self.certificate.public_key()
        chain = msp.chain_of(self.certificate)
        self.issued_by = sha256(b"".join(_der(one) for one in chain)).digest() if chain else b""
        self.units = [
            str(unit.value)
            for unit in self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        ]
        self.problem = msp.problem_of(self, chain)
        """Why it counts for nothing; "" if it does."""

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is of this member's key, in the form that Fabric accepts."""
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, message)
                return True
            if not isinstance(self._key, ec.EllipticCurvePublicKey) or not _is_low(
                signature, self._key.curve
            ):
                return False
            digest = self.msp.digest(message)
            self._key.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True


class Msp:
    """One organisation's ``FabricMSPConfig``."""

    def __init__(self, octets: bytes) -> None:
        config = msp_config_pb2.FabricMSPConfig.FromString(octets)
        self.id = str(config.name)
        self.roots = [_certificate(pem) for pem in config.root_certs]
        self.intermediates = [_certificate(pem) for pem in config.intermediate_certs]
        self._admins = {_der(_certificate(pem)) for pem in config.admins}
        self._revoked = [_revocations(crl) for crl in config.revocation_list]
        self._units = [
            (str(one.organizational_unit_identifier), self._issuer(one.certificate))
            for one in config.organizational_unit_identifiers
        ]
        ous = config.fabric_node_ous
        self._tells_apart = bool(ous.enable)
        self._roles: dict[int, tuple[str, bytes]] = {}
        named = {
            CLIENT: ous.client_ou_identifier,
            PEER: ous.peer_ou_identifier,
            ADMIN: ous.admin_ou_identifier,
            ORDERER: ous.orderer_ou_identifier,
        }
        for role, one in named.items():
            if one.organizational_unit_identifier:
                self._roles[role] = (
                    str(one.organizational_unit_identifier),
                    self._issuer(one.certificate),
                )
        sha3 = config.crypto_config.signature_hash_family == "SHA3"
        self._hash = sha3_256 if sha3 else sha256

    def digest(self, message: bytes) -> bytes:
        """What is signed of a message."""
        return self._hash(message).digest()

    def chain_of(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """The authorities above a certificate, up to a root; none if it isn't this organisation's."""
        moment = certificate.not_valid_before_utc + timedelta(seconds=1)
        chain: list[x509.Certificate] = []
        below = certificate
        while len(chain) < CHAIN_MAX:
            root = _issuer_of(below, self.roots, moment)
            if root is not None:
                return [*chain, root]
            above = _issuer_of(below, self.intermediates, moment)
            if above is None or above in chain:
                return []
            chain.append(above)
            below = above
        return []

    def problem_of(self, member: Member, chain: Sequence[x509.Certificate]) -> str:
        """Why a certificate does not count as the organisation's; "" if it does."""
        if not chain:
            return f"none of {self.id}'s authorities has issued its certificate"
        if _is_authority(member.certificate):
            return "its certificate is an authority's"
        key = _key_id(chain[0])
        if any(
            issuer == key and member.certificate.serial_number in serials and crl.is_signature_valid(issued)
            for issuer, serials, crl in self._revoked
            if (issued := _signing_key(chain[0])) is not None
        ):
            return "its certificate is revoked"
        if self._units and not any(
            unit in member.units and issuer in (b"", member.issued_by) for unit, issuer in self._units
        ):
            return f"its certificate names no organizational unit that {self.id} knows"
        return self._role_problem(member) if self._tells_apart else ""

    def _role_problem(self, member: Member) -> str:
        """With NodeOUs, everybody is exactly one of client, peer, administrator and orderer."""
        known = dict(self._roles.values())
        roles = [unit for unit in member.units if unit in known]
        if len(roles) != 1:
            return f"its certificate names {len(roles)} of the roles that {self.id} tells apart, not one"
        issuer = known[roles[0]]
        if issuer and issuer != member.issued_by:
            return f"its role {roles[0]} was not given by the authority that may"
        return ""

    def satisfies(self, member: Member, principal: Any, depth: int = 0) -> bool:
        """Whether a member is what an ``MSPPrincipal`` asks for."""
        kind, octets = principal.principal_classification, principal.principal
        if kind == COMBINED and depth < DEPTH_MAX:
            parts = msp_principal_pb2.CombinedPrincipal.FromString(octets).principals
            return bool(parts) and all(self.satisfies(member, part, depth + 1) for part in parts)
        if kind == ROLE:
            role = msp_principal_pb2.MSPRole.FromString(octets)
            return bool(role.msp_identifier == self.id) and self._has_role(member, role.role)
        if member.problem:
            return False
        if kind == ORGANIZATION_UNIT:
            unit = msp_principal_pb2.OrganizationUnit.FromString(octets)
            return (
                unit.msp_identifier == self.id
                and unit.organizational_unit_identifier in member.units
                and unit.certifiers_identifier == member.issued_by
            )
        if kind == IDENTITY:
            who = read_creator(octets)
            return who.msp_id == self.id and _der(_certificate(who.certificate)) == member.der
        if kind == ANONYMITY:
            asked = msp_principal_pb2.MSPIdentityAnonymity.FromString(octets).anonymity_type
            return bool(asked == msp_principal_pb2.MSPIdentityAnonymity.NOMINAL)
        return False

    def _has_role(self, member: Member, role: int) -> bool:
        if role == ADMIN and member.der in self._admins:
            return True
        if member.problem:
            return False
        if role == MEMBER:
            return True
        return self._tells_apart and role in self._roles and self._roles[role][0] in member.units

    def _issuer(self, pem: bytes) -> bytes:
        """What :attr:`Member.issued_by` is for those whom the authority in ``pem`` has certified."""
        if not pem:
            return b""
        authority = _certificate(pem)
        above = [] if authority in self.roots else self.chain_of(authority)
        return sha256(b"".join(_der(one) for one in (authority, *above))).digest()


class Members:
    """All organisations of a channel; certificates are looked at once each."""

    def __init__(self, msps: Iterable[Msp]) -> None:
        self.msps = {msp.id: msp for msp in msps}
        self.member = lru_cache(IDENTITIES_MAX)(self._member)

    def _member(self, serialized: bytes) -> Member:
        """Whom a ``SerializedIdentity`` names. Raises :class:`BlockError` if that is nobody."""
        creator = read_creator(serialized)
        msp = self.msps.get(creator.msp_id)
        if msp is None:
            raise BlockError(f"there is no organisation {creator.msp_id!r} on the channel")
        try:
            return Member(msp, creator)
        except Exception as error:
            # The library has no common base for what it raises over malformed certificates, and nothing that
            # somebody wrote into one may stop a verification.
            raise BlockError(f"a certificate of {creator.msp_id} cannot be used: {error!r}") from error


def read_msp(octets: bytes) -> Msp:
    """An organisation from its ``MSPConfig``. Raises :class:`BlockError`."""
    try:
        config = msp_config_pb2.MSPConfig.FromString(octets)
        if config.type != 0:
            raise BlockError(f"an MSP of type {config.type}, and only certificates (type 0) are known here")
        return Msp(bytes(config.config))
    except (DecodeError, ValueError) as error:
        raise BlockError(f"an organisation's MSP cannot be read: {error}") from error


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BlockError(f"a certificate cannot be read: {error}") from error


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _issuer_of(
    certificate: x509.Certificate, authorities: Iterable[x509.Certificate], moment: Any
) -> x509.Certificate | None:
    for authority in authorities:
        if authority.subject != certificate.issuer or not _is_authority(authority):
            continue
        if not authority.not_valid_before_utc <= moment <= authority.not_valid_after_utc:
            continue
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            continue
        return authority
    return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _key_id(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return b""


def _signing_key(certificate: x509.Certificate) -> Any:
    key = certificate.public_key()
    return key if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) else None


def _revocations(octets: bytes) -> tuple[bytes, set[int], x509.CertificateRevocationList]:
    """Of a CRL: the key id of who issued it, and the serial numbers in it."""
    crl = x509.load_pem_x509_crl(octets) if octets.startswith(b"-----") else x509.load_der_x509_crl(octets)
    issuer = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return issuer or b"", {one.serial_number for one in crl}, crl


def _is_low(signature: bytes, curve: ec.EllipticCurve) -> bool:
    order = CURVE_ORDERS.get(curve.name)
    return order is not None and decode_dss_signature(signature)[1] <= order // 2

"""Who carries operations to a Fabric network: which identity signs the proposals, and by which peers.

The rules do not ask who the carrier is, only who has signed the operations. But Fabric does: a proposal comes
from a member of the channel. A wallet whose certificate an organisation of the network has issued is one, so
it carries its own operations; for any other wallet the profile's client does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tokenmesh.fabric.errors import ProfileError
from tokenmesh.fabric.gateway import (
    Gateway,
    Hash,
    Identity,
    Signer,
    Tls,
    connect_any,
    hash_none,
    hash_sha256,
    read_identity,
    read_signer,
)
from tokenmesh.fabric.profile import IdentityFiles, Organisation, Profile
from tokenmesh.fabric.signing import low_s
from tokenmesh_chaincode.documents import Signer as WalletSigner

AUTHORITY_FOLDERS = ("msp/cacerts", "msp/intermediatecerts")
IDENTITIES_READ_MAX = 16
"""So many identities of an organisation are looked into for its authorities' certificates: all have them."""


@runtime_checkable
class Certified(WalletSigner, Protocol):
    """A wallet that has its certificate at hand."""

    @property
    def certificate_pem(self) -> str: ...


class Carrier(NamedTuple):
    """An identity on the network: what signs, and with which TLS pair it connects to whose peers first."""

    organisation: str
    identity: Identity
    signer: Signer
    hash: Hash
    tls: IdentityFiles | None


def find_carrier(
    profile: Profile,
    wallet: WalletSigner | None,
    organisation: str | None = None,
    identity: str | None = None,
) -> Carrier:
    """The wallet itself where it is a member of the network, else the profile's client.

    With ``identity``, the one of that name in the profile; with ``organisation``, of that organisation.
    Raises :class:`~tokenmesh.fabric.errors.FabricError` if there is none.
    """
    if organisation is not None and organisation not in profile.organisations:
        raise ProfileError(
            f"{profile.path} has no organisation {organisation}; there are {', '.join(profile.organisations)}"
        )
    if identity is None and isinstance(wallet, Certified):
        home = _home_of(profile, wallet, organisation)
        if home is not None:
            return _as_itself(profile, wallet, home)
    files = profile.client(organisation, identity)
    return Carrier(
        organisation or profile.organisation,
        read_identity(files.msp_id, files.certificate),
        read_signer(files.key),
        hash_sha256,
        files,
    )


def connect_carrier(profile: Profile, carrier: Carrier) -> Gateway:
    """Connect to the peers of the carrier's organisation, and when they are gone to those of the others."""
    peers = replace(profile, organisation=carrier.organisation).peers
    if not peers:
        raise ProfileError(f"{profile.path} names no peer")
    nobody = IdentityFiles("", Path(), Path())
    return connect_any(
        [(peer.address, Tls.of(peer, carrier.tls or nobody)) for peer in peers],
        carrier.identity,
        carrier.signer,
        hash=carrier.hash,
    )


def _home_of(profile: Profile, wallet: Certified, organisation: str | None) -> Organisation | None:
    """The organisation that has issued the wallet's certificate: first those where it is known by name."""
    certificate = x509.load_pem_x509_certificate(wallet.certificate_pem.encode())
    named = [organisation] if organisation is not None else [profile.organisation, *profile.organisations]
    candidates = [profile.organisations[name] for name in dict.fromkeys(named)]
    candidates.sort(key=lambda one: _folder(one, wallet.name) is None)
    for candidate in candidates:
        if any(_has_issued(authority, certificate) for authority in _authorities(candidate, wallet.name)):
            return candidate
    return None


def _as_itself(profile: Profile, wallet: Certified, home: Organisation) -> Carrier:
    def sign(message: bytes, /) -> bytes:
        raw = wallet.sign(message)
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        return low_s(encode_dss_signature(r, s), ec.SECP256R1())

    identity = Identity(home.msp_id, wallet.certificate_pem.encode())
    return Carrier(home.name, identity, sign, hash_none, _tls_files(profile, wallet.name, home))


def _tls_files(profile: Profile, name: str, home: Organisation) -> IdentityFiles | None:
    """Whose TLS pair the wallet's connections use: its own, else that of the profile's client."""
    for organisation, identity in (
        (home, name),
        (profile.organisations[profile.organisation], profile.identity),
    ):
        certificate, key = organisation.tls_pair(identity)
        if certificate is not None:
            return IdentityFiles(organisation.msp_id, Path(), Path(), certificate, key)
    return None


def _folder(organisation: Organisation, name: str) -> Path | None:
    folder = organisation.identities / name if organisation.identities is not None else None
    return folder if folder is not None and folder.is_dir() else None


def _authorities(organisation: Organisation, name: str) -> Iterator[x509.Certificate]:
    """The authorities of an organisation, as far as the profile and the identities at hand name them."""
    own = _folder(organisation, name)
    others = sorted(organisation.identities.glob("*")) if organisation.identities is not None else []
    for identity in islice(([own] if own is not None else []) + others, IDENTITIES_READ_MAX):
        for folder in AUTHORITY_FOLDERS:
            for file in sorted((identity / folder).glob("*")):
                yield from x509.load_pem_x509_certificates(file.read_bytes())
    nodes = [*organisation.peers.values(), *organisation.orderers.values()]
    for pem in dict.fromkeys(node.tls_ca for node in nodes):
        yield from x509.load_pem_x509_certificates(pem.encode())


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

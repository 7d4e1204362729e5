"""Begins ledgers, and knows who issues their wallets' certificates: the home's own authority for an embedded
ledger, the organisations' CAs for one on Fabric."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenmesh.cli.desk import Fault
from tokenmesh.cli.session import GOVERNANCE, Session
from tokenmesh.identity import CertificateAuthority, Issuer, Role, Wallet, wallet_path
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_chaincode.documents import new_id
from tokenmesh_chaincode.rules import default_policy

if TYPE_CHECKING:  # the extra `fabric` need not be installed for an embedded ledger
    from tokenmesh.fabric.profile import Profile
    from tokenmesh.ledger.fabric.opening import Place

SERVICES = "services"
"""The organisation of services' wallets, where there is one of that name."""


def found(session: Session) -> list[str]:
    """Make what is not there of authority, governance and ledger; the answer names what was made."""
    made: list[str] = []
    if session.on_fabric:
        _found_on_fabric(session, made)
    else:
        _found_embedded(session, made)
    return made


def issuer(session: Session, role: Role, organisation: str | None = None) -> Issuer:
    """Who issues a new wallet's certificate."""
    if session.on_fabric:
        from tokenmesh.cli.enrolling import FabricAuthority

        profile, place = network_of(session)
        return FabricAuthority(profile, organisation or _home_of(role, profile, place))
    if organisation is not None:
        raise Fault("--organisation is for ledgers on Fabric: an embedded one has the home's own authority")
    return CertificateAuthority.load(session.home, passphrase=session.passphrase)


def reissuer(session: Session, wallet: Wallet) -> Issuer:
    """Who issues the next certificate of a wallet: whoever has issued the one that it has."""
    if session.on_fabric:
        from tokenmesh.cli.enrolling import FabricAuthority, issuer_of

        profile, _ = network_of(session)
        return FabricAuthority(profile, issuer_of(profile, wallet.certificate_pem))
    return CertificateAuthority.load(session.home, passphrase=session.passphrase)


def _found_embedded(session: Session, made: list[str]) -> None:
    home = session.home
    if (home / "ca" / "identity.pem").exists():
        authority = CertificateAuthority.load(home, passphrase=session.passphrase)
    else:
        authority = CertificateAuthority.create(home, passphrase=session.new_passphrase)
        made.append("certificate authority")
    governance = _governance(session, authority, made)
    path = session.ledger_path()
    if not path.exists():
        EmbeddedLedger.create(
            path,
            governance,
            ca=[authority.certificate_pem],
            governors={GOVERNANCE: governance.certificate_pem},
            policy=default_policy(),
            nonce=new_id(),
        ).close()
        made.append("ledger")


def _found_on_fabric(session: Session, made: list[str]) -> None:
    from tokenmesh.cli.enrolling import authorities, issuer_of
    from tokenmesh.ledger.fabric import FabricLedger
    from tokenmesh.ledger.fabric.opening import connect_place

    profile, place = network_of(session)
    governance = _governance(session, issuer(session, "governor"), made)
    gateway, channel, _ = connect_place(place, None)
    with gateway:
        begun = (
            gateway.get_network(channel.name)
            .get_contract(channel.chaincode)
            .evaluate("ask", ["domain", "[]"])
        )
        if json.loads(begun):
            return
        issuer_of(profile, governance.certificate_pem)
        FabricLedger.create(
            gateway,
            channel.name,
            channel.chaincode,
            ca=authorities(profile),
            governors={GOVERNANCE: governance.certificate_pem},
            policy=default_policy(),
            nonce=new_id(),
        ).close()
    made.append("ledger")


def _governance(session: Session, authority: Issuer, made: list[str]) -> Wallet:
    if wallet_path(session.home, GOVERNANCE).exists():
        return session.wallet(GOVERNANCE)
    made.append(f"wallet {GOVERNANCE!r}")
    return Wallet.create(session.home, GOVERNANCE, authority, "governor", passphrase=session.new_passphrase)


def network_of(session: Session) -> tuple[Profile, Place]:
    """The network that the ledger's url names, and what else it says."""
    from tokenmesh.fabric.profile import load_profile
    from tokenmesh.ledger.fabric.opening import read_url

    place = read_url(session.settings.ledger)
    return load_profile(place.profile), place


def _home_of(role: Role, profile: Profile, place: Place) -> str:
    """Which organisation a wallet belongs to, unless it is said."""
    if role == "service" and SERVICES in profile.organisations:
        return SERVICES
    return place.organisation or profile.organisation

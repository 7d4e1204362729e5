"""``wallet revoke``: end a certificate at once, when its key may be in other hands.

The ledgers come first, for what the rules refuse is refused whoever carries it. On Fabric the organisation's
CA then puts the certificate on its revocation list, and the channels of a network of this machine get the
list; who runs the network elsewhere is told what is left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tokenmesh.cli import founding
from tokenmesh.cli.desk import Desk, Fault, answer
from tokenmesh.cli.options import as_governor, pass_session, wallet_name
from tokenmesh.cli.output import say, warn
from tokenmesh.cli.session import Session
from tokenmesh.cli.wallets import known_wallet
from tokenmesh.errors import TokenmeshError
from tokenmesh.ledger.base import Certificate, WalletRecord
from tokenmesh.places import without_secrets

if TYPE_CHECKING:  # the extra `fabric` need not be installed for an embedded ledger
    from tokenmesh.fabric.profile import Profile


@click.command()
@click.argument("name", type=wallet_name)
@click.option(
    "--certificate",
    metavar="X5T",
    help="Which of its certificates, as 'wallet show' names them. [default: the only one that is good]",
)
@as_governor
@pass_session
def revoke(session: Session, name: str, certificate: str | None, acting: str) -> None:
    """End a wallet's certificate at once, for good.

    Operations signed with its key are refused from now on, and so are contracts made later; what services
    have done for it before can still be settled. One governor is enough.
    """
    with session.acting(acting) as desk:
        record = known_wallet(answer(desk.ledger.wallet(name)), name)
        ended = _chosen(record, certificate, int(session.clock()))
        if not _revoke(desk, record, ended):
            return
        seconds = answer(desk.ledger.policy())["propagation_s"]
    say(f"Certificate {ended.x5t} of {name} is revoked; services know within {seconds} s.")
    missed = [*_elsewhere(session, name, ended, acting), *_at_the_authority(session, ended)]
    say(f"To give the wallet a new key: tokenmesh wallet rotate {name} --as {acting}")
    if missed:
        raise Fault("not everywhere: " + "; ".join(missed))


def _chosen(record: WalletRecord, x5t: str | None, now: int) -> Certificate:
    """The certificate that is meant; a fault that names those there are if that is not clear."""
    good = [
        one
        for one in record.certificates
        if one.revoked_at is None and (one.until is None or now <= one.until)
    ]
    found = [one for one in record.certificates if one.x5t == x5t] if x5t is not None else good
    if len(found) == 1:
        return found[0]
    listed = ", ".join(one.x5t for one in (record.certificates if x5t is not None else good))
    if x5t is not None:
        raise Fault(f"{record.name} has no certificate {x5t}; it has {listed}")
    if not found:
        raise Fault(f"{record.name} has no certificate that is good: there is none to revoke")
    raise Fault(f"{record.name} has {len(found)} certificates that are good: say --certificate with {listed}")


def _revoke(desk: Desk, record: WalletRecord, certificate: Certificate) -> bool:
    """Have a ledger's rules refuse the certificate; False if that is only proposed now."""
    argument = {"name": record.name, "x5t": certificate.x5t}
    if record.role == "governor" and record.name != desk.wallet.name:
        return desk.govern("revoke", argument)
    desk.do("revoke", argument)
    return True


def _elsewhere(session: Session, name: str, certificate: Certificate, acting: str) -> list[str]:
    """Revoke it on the other ledgers that this key stands on; why not, where that could not be done."""
    missed = []
    for url in session.ledgers():
        if url == session.settings.ledger:
            continue
        try:
            with session.acting(acting, url) as desk:
                record = answer(desk.ledger.wallet(name))
                if record is None or all(one.x5t != certificate.x5t for one in record.certificates):
                    continue
                if _revoke(desk, record, certificate):
                    say(f"It is revoked on {without_secrets(url)} too.")
        except (TokenmeshError, Fault) as error:
            missed.append(f"{without_secrets(url)}: {error}")
    return missed


def _at_the_authority(session: Session, certificate: Certificate) -> list[str]:
    """Have Fabric itself refuse it as an identity; why not, where that could not be done."""
    if not session.on_fabric:
        return []
    from tokenmesh.cli.enrolling import FabricAuthority, issuer_of
    from tokenmesh.fabric.errors import FabricError

    profile, _ = founding.network_of(session)
    try:
        organisation = issuer_of(profile, certificate.pem)
        crl = FabricAuthority(profile, organisation).revoke(certificate.pem)
        say(f"The CA of {organisation} has it on its revocation list.")
        if _tell_channels(profile, organisation, crl):
            say("The channels refuse it too.")
        else:
            warn(
                f"the channels do not know: whoever administers {organisation} puts the revocation list of "
                "its CA into their configuration; the ledger's rules refuse the certificate already"
            )
    except (FabricError, Fault) as error:
        return [f"the ledger's rules refuse it, but Fabric does not yet: {error}"]
    return []


def _tell_channels(profile: Profile, organisation: str, crl: str) -> bool:
    """Put the revocation list into the channels' configuration, if the network is one of this machine."""
    from tokenmesh.fabric.network import Network, configuration

    network = Network(profile.path.parent)
    if network.layout.profile != profile.path.resolve() or not network.layout.plan.exists():
        return False
    for channel in network.plan.spec.channels:
        msp = profile.organisations[organisation].msp_id
        network.update_channel(channel, configuration.set_revoked(msp, crl))
    return True

"""Tells a wallet's new certificate to every ledger that the wallet is on, before its key is used.

One key in a home may stand on several ledgers, the domains of a Mesh. A ledger that is not told would refuse
all that the new key signs, so none is told before every one has answered.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

from tokenmesh.cli.desk import Desk, Fault, answer
from tokenmesh.cli.session import Session
from tokenmesh.identity import Issuer, Wallet, prepare_rotation
from tokenmesh.keyfiles import Identity
from tokenmesh.ledger.base import WalletRecord
from tokenmesh.places import without_secrets


class Announced(NamedTuple):
    """The wallet's next identity, and for how many seconds the old one stays good.

    ``told`` are the ledgers that know the new certificate, ``proposed`` those whose governors have yet to
    approve it.
    """

    identity: Identity
    overlap_s: int
    told: list[str]
    proposed: list[str]


def announce(session: Session, wallet: Wallet, issuer: Issuer, acting: str) -> Announced:
    """Have ``acting`` tell the ledgers of the next certificate of ``wallet``; twice is as good as once."""
    with ExitStack() as stack:
        desks = [(url, stack.enter_context(session.acting(acting, url))) for url in session.ledgers()]
        found = [(url, desk, answer(desk.ledger.wallet(wallet.name))) for url, desk in desks]
        named = session.settings.ledger
        known = [
            (url, desk, record)
            for url, desk, record in found
            # Elsewhere another key may have the same name, and is not this one's to follow.
            if record is not None and (url == named or _has(record, wallet))
        ]
        if not known:
            raise Fault(
                f"there is no wallet {wallet.name!r} on this ledger: 'tokenmesh wallet list' shows those "
                "there are"
            )
        policies = [answer(desk.ledger.policy()) for _, desk, _ in known]
        following = prepare_rotation(session.home, wallet, issuer, passphrase=session.passphrase)
        told: list[str] = []
        proposed: list[str] = []
        for url, desk, record in known:
            (told if _tell(desk, record, following) else proposed).append(without_secrets(url))
    return Announced(following, min(int(one["rotation_overlap_s"]) for one in policies), told, proposed)


def _has(record: WalletRecord, wallet: Wallet) -> bool:
    return any(one.x5t == wallet.x5t for one in record.certificates)


def _tell(desk: Desk, record: WalletRecord, following: Identity) -> bool:
    """Whether the ledger knows the certificate now."""
    if record.certificates[-1].x5t == following.x5t:
        return True
    argument = {"name": record.name, "cert": following.certificate_pem}
    if desk.wallet.name == record.name:
        desk.do("rotate", argument)
        return True
    return desk.govern("rotate", argument)

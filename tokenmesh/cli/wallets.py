"""``init``, which makes a domain, and ``wallet create|list|show|update|rotate``."""

from __future__ import annotations

from typing import Any

import click

from tokenmesh.cli import founding
from tokenmesh.cli.desk import Desk, Fault, answer
from tokenmesh.cli.options import TOKENS, MeshGroup, as_governor, as_json, pass_session, wallet_name
from tokenmesh.cli.output import moment, print_facts, print_json, print_table, say, warn
from tokenmesh.cli.rotating import announce
from tokenmesh.cli.session import GOVERNANCE, Session
from tokenmesh.identity import (
    Role,
    Wallet,
    certificate_end,
    expiry_warning,
    finish_rotation,
    wallet_path,
)
from tokenmesh.ledger.base import Balance, WalletRecord
from tokenmesh.ledger.embedded import SCHEME
from tokenmesh_chaincode.documents import derived_id
from tokenmesh_chaincode.limits import TOKENS_MAX

SUPPLY = 1_000_000

encrypt = click.option(
    "--passphrase", "encrypt", is_flag=True, help="Ask for a passphrase and encrypt the new key with it."
)


@click.command()
@click.option(
    "--supply",
    type=click.IntRange(0, TOKENS_MAX),
    default=SUPPLY,
    show_default=True,
    help="How many tokens to mint.",
)
@encrypt
@pass_session
def init(session: Session, supply: int, encrypt: bool) -> None:
    """Make a domain: authority, governance, ledger and supply.

    On Fabric (--ledger fabric:///path/to/profile.yaml) the organisations' CAs are the authorities, and the
    chaincode begins the ledger.

    What is there already stays as it is: a run that broke off is finished by the next one, and one with
    nothing to do says so and ends well.
    """
    if encrypt:
        session.ask_new_passphrase()
    made = founding.found(session)
    ledger = session.settings.ledger.removeprefix(SCHEME)
    with session.acting(GOVERNANCE) as desk:
        _check_governed(desk, ledger)
        minted = answer(desk.ledger.supply()).minted
        if supply and not minted:
            # The id is always the same: two that start at once mint one supply.
            domain = desk.ledger.domain
            desk.do("mint", {"tokens": supply}, id=derived_id(domain, GOVERNANCE, GOVERNANCE, "init"))
            minted = supply
            made.append(f"{supply:,} tokens")
    if made:
        say(f"Made in {session.home}: {', '.join(made)}.")
    else:
        say(f"Already there, nothing changed: {ledger} with {minted:,} tokens minted so far.")
    say("Next: tokenmesh wallet create NAME --tokens N" if made else "More tokens: tokenmesh mint N")


def _check_governed(desk: Desk, ledger: str) -> None:
    record = answer(desk.ledger.wallet(GOVERNANCE))
    if record is None or all(one.x5t != desk.wallet.x5t for one in record.certificates):
        raise Fault(
            f"the ledger {ledger} is governed by another key than the one in {desk.wallet.path}: "
            "name the home that it belongs to with --home, or another ledger with --ledger"
        )


@click.group(cls=MeshGroup)
def wallet() -> None:
    """Make, list, show, rotate and revoke wallets."""


@wallet.command("create")
@click.argument("name", type=wallet_name)
@click.option("--tokens", type=TOKENS, help="Grant it so many at once.")
@click.option("--url", help="Where the service is found, such as http://127.0.0.1:8000.")
@click.option("--governor", is_flag=True, help="Make it one that mints, grants, freezes and sets policy.")
@click.option(
    "--organisation",
    metavar="NAME",
    help="On Fabric: whose CA issues its certificate. [default: services; of a governor: the client's]",
)
@encrypt
@as_governor
@pass_session
def create(
    session: Session,
    *,
    name: str,
    tokens: int | None,
    url: str | None,
    governor: bool,
    organisation: str | None,
    encrypt: bool,
    acting: str,
) -> None:
    """Make a wallet: a key and certificate in the home, and its place on the ledger."""
    role: Role = "governor" if governor else "service"
    with session.acting(acting) as desk:
        if answer(desk.ledger.wallet(name)) is not None:
            raise Fault(
                f"there is a wallet {name!r} on the ledger already: see 'tokenmesh wallet show {name}'"
            )
        if tokens:
            desk.gather(tokens)  # before anything is made: it says how to mint when they are lacking
        made = _own_identity(session, name, role, organisation, encrypt=encrypt)
        argument = {"name": name, "cert": made.certificate_pem, "role": role, "url": url}
        if not governor:
            desk.do("register", argument)
        elif not desk.govern("register", argument):
            return
        if tokens:
            desk.do("grant", {"to": name, "tokens": tokens})
    granted = f" with {tokens:,} tokens" if tokens else ""
    say(f"Wallet {name} ({role}) is on the ledger{granted}; its key is {made.path}.")


def _own_identity(
    session: Session, name: str, role: Role, organisation: str | None, *, encrypt: bool
) -> Wallet:
    """A new identity, or the one that a run which broke off before registering it has left."""
    if wallet_path(session.home, name).exists():
        made = session.wallet(name)
        if made.role != role:
            raise Fault(
                f"{made.path} is there already, with the role {made.role!r}: remove it, "
                "or create the wallet with the role that it has"
            )
        return made
    authority = founding.issuer(session, role, organisation)
    if encrypt:
        session.ask_new_passphrase()
    return Wallet.create(session.home, name, authority, role, passphrase=session.new_passphrase)


@wallet.command("list")
@as_json
@pass_session
def list_wallets(session: Session, as_json: bool) -> None:
    """All wallets on the ledger."""
    with session.reading() as ledger:
        records = answer(ledger.wallets())
        balances = [answer(ledger.balance(record.name)) for record in records]
    described = [_described(session, *pair) for pair in zip(records, balances, strict=True)]
    if as_json:
        print_json(described)
        return
    print_table(
        ["name", "role", "spendable", "credits", "set aside", "state", "url"],
        [
            [
                record.name,
                record.role,
                balance.spendable,
                balance.credits,
                balance.held + balance.allowed,
                "frozen" if record.frozen_at is not None else "active",
                record.url,
            ]
            for record, balance in zip(records, balances, strict=True)
        ],
        empty="There are no wallets.",
        folding=["url"],
    )
    for record in records:
        _warn_of_end(session, record)


@wallet.command("show")
@click.argument("name", type=wallet_name)
@as_json
@pass_session
def show(session: Session, name: str, as_json: bool) -> None:
    """One wallet: its balance, its certificates and whether it is frozen."""
    with session.reading() as ledger:
        record = known_wallet(answer(ledger.wallet(name)), name)
        balance = answer(ledger.balance(name))
    described = _described(session, record, balance)
    if as_json:
        print_json(described)
        return
    frozen = f"frozen since {moment(record.frozen_at)}" if record.frozen_at is not None else "active"
    facts: list[tuple[str, object]] = [
        ("name", record.name),
        ("role", record.role),
        ("state", frozen),
        ("url", record.url),
        ("registered", moment(record.created)),
        ("key in this home", described["key"]),
        *((key.replace("allowed", "in allowances"), tokens) for key, tokens in balance._asdict().items()),
    ]
    for one in record.certificates:
        newest = one is record.certificates[-1]
        good = f"in use, ends {certificate_end(one.pem):%Y-%m-%d}" if newest else f"until {moment(one.until)}"
        if one.revoked_at is not None:
            good = f"revoked {moment(one.revoked_at)}"
        facts.append(("certificate", f"{one.x5t}, since {moment(one.since)}, {good}"))
    print_facts(facts)
    _warn_of_end(session, record)


@wallet.command("update")
@click.argument("name", type=wallet_name)
@click.option("--url", required=True, help="Where the service is found from now on; '' for nowhere.")
@as_governor
@pass_session
def update(session: Session, name: str, url: str, acting: str) -> None:
    """Change where a service is found; consumers that look it up go there."""
    with session.acting(acting) as desk:
        desk.do("update", {"name": name, "url": url or None})
    say(f"Wallet {name} is found at {url}." if url else f"Wallet {name} has no url any more.")


@wallet.command("rotate")
@click.argument("name", type=wallet_name)
@click.option(
    "--as",
    "acting",
    type=wallet_name,
    metavar="NAME",
    help="The wallet that signs: NAME itself, which is the default, or a governor.",
)
@pass_session
def rotate(session: Session, name: str, acting: str | None) -> None:
    """Give a wallet a new key and certificate; what is in flight stays valid.

    The ledger learns the new certificate first, and accepts the old one for a while longer (the policy's
    rotation_overlap_s); running services take the new key up within a second. A rotation that broke off
    is finished by the next one. A key that stands on several ledgers (TOKENMESH_DOMAINS) is told to all.
    """
    following_after = session.wallet(name)
    authority = founding.reissuer(session, following_after)
    following, overlap, told, proposed = announce(session, following_after, authority, acting or name)
    if proposed:
        say(f"Once it is approved, 'tokenmesh wallet rotate {name}' puts the new key in its place.")
        return
    finish_rotation(session.home, name)
    say(f"Wallet {name} signs with a new key now; its certificate ends {following.not_after:%Y-%m-%d}.")
    if len(told) > 1:
        say(f"{len(told)} ledgers know it: {', '.join(told)}.")
    say(f"What the old key signed stays valid for {overlap} s; services take the new one up by themselves.")


def known_wallet(record: WalletRecord | None, name: str) -> WalletRecord:
    """``record``, or a fault that says how to find the right name."""
    if record is None:
        raise Fault(
            f"there is no wallet {name!r} on this ledger: 'tokenmesh wallet list' shows those there are"
        )
    return record


def _described(session: Session, record: WalletRecord, balance: Balance) -> dict[str, Any]:
    return {
        "name": record.name,
        "role": record.role,
        "url": record.url,
        "created": record.created,
        "frozen_at": record.frozen_at,
        "frozen_since": record.frozen_since,
        "balance": balance._asdict(),
        "key": wallet_path(session.home, record.name).exists(),
        "certificates": [
            {
                "x5t": one.x5t,
                "since": one.since,
                "until": one.until,
                "revoked_at": one.revoked_at,
                "revoked_since": one.revoked_since,
                "not_after": int(certificate_end(one.pem).timestamp()),
            }
            for one in record.certificates
        ],
    }


def _warn_of_end(session: Session, record: WalletRecord) -> None:
    warn(expiry_warning(record.name, certificate_end(record.certificates[-1].pem), session.clock()))

"""What governors do: mint, burn, grant, freeze, unfreeze, policy, enforce; and propose and approve, where the
policy asks for more than one of them."""

from __future__ import annotations

import json
from typing import Any, TextIO

import click

from tokenmesh.cli.desk import Fault, answer
from tokenmesh.cli.options import TOKENS, MeshGroup, as_governor, as_json, pass_session, wallet_name
from tokenmesh.cli.output import brief, moment, print_facts, print_json, print_table, say
from tokenmesh.cli.session import Session
from tokenmesh.ledger.base import WalletRecord
from tokenmesh_chaincode.rules import check_policy

POLICY_BYTES_MAX = 2**20


@click.command()
@click.argument("tokens", type=TOKENS)
@as_governor
@pass_session
def mint(session: Session, tokens: int, acting: str) -> None:
    """Make new tokens, in the governor's own balance."""
    with session.acting(acting) as desk:
        if desk.govern("mint", {"tokens": tokens}):
            balance = answer(desk.ledger.balance(acting))
            say(f"Minted {tokens:,} tokens; {acting} has {balance.spendable:,}.")


@click.command()
@click.argument("tokens", type=TOKENS)
@as_governor
@pass_session
def burn(session: Session, tokens: int, acting: str) -> None:
    """Destroy tokens out of the own balance."""
    with session.acting(acting) as desk:
        desk.gather(tokens)
        desk.do("burn", {"tokens": tokens})
        say(f"Burned {tokens:,} tokens of {acting}.")


@click.command()
@click.argument("name", type=wallet_name)
@click.argument("tokens", type=TOKENS)
@as_governor
@pass_session
def grant(session: Session, name: str, tokens: int, acting: str) -> None:
    """Give a wallet tokens out of the governor's own balance."""
    with session.acting(acting) as desk:
        desk.gather(tokens)
        desk.do("grant", {"to": name, "tokens": tokens})
        say(f"Granted {tokens:,} tokens to {name}.")


@click.command()
@click.argument("name", type=wallet_name)
@as_governor
@pass_session
def freeze(session: Session, name: str, acting: str) -> None:
    """Stop a wallet from paying; one governor is enough.

    What it owes already can still be settled, and it can take in what it has earned.
    """
    with session.acting(acting) as desk:
        desk.do("freeze", {"name": name})
        seconds = answer(desk.ledger.policy())["propagation_s"]
        say(f"Wallet {name} is frozen; services know within {seconds} s. To undo: tokenmesh unfreeze {name}")


@click.command()
@click.argument("name", type=wallet_name)
@as_governor
@pass_session
def unfreeze(session: Session, name: str, acting: str) -> None:
    """Let a frozen wallet pay again."""
    with session.acting(acting) as desk:
        if desk.govern("unfreeze", {"name": name}):
            say(f"Wallet {name} is not frozen any more.")


@click.group(cls=MeshGroup)
def policy() -> None:
    """Show and set limits, and who may pay whom for what."""


@policy.command("show")
@as_json
@pass_session
def show(session: Session, as_json: bool) -> None:
    """The policy in force."""
    with session.reading() as ledger:
        current = answer(ledger.policy())
    if as_json:
        print_json(current)
        return
    print_facts([(key, _shown(key, value)) for key, value in current.items() if key != "rules"])
    print_table(
        ["rule", "payer", "payee", "operation", "effect"],
        [
            [number, rule["payer"], rule["payee"], rule["operation"], rule["effect"]]
            for number, rule in enumerate(current["rules"], start=1)
        ],
        empty="There are no rules: the default decides.",
        folding=["payer", "payee", "operation"],
    )


@policy.command("set")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--file", type=click.File(encoding="utf-8"), help="A whole policy as JSON; - reads stdin.")
@click.option(
    "--rule",
    "rules",
    type=(click.Choice(["allow", "deny"]), str, str, str),
    multiple=True,
    metavar="allow|deny PAYER PAYEE OPERATION",
    help="A rule before those there are; several stand in the order given.",
)
@as_governor
@pass_session
def set_policy(
    session: Session,
    *,
    changes: tuple[str, ...],
    file: TextIO | None,
    rules: tuple[tuple[str, str, str, str], ...],
    acting: str,
) -> None:
    """Change the policy: single keys, the whole of it from a file, or rules put before the others.

    \b
    tokenmesh policy set default=deny threshold=2
    tokenmesh policy set --rule allow 'shop-*' payment 'POST /pay' --rule deny '*' payment '*'
    tokenmesh policy show --json | jq ... | tokenmesh policy set --file -
    """
    if not (changes or file or rules):
        raise click.UsageError("Say what to change: KEY=VALUE, --file or --rule.")
    with session.acting(acting) as desk:
        wanted = _from_file(file) if file else answer(desk.ledger.policy())
        for change in changes:
            _apply(wanted, change)
        wanted["rules"] = [_rule(*one) for one in rules] + list(wanted.get("rules", []))
        try:
            check_policy(wanted)
        except ValueError as error:
            raise Fault(f"this cannot be a policy: {error}") from error
        if desk.govern("set_policy", {"policy": wanted}):
            seconds = wanted["propagation_s"]
            say(f"The policy is set; services know within {seconds} s.")


def _from_file(file: TextIO) -> dict[str, Any]:
    text = file.read(POLICY_BYTES_MAX + 1)
    if len(text) > POLICY_BYTES_MAX:
        raise Fault(f"{file.name} is larger than {POLICY_BYTES_MAX:,} characters: it cannot be a policy")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Fault(f"{file.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Fault(f"{file.name} holds no JSON object: see 'tokenmesh policy show --json' for the form")
    return value


def _apply(wanted: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise click.UsageError(f"{change!r} changes nothing: write KEY=VALUE.")
    if key not in wanted:
        raise Fault(f"a policy has no {key!r}; it has {', '.join(sorted(wanted))}")
    try:
        wanted[key] = json.loads(text)
    except ValueError:
        wanted[key] = text


def _rule(effect: str, payer: str, payee: str, operation: str) -> dict[str, str]:
    return {"payer": payer, "payee": payee, "operation": operation, "effect": effect}


def _shown(key: str, value: object) -> object:
    if key != "since":
        return value
    return moment(value) if isinstance(value, int) else "not in force yet: tokenmesh enforce"


@click.command()
@as_governor
@pass_session
def enforce(session: Session, acting: str) -> None:
    """Put in force what was decided and is not yet: a policy, freezes, revocations.

    'policy set', 'freeze', 'wallet revoke' and 'approve' do so themselves, once the ledger has what they
    changed. This is for when one of them was cut short between the two. Services act on a change as soon as
    they read it; from when it is in force on, the ledger settles no contract against it either.
    """
    with session.acting(acting) as desk:
        changes = _not_in_force(answer(desk.ledger.policy()), answer(desk.ledger.wallets()))
        for what, change in changes:
            enforced = desk.do("enforce", change).outcome.detail["changes"]
            say(f"In force now: {what}." if enforced else f"Changed again meanwhile: {what}.")
    if not changes:
        say("All that was decided is in force.")


def _not_in_force(policy: dict[str, Any], records: list[WalletRecord]) -> list[tuple[str, dict[str, Any]]]:
    """Each change that is not, in words and as the argument that puts it in force."""
    found: list[tuple[str, dict[str, Any]]] = []
    if policy["since"] is None:
        found.append((f"version {policy['version']} of the policy", {"policy": policy["version"]}))
    for record in records:
        if record.frozen_at is not None and record.frozen_since is None:
            found.append((f"the freeze of {record.name}", {"frozen": [record.name, record.frozen_at]}))
        for one in record.certificates:
            if one.revoked_at is not None and one.revoked_since is None:
                what = f"the revocation of {record.name}'s certificate {one.x5t}"
                found.append((what, {"revoked": [record.name, one.x5t]}))
    return found


@click.command()
@as_json
@pass_session
def proposals(session: Session, as_json: bool) -> None:
    """What waits for the approval of more governors."""
    with session.reading() as ledger:
        found = answer(ledger.proposals(int(session.clock())))
        threshold = answer(ledger.policy())["threshold"]
    if as_json:
        print_json([one._asdict() for one in found])
        return
    print_table(
        ["id", "what", "by", "approved by", "needs", "until"],
        [
            [
                one.id,
                f"{one.act} {brief(one.arg)}",
                one.by,
                ", ".join(one.approved),
                threshold,
                moment(one.exp),
            ]
            for one in found
        ],
        empty="Nothing waits for approval.",
        folding=["what", "approved by"],
    )


@click.command()
@click.argument("proposal", metavar="ID")
@as_governor
@pass_session
def approve(session: Session, proposal: str, acting: str) -> None:
    """Approve a proposal.

    The approval that reaches the policy's threshold carries it out.
    """
    with session.acting(acting) as desk:
        result = desk.do("approve", {"proposal": proposal})
        if result.outcome.detail.get("done"):
            say(f"Approved by {acting} and carried out.")
        else:
            say(f"Approved by {acting}; more approvals are needed: tokenmesh approve {proposal} --as NAME")

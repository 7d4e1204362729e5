"""``fabric``: a Hyperledger Fabric network on this machine, brought up, looked at, taken down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tokenmesh.cli.desk import Fault
from tokenmesh.cli.options import MeshGroup, as_json, pass_session
from tokenmesh.cli.output import print_json, print_table, say
from tokenmesh.cli.rules import CHAINCODE, deploy_rules
from tokenmesh.cli.session import Session

if TYPE_CHECKING:  # the extra `fabric` need not be installed for the other commands to work
    from tokenmesh.fabric.network import Network
    from tokenmesh.fabric.network.gobuild import Progress as Report

MEBIBYTE = 2**20


@click.group(cls=MeshGroup)
def fabric() -> None:
    """A Fabric network on this machine, without Docker: peers, orderers and certificate authorities."""


@fabric.command()
@click.option("--orgs", type=click.IntRange(1), metavar="N", help="Organisations. [default: 2]")
@click.option("--peers", type=click.IntRange(1), metavar="N", help="Peers of each. [default: 1]")
@click.option("--orderers", type=click.IntRange(1), metavar="N", help="Orderers. [default: 1, and 4 for BFT]")
@click.option("--consensus", type=click.Choice(["raft", "bft"]), help="How orderers agree. [default: raft]")
@click.option("--channel", "channels", multiple=True, metavar="NAME", help="A channel. [default: mesh]")
@click.option(
    "--base-port", type=click.IntRange(1024, 65_535), metavar="PORT", help="First port. [default: a free one]"
)
@click.option(
    "--batch-timeout", type=click.IntRange(1), metavar="MS", help="A block waits at most. [default: 100]"
)
@click.option(
    "--mutual-tls/--no-mutual-tls", default=None, help="Whether clients show certificates. [default: they do]"
)
@click.option("--no-chaincode", is_flag=True, help="Leave the channels without tokenmesh's rules.")
@pass_session
def up(
    session: Session,
    /,
    channels: tuple[str, ...],
    batch_timeout: int | None,
    no_chaincode: bool,
    **options: Any,
) -> None:
    """Bring the network up, with all that it knew; the first time, make it. Safe to repeat.

    On every channel run tokenmesh's rules, as a chaincode that all organisations have agreed on.

    Fabric's programs come from FABRIC_BIN or PATH; where they are not, Go builds them, once.
    """
    network = _network(session, channels=channels or None, batch_timeout_ms=batch_timeout, **options)
    with reporting() as report:
        network.up(report)
        if not no_chaincode:
            report("Deploying the rules", 0.9)
            deploy_rules(network)
    spec = network.plan.spec
    organisations, channels = ", ".join(spec.organisations), tuple(spec.channels)
    say(
        f"The network is up: {organisations}; {spec.orderers} orderer(s), {spec.consensus}; "
        f"channel(s) {', '.join(channels)}."
    )
    if not no_chaincode:
        say(f"The rules run on it as chaincode {CHAINCODE}. Next: tokenmesh init --ledger {_url(network)}")
    say(f"Its profile: {network.layout.profile}")


@fabric.command()
@pass_session
def down(session: Session) -> None:
    """Stop the network. What it knows stays, and is there at the next `up`."""
    killed = _network(session).down()
    say("The network is down." + (f" Killed, because slow to end: {', '.join(killed)}." if killed else ""))


@fabric.command()
@as_json
@pass_session
@click.pass_context
def status(ctx: click.Context, session: Session, as_json: bool) -> None:
    """Show every node: running, silent, crashed or stopped. Exit 1 unless all of them run."""
    network = _network(session)
    nodes = network.status()
    if as_json:
        told = [{**node._asdict(), "log": str(node.log)} for node in nodes]
        print_json({"home": str(network.home), "profile": str(network.layout.profile), "nodes": told})
    else:
        print_table(
            ["node", "state", "address", "pid", "mib", "log"],
            [
                [node.name, node.state, node.address, node.pid, node.memory_bytes // MEBIBYTE, node.log]
                for node in nodes
            ],
            empty=f"There is no network in {network.home}; `tokenmesh fabric up` makes one.",
            folding=["log"],
        )
    if not nodes or any(node.state != "running" for node in nodes):
        ctx.exit(1)


@fabric.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_session
def clean(session: Session, yes: bool) -> None:
    """Stop the network and remove all it knows: its ledgers, keys and certificates."""
    network = _network(session)
    if not yes and network.home.is_dir():
        if not sys.stdin.isatty():
            raise Fault(f"this removes the network in {network.home} with its ledgers and keys: say --yes")
        click.confirm(
            f"Remove the network in {network.home} with its ledgers and keys?", abort=True, err=True
        )
    network.clean()
    say("The network is removed.")


@fabric.command()
def tools() -> None:
    """Find Fabric's programs, or build them, and print their folders; for PATH, say."""
    from tokenmesh.fabric.network.tools import find_tools

    with reporting() as report:
        found = find_tools(report)
    for folder in dict.fromkeys(path.parent for path in found[:4]):
        click.echo(folder)


def _url(network: Network) -> str:
    """The network as a ledger, as far as one channel is meant by it."""
    channels = network.plan.spec.channels
    return f"fabric:///{network.layout.profile}" + (f"?channel={channels[0]}" if len(channels) > 1 else "")


def _network(session: Session, **options: Any) -> Network:
    from tokenmesh.fabric.network import Network

    return Network(session.home / "fabric", **options)


@contextmanager
def reporting() -> Iterator[Report]:
    """A bar on a terminal; else a line on stderr for each thing that is begun."""
    if not sys.stderr.isatty():
        begun: set[str] = set()

        def tell(what: str, done: float | None) -> None:
            if what not in begun and done != 1.0:
                begun.add(what)
                click.echo(f"{what} ...", err=True)

        yield tell
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: float | None) -> None:
            bar.update(task, description=what, total=None if done is None else 1.0, completed=done or 0.0)

        yield show

"""``verify``, which replays the whole ledger, and ``bench``, which measures on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tokenmesh.cli.desk import Fault
from tokenmesh.cli.options import as_json, pass_session
from tokenmesh.cli.output import print_facts, print_json, print_table, progress, say, warn
from tokenmesh.cli.session import Session
from tokenmesh.ledger.findings import Report
from tokenmesh.ledger.verify import verify_ledger

BENCHMARKS = {"ledger": "embedded_ledger", "calls": "hot_path"}


TRUST = {
    "profile": "the first block is the one that the profile names",
    "noted": "the first block is the one that was noted when this channel was verified first",
    "seen": "the first block was taken as it came, as the profile does not name it",
}
"""Why a verification on Fabric trusts the block that everything else follows from."""


@click.command()
@click.option(
    "--blocks",
    type=click.Path(exists=True, path_type=Path),
    help="On Fabric: verify the blocks in this file or folder, and ask no peer.",
)
@as_json
@pass_session
@click.pass_context
def verify(ctx: click.Context, session: Session, blocks: Path | None, as_json: bool) -> None:
    """Replay the whole ledger; exit 1 if it does not hold.

    Hashes, signatures, the outcome of every operation by the rules, and that no token came from nowhere; on
    Fabric also whatever orderers and peers have decided. Needs no key of a wallet, changes nothing, and may
    run while services use the ledger.
    """
    if session.on_fabric:
        report, more = _verify_fabric(session, blocks)
    elif blocks is not None:
        raise Fault("--blocks is for a ledger on Fabric (--ledger fabric:///path/to/profile.yaml)")
    else:
        report, more = _verify_embedded(session), {}
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "transactions": report.transactions,
                "findings": [one._asdict() for one in report.findings],
                "private": report.private,
                "undisclosed": report.undisclosed,
                **more,
            }
        )
    else:
        _print_report(report, more)
    if not report.ok:
        ctx.exit(1)


def _verify_embedded(session: Session) -> Report:
    path = session.ledger_path()
    with progress("transactions") as bar:
        task = bar.add_task("Replaying", total=None)
        return verify_ledger(path, lambda done, total: bar.update(task, completed=done, total=total))


def _verify_fabric(session: Session, blocks: Path | None) -> tuple[Report, dict[str, Any]]:
    from tokenmesh.ledger.fabric.verify_url import verify_url

    with progress("blocks") as bar:
        task = bar.add_task("Replaying", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        verified, trust = verify_url(session.settings.ledger, session.home, show, blocks=blocks)
    for peer in verified.silent:
        warn(f"the peer {peer} could not be asked whether it has the same blocks")
    return verified.report, {
        "blocks": verified.blocks,
        "genesis": verified.genesis,
        "trust": trust,
        "witnesses": list(verified.witnesses),
    }


def _print_report(report: Report, more: Mapping[str, Any]) -> None:
    if report.ok:
        say(f"The ledger holds: {report.transactions:,} transactions replayed, nothing found.")
    else:
        print_table(
            ["no", "code", "what", "transaction"],
            [[one.tx_n, one.code, one.text, one.tx_id] for one in report.findings],
            empty="",
            folding=["what", "transaction"],
        )
        say(f"It does not hold: {len(report.findings)} findings in {report.transactions:,} transactions.")
    if report.private:
        say(
            f"Of {report.private:,} private contracts {report.undisclosed:,} are undisclosed here: what "
            "policy says of them is as it was recorded."
        )
    if more:
        say(f"In {more['blocks']:,} blocks; {TRUST[more['trust']]}: {more['genesis']}")
        if more["witnesses"]:
            say(f"Peers with the same blocks: {', '.join(more['witnesses'])}.")


@click.command()
@click.argument("what", type=click.Choice(["all", *BENCHMARKS]), default="all")
@as_json
def bench(what: str, as_json: bool) -> None:
    """Measure what tokenmesh costs on this machine."""
    chosen = BENCHMARKS if what == "all" else {what: BENCHMARKS[what]}
    measured: dict[str, dict[str, Any]] = {}
    for name, module in chosen.items():
        click.echo(f"Measuring: {name} ...", err=True)
        measured[name] = _measure(module)
    if as_json:
        print_json(measured)
        return
    for name, figures in measured.items():
        say(name)
        print_facts([(f"  {key}", value) for key, value in figures.items()])


def _measure(module: str) -> dict[str, Any]:
    try:
        benchmark = importlib.import_module(f"tokenmesh_benchmarks.{module}")
    except ModuleNotFoundError as error:
        raise Fault(
            f"the benchmarks need {error.name}, which is not installed: pip install 'tokenmesh-fabric[bench]'"
        ) from error
    figures: dict[str, Any] = benchmark.measure()
    return figures

"""``verify``, which replays the whole ledger, and ``bench``, which measures on this machine."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tokenmesh.cli.desk import Fault
from tokenmesh.cli.options import as_json, pass_session
from tokenmesh.cli.output import print_facts, print_json, print_table, progress, say
from tokenmesh.cli.session import Session
from tokenmesh.ledger.verify import verify_ledger

BENCHMARKS = {"ledger": "embedded_ledger", "calls": "hot_path"}


@click.command()
@as_json
@pass_session
@click.pass_context
def verify(ctx: click.Context, session: Session, as_json: bool) -> None:
    """Replay the whole ledger; exit 1 if it does not hold.

    Hashes, signatures, the outcome of every operation by the rules, and that no token came from nowhere.
    Needs no key, changes nothing, and may run while services use the ledger.
    """
    path = session.ledger_path()
    with progress("transactions") as bar:
        task = bar.add_task("Replaying", total=None)
        report = verify_ledger(path, lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "transactions": report.transactions,
                "findings": [one._asdict() for one in report.findings],
            }
        )
    elif report.ok:
        say(f"The ledger holds: {report.transactions:,} transactions replayed, nothing found.")
    else:
        print_table(
            ["no", "code", "what", "transaction"],
            [[one.tx_n, one.code, one.text, one.tx_id] for one in report.findings],
            empty="",
            folding=["what", "transaction"],
        )
        say(f"It does not hold: {len(report.findings)} findings in {report.transactions:,} transactions.")
    if not report.ok:
        ctx.exit(1)


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

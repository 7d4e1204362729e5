"""The command ``demo``: its options, its home, and how it ends."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from tokenmesh.cli.demo import exporting
from tokenmesh.cli.demo.ground import EMBEDDED, FABRIC
from tokenmesh.cli.demo.launch import Options
from tokenmesh.cli.demo.plan import Paths
from tokenmesh.cli.demo.processes import ChildFailed
from tokenmesh.cli.demo.run import Demo
from tokenmesh.cli.demo.view import View
from tokenmesh.cli.desk import Fault
from tokenmesh.cli.options import pass_session
from tokenmesh.cli.output import print_json
from tokenmesh.cli.session import Session

KINDS = {"sqlite": EMBEDDED, "fabric": FABRIC}
NEEDED = ("fastapi", "flask", "gunicorn", "uvicorn")


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Decides shoppers, losses and trouble.")
@click.option(
    "--seconds", type=click.FloatRange(4, 600), default=15, show_default=True, help="How long people shop."
)
@click.option(
    "--shoppers", type=click.IntRange(1, 200), default=8, show_default=True, help="How many shop at once."
)
@click.option(
    "--otlp",
    is_flag=False,
    flag_value=exporting.DEFAULT,
    metavar="[ENDPOINT]",
    help=f"Send spans and metrics to a collector, by OTLP/HTTP; by default to {exporting.DEFAULT}.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Use DIR, and leave keys, ledger, journals and logs there.",
)
@click.option("--quiet", is_flag=True, help="Nothing but the summary.")
@pass_session
@click.pass_context
def demo(
    ctx: click.Context,
    session: Session,
    *,
    seed: int,
    seconds: float,
    shoppers: int,
    otlp: str | None,
    as_json: bool,
    keep: Path | None,
    quiet: bool,
) -> None:
    """Run a shop of ten services that pay each other, while things go wrong.

    Real processes under real servers; responses are lost on the wire, a service is killed, a wallet runs
    dry, another is frozen. Takes about 40 seconds. Exit 0 only if not one token went astray.

    With --ledger fabric all of it on a Fabric network, which it brings up and takes down again.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Fault(f"the demo needs {', '.join(missing)}: pip install 'tokenmesh-fabric[demo]'")
    if otlp is not None:
        _check_otlp(otlp)
    kind = _kind(session.settings.ledger)
    view = View(Console(stderr=True), quiet=quiet, clock=time.monotonic)
    with _home(keep) as home, _signals_as_interrupts(), view:
        try:
            options = Options(seed, seconds, shoppers, kind, otlp)
            summary = Demo(options, Paths(home), view, keep=keep is not None).run()
        except ChildFailed as error:
            raise Fault(str(error)) from error
    if as_json:
        print_json(summary.to_json())
    else:
        summary.print(Console())
    if not summary.ok:
        ctx.exit(1)


def _kind(ledger: str) -> str:
    """The kind of ledger that a url, or only its scheme, is about: the demo makes one of its own."""
    scheme = ledger.partition("://")[0]
    if scheme not in KINDS:
        raise Fault(f"the demo runs on a ledger of its own: sqlite, or --ledger fabric; not on {ledger}")
    return KINDS[scheme]


def _check_otlp(endpoint: str) -> None:
    if missing := exporting.missing():
        raise Fault(f"demo --otlp needs {', '.join(missing)}: pip install 'tokenmesh-fabric[demo-otlp]'")
    if not exporting.is_url(endpoint):
        raise Fault(f"--otlp {endpoint}: give the url of a collector, as {exporting.DEFAULT}")


@contextmanager
def _home(keep: Path | None) -> Iterator[Path]:
    """The demo's own home: a temporary directory, or the one to be kept, which must be empty."""
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Fault(f"{keep} is not empty: the demo founds a domain of its own; name a new directory")
        yield keep.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="tokenmesh-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: children stopped, home removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

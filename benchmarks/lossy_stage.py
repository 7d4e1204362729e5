"""The stage of a case: payee and payer as processes of their own, a wire between them; for ``lossy.py``."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenmesh.cli.demo.processes import ChildFailed, Children, free_ports
from tokenmesh_benchmarks.lossy_cases import Case, Tally
from tokenmesh_benchmarks.lossy_wire import LossyWire, coin, nothing

START_S_MAX = 300.0
CASE_S_MAX = 900.0
LOOK_S = 0.05


@contextmanager
def stage(home: Path) -> Iterator[Children]:
    """Children whose logs lie in ``home``; none is left at the end."""
    home.mkdir(parents=True, exist_ok=True)
    with Children(home, lambda name: home / f"{name}.log") as children:
        yield children


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1, random.choice)[0]


def wire_of(case: Case, upstream: int, payment: str, seed: int) -> LossyWire:
    """The wire that a case asks for."""
    lose = coin(seed, case.loss) if case.loss else nothing
    return LossyWire(upstream, payment=payment, lose=lose, copies=case.copies, diverted=case.diverted)


def start(
    children: Children,
    name: str,
    command: Sequence[str],
    port: int,
    look_at: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a server and wait until it answers."""
    children.start(name, command, environment or {})
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            ask(port, look_at)
        except (urllib.error.URLError, ConnectionError):
            children.check()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{name} does not answer:\n{children.last_words(name)}") from None
            time.sleep(LOOK_S)
        else:
            return


def ask(port: int, path: str) -> Any:
    """What a server on this host answers to a plain question."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=START_S_MAX) as response:
        return json.load(response)


def pay(
    children: Children,
    case: Case,
    command: Sequence[str],
    spec: Mapping[str, Any],
    home: Path,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Have a payer do the jobs of a case; what it reports. It gets ``spec`` and where to leave that."""
    result = home / f"result-{case.name}.json"
    jobs = {"paths": case.paths(), "naive": case.naive, "bare": case.bare, "method": case.method}
    whole = {**spec, **jobs, "result": str(result)}
    given = home / f"jobs-{case.name}.json"
    given.write_text(json.dumps(whole))
    children.start("payer", [*command, str(given)], environment or {})
    deadline = time.monotonic() + CASE_S_MAX
    while (code := children.wait("payer", 1.0)) is None:
        children.check()
        if time.monotonic() > deadline:
            raise ChildFailed(f"{case.name} takes more than {CASE_S_MAX:.0f} s")
    if code != 0:
        raise ChildFailed(f"the payer of {case.name} ended with {code}:\n{children.last_words('payer')}")
    reported: dict[str, Any] = json.loads(result.read_text())
    return reported


def note_ends(tally: Tally, ends: Mapping[str, Mapping[str, Any]]) -> None:
    """Take up what the payer says of its calls."""
    assert ends.keys() == set(tally.case.paths()), "every job was done"
    for path, end in ends.items():
        tally.answered[path] += end["answered"]
        tally.errors.update(end["errors"])

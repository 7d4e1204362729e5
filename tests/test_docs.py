"""Every block of the README and the docs is run as it stands, page by page, as a reader would.

- ``python`` blocks that begin with ``# name.py`` are written to that file; other ones are executed, and a
  page's blocks share their names.
- ``console`` blocks are typed: lines after ``$`` are commands; what follows is the expected output, where
  ``...`` stands for anything. A command that ends in ``&`` goes on in the background until the page ends,
  and the next one waits until the port it names with ``-p``/``--port`` takes connections.
- A page that brings a Fabric network up is skipped, with the reason, where none can be had.
- ``json``, ``toml``, ``ini`` and ``yaml`` blocks are parsed where Python can.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from support.servers import wait_until_listening
from tokenmesh.fabric.network import Network, available

ROOT = Path(__file__).parent.parent
FABRIC = "$ tokenmesh fabric up"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


class Reader:
    """Somebody who works through a page in an empty folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self.background: list[subprocess.Popen[bytes]] = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("TOKENMESH_", "COV_"))}
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"

    def python(self, example: Example) -> None:
        source = str(example.parsed)
        if name := re.match(r"# (\w+\.py)\n", source):
            (self.folder / name[1]).write_text(source)
            compile(source, name[1], "exec")
            return
        filler = "\n" * (example.line + example.parsed.line_offset)
        exec(compile(filler + source, example.path, "exec"), self.names)

    def console(self, example: Example) -> None:
        for block in re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)[1:]:
            command, _, expected = block.partition("\n")
            if command.endswith("&"):
                self.start(command.removesuffix("&").strip())
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                check=False,
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                timeout=100,
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, f"{command!r} gave {done.returncode}:\n{said}"
            self.compare(command, expected, said)

    def compare(self, command: str, expected: str, said: str) -> None:
        if expected.strip():
            checker = doctest.OutputChecker()
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(expected, said, flags), (
                f"{command!r} should have said:\n{expected}\nbut said:\n{said}"
            )

    def start(self, command: str) -> None:
        port = re.search(r"(?:-p|--port)[ =](\d+)", command)
        assert port, f"name the port in {command!r}, so that the next command can wait for it"
        log = self.folder / f"background-{len(self.background)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"],
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.background.append(process)
        wait_until_listening(int(port[1]), process, log)

    def close(self) -> None:
        for process in self.background:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TOKENMESH_")]:
        monkeypatch.delenv(name)
    reader = Reader(tmp_path)
    yield reader
    reader.close()
    Network(tmp_path / ".tokenmesh" / "fabric").clean()


@pytest.mark.timeout(1200)  # a page about Fabric may have to wait until it is built
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_works(page: Path, reader: Reader) -> None:
    """What the docs show is what happens."""
    if FABRIC in page.read_text() and (missing := available()) is not None:
        pytest.skip(missing)
    parsers = [
        CodeBlockParser("python", evaluator=reader.python),
        CodeBlockParser("console", evaluator=reader.console),
        CodeBlockParser("json", evaluator=lambda example: void(json.loads(str(example.parsed)))),
        CodeBlockParser("toml", evaluator=lambda example: void(tomllib.loads(str(example.parsed)))),
    ]
    for example in Sybil(parsers=parsers, path=str(ROOT)).parse(page).examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and a heading that it has."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page if not file else (page.parent / file).resolve()
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{link}: no such heading"


def void(_: object) -> None:
    """Sybil takes a returned value for a failure's description; a block that parses returns nothing."""

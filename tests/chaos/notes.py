"""What the processes of a run note down: it survives their being killed, and nothing of ours reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tokenmesh.cli.demo.notes import Notes, Reader


class DurableNotes(Notes):
    """Notes that are on the disk when ``write`` returns."""

    def write(self, **note: Any) -> None:
        super().write(**note)
        os.fsync(self._descriptor)


class Folder:
    """Where a run keeps what it knows, all below one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.stop = path / "stop"
        """A file: once it is there, payers and governance come to their end."""
        self.ahead = path / "ahead"
        """By how many seconds the clock of the rules on Fabric is put forward."""

    @property
    def runs(self) -> Path:
        """Each run of a handler: where it began, and what it says it has done."""
        return self.path / "runs.jsonl"

    @property
    def acts(self) -> Path:
        """What governance is about to ask for, and what it was answered."""
        return self.path / "acts.jsonl"

    def answers(self, payer: str) -> Path:
        """What a paying process was answered."""
        return self.path / f"answers-{payer}.jsonl"

    def log(self, name: str) -> Path:
        return self.path / f"{name.replace(' ', '-')}.log"


def read(path: Path) -> list[dict[str, Any]]:
    """All notes of a file; a line that a kill has cut short is none."""
    return list(Reader(path).new())


def mend(path: Path) -> None:
    """Cut off a line that was never finished, so that the next one stands by itself."""
    if path.exists():
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            path.write_bytes(whole)

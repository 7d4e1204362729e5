"""Notes: files of JSON lines that many processes append to and that survive any kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LINE_BYTES_MAX = 64 * 1024


class Notes:
    """Appends lines to a file. One write a line: lines of several processes never mix (POSIX, O_APPEND)."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **note: Any) -> None:
        line = json.dumps(note, separators=(",", ":")).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"a note of {len(line)} bytes: at most {LINE_BYTES_MAX} are kept")
        os.write(self._descriptor, line)


class Reader:
    """Reads a file of notes from where it stopped the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The notes that came since the last call; a line that is still being written waits for the next."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)

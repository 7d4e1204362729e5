"""Log records as an application has them that switched JSON lines on, for a test at a time."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenmesh.telemetry.logs import json_handler


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = json_handler(self._stream)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def all(self, logger: str | None = None) -> list[dict[str, Any]]:
        """The records, each read from its own line."""
        lines = map(json.loads, self.text.splitlines())
        return [line for line in lines if logger in (None, line["logger"])]

    def one(self, logger: str) -> dict[str, Any]:
        """The only record of a logger."""
        (found,) = self.all(logger)
        return found


@contextmanager
def logged(level: int = logging.INFO, *loggers: str) -> Iterator[Lines]:
    """All records of these loggers (all of them, if none is named) from ``level`` on."""
    lines = Lines()
    chosen = [logging.getLogger(name) for name in loggers or ("",)]
    before = [one.level for one in chosen]
    for one in chosen:
        one.addHandler(lines.handler)
        one.setLevel(level)
    try:
        yield lines
    finally:
        for one, was in zip(chosen, before, strict=True):
            one.removeHandler(lines.handler)
            one.setLevel(was)

"""Files that are whole or not there, and keys that only their owner reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner reads, and replace an older one in one step."""
    _write(path, content, 0o600)


def write_public(path: Path, content: str | bytes) -> None:
    """Write a file that anyone may read, and replace an older one in one step."""
    _write(path, content, 0o644)


def private_folder(path: Path) -> Path:
    """Make a folder, with those above it, that only its owner enters."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def _write(path: Path, content: str | bytes, mode: int) -> None:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(made).chmod(mode)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise

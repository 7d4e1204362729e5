"""A small disk of a test's own, which can be filled to the last byte, and made read-only: a tmpfs.

Mounting takes root. Without it these tests are skipped; that a file which cannot grow is named and survived
is then still shown with a limit on file sizes, by ``tests/ledger/test_processes.py`` and
``tests/journal/test_sqlite.py``.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = 4096


class Disk:
    """What is mounted at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, spare: int = 0) -> None:
        """Leave no more than ``spare`` bytes free."""
        room = os.statvfs(self.path)
        left = room.f_bavail * room.f_frsize - spare
        with self._filler.open("ab", buffering=0) as file:
            while left > 0:
                try:
                    left -= file.write(b"\0" * min(left, BLOCK))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return  # others have taken the last of it

    def free(self) -> None:
        """Have room again."""
        self._filler.unlink()

    def remount(self, how: str) -> None:
        """Make it ``ro`` or ``rw``; nobody may have a file open for writing."""
        _run("mount", "-o", f"remount,{how}", str(self.path))


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Disk]:
    """A disk of so many megabytes at ``path``, or a skip that says why there is none."""
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tokenmesh-test", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"a disk of the test's own takes root, and the right to mount: {made.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        # Lazily: a process that was killed a moment ago may still be leaving.
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

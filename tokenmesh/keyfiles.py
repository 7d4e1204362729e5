"""Files that hold keys: never readable by others, written whole or not at all, and durably.

The mode is set when a file is made, not afterwards, so there is no moment in which others could read it. A
file that others can read, or whose directory others can write, is refused, with the command that mends it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from tokenmesh.errors import IdentityError

KEY_FILE_BYTES_MAX = 65_536


def read_private(path: Path) -> bytes:
    """The bytes of a key file, if nobody but its owner can read it or put another in its place."""
    try:
        with path.open("rb") as file:
            _check_modes(path, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > KEY_FILE_BYTES_MAX:
        raise IdentityError(f"{path} is larger than {KEY_FILE_BYTES_MAX} bytes: it cannot be an identity")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Write a new key file (0600, its directories 0700); :class:`IdentityError` if there is one already."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _make_directories(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            path.hardlink_to(temporary)  # unlike a rename, it fails if somebody was faster
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise IdentityError(f"{path} is there already and is not overwritten") from error
    except OSError as error:
        raise IdentityError(f"cannot write {path}: {error.strerror}") from error


def replace_private(source: Path, path: Path) -> None:
    """Put the key file ``source`` in the place of ``path``, in one step and durably."""
    try:
        source.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise IdentityError(f"cannot put {source} in the place of {path}: {error.strerror}") from error


def _check_modes(path: Path, mode: int) -> None:
    if mode & 0o077:
        raise IdentityError(
            f"{path} can be read by others (mode {mode:04o}), so its key is not used: chmod 600 {path}"
        )
    if stat.S_IMODE(path.parent.stat().st_mode) & 0o022:
        raise IdentityError(
            f"{path.parent} can be written by others, so a key in it is not used: chmod 700 {path.parent}"
        )


def _make_directories(path: Path) -> None:
    """Like ``mkdir -p -m 700``: pathlib gives the mode to the last directory only."""
    if not path.is_dir():
        _make_directories(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

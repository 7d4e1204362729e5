"""Who works on a claim, and whether they still live.

An owner is one open journal in one process: a row with a lease, and a lock on a small file beside the
journal. The operating system drops the lock when the process ends, however it ends, so a killed owner is
known at once. The lease is for owners that live but don't go on (stopped, swapped out, stuck), and for file
systems without locks: past it they are given up. Ids are never used twice, so an owner that comes back after
that can change nothing that was taken from it.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from tokenmesh.journal.file import Execute


class Owner:
    """This process's entry among the owners; what takes ``execute`` runs in the caller's transaction."""

    def __init__(self, journal: Path, label: str, lease_s: float) -> None:
        self._label = label
        self.name = f"{label}-{os.getpid()}"
        self.id = 0
        self.renew_at = float("-inf")
        """When to renew next; a third of the lease, so that two renewals may fail."""
        self._directory = journal.with_name(journal.name + "-owners")
        self._lease_s = lease_s
        self._lock: int | None = None
        _OWNERS.add(self)

    def renew(self, execute: Execute, now: float) -> bool:
        """Renew the lease. False if this is a new entry: the first one, or the old one was given up."""
        renewal = execute("UPDATE owners SET alive_until = ? WHERE id = ?", (now + self._lease_s, self.id))
        held = bool(renewal.rowcount == 1)
        if not held:
            self._enrol(execute, now)
        self.renew_at = now + self._lease_s / 3
        return held

    def leave(self, execute: Execute) -> None:
        """Give up the lease; what is open is abandoned at once."""
        execute("UPDATE owners SET alive_until = 0 WHERE id = ?", (self.id,))

    def drop_lock(self) -> None:
        """Close the lock file: when leaving, or in a forked child, which must not keep its parent's lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def after_fork(self) -> None:
        """In a forked child: nobody, until the next renewal makes it an owner of its own."""
        self.drop_lock()
        self.id, self.name, self.renew_at = 0, f"{self._label}-{os.getpid()}", float("-inf")

    def given_up(self, execute: Execute, owner: int, now: float) -> bool:
        """Whether ``owner`` has died, or has not shown itself for longer than its lease."""
        if owner == self.id:
            return False
        row = execute("SELECT alive_until, locked FROM owners WHERE id = ?", (owner,)).fetchone()
        if row is None:
            return True
        alive_until, locked = row
        return bool(alive_until <= now or (locked and self._unlocked(owner)))

    def all_given_up(self, execute: Execute, now: float) -> list[int]:
        """Every other owner in the journal that is given up."""
        owners = execute("SELECT id FROM owners WHERE id <> ?", (self.id,)).fetchall()
        return [owner for (owner,) in owners if self.given_up(execute, owner, now)]

    def bury(self, execute: Execute, owner: int) -> None:
        """Forget an owner that was given up and has nothing open any longer."""
        execute("DELETE FROM owners WHERE id = ?", (owner,))
        self._path(owner).unlink(missing_ok=True)

    def _enrol(self, execute: Execute, now: float) -> None:
        self.drop_lock()
        cursor = execute(
            "INSERT INTO owners (name, alive_until, locked) VALUES (?, ?, 0)",
            (self.name, now + self._lease_s),
        )
        self.id = cursor.lastrowid
        # Before the entry can be seen: whoever sees it finds the lock taken.
        self._lock = _locked_file(self._path(self.id))
        if self._lock is not None:
            execute("UPDATE owners SET locked = 1 WHERE id = ?", (self.id,))

    def _path(self, owner: int) -> Path:
        return self._directory / str(owner)

    def _unlocked(self, owner: int) -> bool:
        """Whether nobody holds the lock of ``owner``. Where locks can't be had, that is not known: no."""
        try:
            file = os.open(self._path(owner), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            # Shared, so that two who ask at the same moment don't take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True


def _locked_file(path: Path) -> int | None:
    """A new file with its lock taken; None where that cannot be: then the lease alone decides."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


_OWNERS: weakref.WeakSet[Owner] = weakref.WeakSet()


def _after_fork() -> None:
    for owner in list(_OWNERS):
        owner.after_fork()


os.register_at_fork(after_in_child=_after_fork)

"""The journal in an SQLite file, for all the processes of one service on one host.

Two connections: one for requests, and one for everything that may take longer (settlement, pruning,
statistics), so that no request waits behind it in its own process. What a transaction does to the file is in
the modules beside this one; here is what belongs to this process: which claims it has open, its lease, how
much room it knows of.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random

from tokenmesh.config import Settings
from tokenmesh.errors import ConfigError
from tokenmesh.journal import allowances, crashes, usual
from tokenmesh.journal.base import (
    AllowanceUsedUp,
    Batch,
    Claim,
    Claimed,
    ClaimResult,
    Journal,
    JournalFull,
    JournalStats,
    Key,
    NewClaim,
    OnCrash,
    SequenceUsed,
    StoredResponse,
)
from tokenmesh.journal.claims import Undo, take
from tokenmesh.journal.endings import KNOWN, end_owed, end_unowed, find
from tokenmesh.journal.file import Connect, Execute, JournalFile, Synchronous, create_file
from tokenmesh.journal.outbox import Outbox
from tokenmesh.journal.owners import Owner
from tokenmesh.journal.retention import Limits, Retention, Space

SCHEME = "sqlite:///"
ROW_BYTES = 4_096
"""What a contract takes in the file beside its response, roughly."""
MAKE_ROOM_AGAIN_S = 1.0
"""After nothing could be dropped for a new claim, it is not tried again for so long."""


class SqliteJournal(Journal):
    """A journal in the file ``path``; it is made if there is none. Thread-safe, and safe across a fork.

    ``owner`` is a label for people; each open journal is an owner of its own. ``on_crash`` says what a retry
    gets for a contract whose process was killed at work: ``"refuse"`` (void) or ``"rerun"`` (it takes over).
    An owner that shows no life for ``lease_s`` seconds is given up.

    Ended contracts are kept for ``retention_s`` seconds, and in any case ``leeway_s`` past their expiry.
    ``bytes_max`` bounds the file (its write-ahead log, a few tens of megabytes at most, comes on top); of
    response bodies above ``response_bytes_max`` only the digest is kept. ``unsettled_max`` bounds how many
    contracts wait to be settled. ``busy_s_max`` bounds the wait for other threads and processes.

    ``synchronous="NORMAL"`` survives a killed process, ``"FULL"`` a power cut too, at one disk flush more for
    every claim and every ending. ``opener`` opens SQLite's files: a simulator has a disk of its own.

    Raises :class:`ConfigError` if the file is something else, :class:`JournalError` if it cannot be used.
    """

    at_once = True

    def __init__(
        self,
        path: str | Path,
        *,
        owner: str = "journal",
        on_crash: OnCrash = "refuse",
        lease_s: float = 10,
        retention_s: float = 86_400,
        leeway_s: float = 300,
        bytes_max: int = 2**30,
        response_bytes_max: int = 2**20,
        unsettled_max: int = 100_000,
        busy_s_max: float = 10,
        synchronous: Synchronous = "NORMAL",
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        opener: Connect = sqlite3.connect,
    ) -> None:
        self._path = Path(path).absolute()
        self._on_crash = on_crash
        self._response_bytes_max = response_bytes_max
        self._clock = clock
        self._open: dict[Key, tuple[NewClaim, int]] = {}  # and the number of the owner that claimed it
        self._make_room_at = float("-inf")
        limits = Limits(retention_s, leeway_s, bytes_max, unsettled_max)
        self._space = Space(limits)
        self._owner = Owner(self._path, owner, lease_s)
        jitter = random or secrets.SystemRandom()
        create_file(self._path)

        def connection() -> JournalFile:
            return JournalFile(
                self._path, busy_s_max=busy_s_max, synchronous=synchronous, random=jitter, opener=opener
            )

        self._requests = connection()
        self._upkeep = connection()
        self._outbox = Outbox(self._upkeep, self._owner)
        self._retention = Retention(self._upkeep, limits)
        self.heartbeat(clock())

    @property
    def owner(self) -> str:
        """The label of this open journal, with its process."""
        return self._owner.name

    # Requests

    def find(self, payer: str, jti: str) -> Claim | None:
        """See :meth:`Journal.find`."""
        if not self._requests.query(KNOWN, (payer, jti)):
            return None  # half of what looking takes, and whoever makes contracts up has us look
        now = self._clock()

        def look(execute: Execute) -> Claim | None:
            found = find(execute, payer, jti)
            if found is None:
                return None
            if found.claim.state == "open" and self._owner.given_up(execute, found.owner, now):
                return found.claim._replace(state="abandoned")
            return found.claim

        return self._requests.read(look)

    def claim(self, entry: NewClaim, now: float) -> ClaimResult:
        """See :meth:`Journal.claim`."""
        if now < self._owner.renew_at and self._space.likely(ROW_BYTES):
            by = self._owner.id
            left = usual.claim(self._requests, entry, by)
            if left is not None:
                self._open[entry.payer, entry.jti] = (entry, by)
                return tuple.__new__(Claimed, (left, by))
            refusal = self.why_not(entry)
            if refusal is not None:
                return refusal
        result = self._claim(entry, now)
        if type(result) is JournalFull and now >= self._make_room_at:
            self.prune(now)
            result = self._claim(entry, now)
            if type(result) is JournalFull:
                self._make_room_at = now + MAKE_ROOM_AGAIN_S
        return result

    def why_not(self, entry: NewClaim) -> SequenceUsed | AllowanceUsedUp | None:
        """See :meth:`Journal.why_not`."""
        return usual.why_not(self._requests, entry)

    def fulfil(
        self,
        payer: str,
        jti: str,
        charged: int,
        response: StoredResponse,
        receipt: str | None,
        now: float,
        *,
        by: int | None = None,
    ) -> bool:
        """See :meth:`Journal.fulfil`."""
        key = (payer, jti)
        opened = self._opened(key, by)
        if opened is None:
            return False
        entry, owner = opened
        if now >= entry.settle_by:
            return False
        if not 0 <= charged <= entry.tok:
            raise ValueError(f"{charged} tokens cannot be charged on a contract for at most {entry.tok}")
        kept = self._kept(response)
        if (
            charged == entry.tok
            and charged
            and usual.fulfil(self._requests, entry, owner, kept, receipt, now)
        ):
            self._space.stored(len(kept.body or b""))
            self._close(key, opened)
            return True
        end = (
            partial(end_owed, contract=entry.contract, charged=charged)
            if charged
            else partial(end_unowed, out="fulfilled", reason=None)
        )
        with self._requests as execute:
            done = end(execute, key, owner, response=kept, receipt=receipt, now=now)
            self._space.stored(len(kept.body or b""))
        self._close(key, opened)
        return done

    def void(
        self,
        payer: str,
        jti: str,
        reason: str,
        response: StoredResponse | None,
        receipt: str | None,
        now: float,
        *,
        by: int | None = None,
    ) -> bool:
        """See :meth:`Journal.void`."""
        key = (payer, jti)
        opened = self._opened(key, by)
        if opened is None:
            return False
        kept = None if response is None else self._kept(response)
        with self._requests as execute:
            done = end_unowed(
                execute,
                key,
                opened[1],
                out="void",
                reason=reason,
                response=kept,
                receipt=receipt,
                now=now,
            )
            self._space.stored(len(kept.body or b"") if kept else 0)
        self._close(key, opened)
        return done

    def allowance_used(self, allowance: str) -> int:
        """See :meth:`Journal.allowance_used`."""
        return self._requests.read(lambda execute: allowances.used(execute, allowance))

    # Settlement and upkeep

    def heartbeat(self, now: float) -> None:
        """See :meth:`Journal.heartbeat`."""
        with self._upkeep as execute:
            self._renew(execute, now)

    def take_batch(self, limit: int, now: float, *, bytes_max: int = 2 * 1024 * 1024) -> Batch | None:
        """See :meth:`Journal.take_batch`."""
        if now >= self._owner.renew_at:
            self.heartbeat(now)
        return self._outbox.take(limit, now, bytes_max)

    def keep_operation(self, batch_id: int, operation: str) -> bool:
        """See :meth:`Journal.keep_operation`."""
        return self._outbox.keep_operation(batch_id, operation)

    def finish_batch(
        self,
        batch_id: int,
        refused: Mapping[Key, str],
        tx_id: str | None,
        now: float,
        *,
        settled: Mapping[Key, str] | None = None,
    ) -> bool:
        """See :meth:`Journal.finish_batch`."""
        return self._outbox.finish(batch_id, refused, settled or {}, tx_id, now)

    def release_batch(
        self,
        batch_id: int,
        *,
        refused: Mapping[Key, str] | None = None,
        settled: Mapping[Key, str] | None = None,
    ) -> bool:
        """See :meth:`Journal.release_batch`."""
        return self._outbox.release(batch_id, refused or {}, settled or {})

    def prune(self, now: float) -> None:
        """See :meth:`Journal.prune`."""
        forgotten = {key: opened for key, opened in list(self._open.items()) if opened[0].settle_by <= now}
        crashes.end_forgotten(self._upkeep, self._owner, list(forgotten), now)
        for key, opened in forgotten.items():
            self._close(key, opened)
        crashes.bury_owners(self._upkeep, self._owner, self._on_crash, now)
        crashes.end_orphans(self._upkeep, now)
        self._retention.prune(now)

    def stats(self) -> JournalStats:
        """See :meth:`Journal.stats`."""
        return self._retention.stats()

    def close(self) -> None:
        """See :meth:`Journal.close`."""
        with self._upkeep as execute:
            self._owner.leave(execute)
        self._requests.close()
        self._upkeep.close()
        self._owner.drop_lock()

    def _claim(self, entry: NewClaim, now: float) -> ClaimResult:
        try:
            with self._requests as execute:
                if now >= self._owner.renew_at:
                    self._renew(execute, now)
                result = take(execute, entry, now, self._owner, self._on_crash)
                if type(result) is Claimed:
                    # Counted last: a contract that is known already needs no room.
                    self._check_room(execute)
        except Undo as undo:
            return undo.result
        if type(result) is Claimed:
            self._open[entry.payer, entry.jti] = (entry, result.by)
        return result

    def _opened(self, key: Key, by: int | None) -> tuple[NewClaim, int] | None:
        """A claim that is open here, if it is the one made ``by`` and we are still the owner that made it."""
        opened = self._open.get(key)
        if opened is None or opened[1] != self._owner.id or (by is not None and by != opened[1]):
            return None
        return opened

    def _close(self, key: Key, opened: tuple[NewClaim, int]) -> None:
        """Forget a claim that has ended; another one may stand in its place by now."""
        if self._open.get(key) is opened:
            self._open.pop(key, None)

    def _check_room(self, execute: Execute) -> None:
        if not self._space.take(execute, len(self._open), ROW_BYTES):
            raise Undo(JournalFull())

    def _renew(self, execute: Execute, now: float) -> None:
        if not self._owner.renew(execute, now):
            # What an owner before this one had open (before a fork, before it was given up) is not ours.
            self._open.clear()

    def _kept(self, response: StoredResponse) -> StoredResponse:
        if response.body is not None and len(response.body) > self._response_bytes_max:
            return response._replace(body=None)
        return response


def open_sqlite(url: str, settings: Settings | None = None) -> SqliteJournal:
    """The journal of ``sqlite:///relative/path`` or ``sqlite:////absolute/path``."""
    settings = settings or Settings()
    path = url.removeprefix(SCHEME)
    if not url.startswith(SCHEME) or not path:
        raise ConfigError(f"the journal's url is {url!r}: for a file it is sqlite:///path/to/journal.db")
    return SqliteJournal(
        path,
        owner=settings.service or "journal",
        on_crash=settings.on_crash,
        lease_s=settings.lease_s,
        retention_s=settings.retention_s,
        bytes_max=settings.journal_bytes_max,
        response_bytes_max=settings.response_bytes_max,
        unsettled_max=settings.unsettled_max,
        synchronous=settings.journal_synchronous,
    )

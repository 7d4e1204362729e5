"""The history of a ledger on Fabric: questions about its past, answered from an index of the peer's blocks.

The index (:mod:`tokenmesh.ledger.fabric.index`) is brought up to date whenever something is asked, so an
answer includes whatever the peer had committed by then. It is a convenience of this host: what is in it was
believed as the peer gave it. ``tokenmesh verify`` believes nothing.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tokenmesh.errors import LedgerUnavailable
from tokenmesh.fabric.blocks import Block, ledger_info, read_blocks
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Gateway
from tokenmesh.ledger.base import ContractRecord, Transaction
from tokenmesh.ledger.fabric.index import Index, IndexedBlock, NotTheNext
from tokenmesh.ledger.fabric.recorded import ledger_transactions
from tokenmesh.ledger.queries import Questions

BLOCKS_AT_ONCE = 32
"""So many blocks are taken into the index by one transaction of its own."""
CATCH_UP_S_MAX = 10.0
"""How long a peer that is behind is given to come to a block that was seen to be committed."""
PAUSE_S = 0.05
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
"""What SQLite says where nothing more can be written; extended codes have these in their last octet."""
TRIES_MAX = 3
"""An index that turns out to be another channel's, or damaged, is made anew: but not for ever."""

T = TypeVar("T")


def history_path(home: Path, channel: str, chaincode: str, profile: Path | None = None) -> Path:
    """Where the index of a ledger lies under ``home``.

    ``profile`` tells networks apart: a service may use two of them, whose channels have one name.
    """
    network = "" if profile is None else "-" + sha256(bytes(profile.absolute())).hexdigest()[:8]
    return home / "fabric" / f"history-{_plain(channel)}-{_plain(chaincode)}{network}.db"


class History:
    """The past of the ledger that ``chaincode`` keeps on ``channel``. Thread-safe; every method may block.

    ``path``: where the index is kept, so that the next process need not begin anew (None, or where nothing
    can be written, or nothing more: in a temporary file). All methods raise ``LedgerUnavailable``.
    """

    def __init__(
        self,
        gateway: Gateway,
        channel: str,
        chaincode: str,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._channel = channel
        self._chaincode = chaincode
        self._path = path
        self._clock = clock
        self._seen = -1
        self._index: Index | None = None
        self._lock = threading.Lock()

    def transactions(
        self, after: int = 0, limit: int = 100, wallet: str | None = None, newest_first: bool = False
    ) -> list[Transaction]:
        """As :meth:`tokenmesh.ledger.base.Ledger.transactions`. A transaction's number is how many of this
        ledger's transactions there are before it on the channel."""
        return self._ask(lambda questions: questions.transactions(after, limit, wallet, newest_first))

    def transaction(self, tx_id: str) -> Transaction | None:
        """As :meth:`tokenmesh.ledger.base.Ledger.transaction`; ids are Fabric's."""
        return self._ask(lambda questions: questions.transaction(tx_id))

    def contract(self, jti: str) -> list[ContractRecord]:
        """As :meth:`tokenmesh.ledger.base.Ledger.contract`."""
        return self._ask(lambda questions: questions.contract(jti))

    def seen(self, block_number: int) -> None:
        """A block is known to be committed: what is answered from now on includes it, whichever peer is
        asked, or is an error."""
        self._seen = max(self._seen, block_number)

    def use(self, gateway: Gateway) -> None:
        """Ask another peer from now on."""
        self._gateway = gateway

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._drop()

    def _ask(self, question: Callable[[Questions], T]) -> T:
        with self._lock:
            try:
                return self._answer(question)
            except (sqlite3.Error, OSError) as error:
                self._drop()
                raise LedgerUnavailable(
                    f"the index of the ledger's history ({self._path or 'a temporary file'}) cannot be "
                    f"used: {error}"
                ) from error
            except FabricError as error:
                raise LedgerUnavailable(f"the ledger's history cannot be read: {error}") from error
            except ValueError as error:
                raise LedgerUnavailable(
                    f"the ledger's history holds what the rules do not write ({error}): "
                    "'tokenmesh verify' says more"
                ) from error

    def _answer(self, question: Callable[[Questions], T]) -> T:
        for _ in range(TRIES_MAX):
            index = self._open()
            try:
                self._catch_up(index)
                return question(Questions(index.connection))
            except NotTheNext:
                # Made from another channel, as when a network was made anew: begin anew too.
                index.clear()
            except sqlite3.OperationalError as error:
                if self._path is None or error.sqlite_errorcode & 0xFF not in NO_ROOM:
                    raise
                # It can be read from the blocks again: go on without a file of our own.
                self._drop()
                self._path = None
            except sqlite3.DatabaseError:
                # The file is damaged, and can be made anew.
                self._drop()
                self._remove()
        raise LedgerUnavailable(
            f"the peer's blocks of channel {self._channel} do not follow one another: "
            "'tokenmesh verify' says more"
        )

    def _catch_up(self, index: Index) -> None:
        height = self._height(index)
        first = index.next_block
        if first >= height:
            return
        network = self._gateway.get_network(self._channel)
        with contextlib.closing(read_blocks(network, first, height - 1)) as blocks:
            # Nobody else's turn at the index is held up by waiting for the peer.
            while some := [self._read(block) for block in islice(blocks, BLOCKS_AT_ONCE)]:
                index.take(some)

    def _height(self, index: Index) -> int:
        """How many blocks the peer has, of the chain that the index is of."""
        until = self._clock() + CATCH_UP_S_MAX
        while True:
            info = ledger_info(self._gateway.get_network(self._channel))
            if index.hash_of(info.height - 1) not in (None, info.hash):
                raise NotTheNext
            if info.height > self._seen:
                return info.height
            if self._clock() >= until:
                raise LedgerUnavailable(
                    f"the peer has {info.height} blocks of channel {self._channel}, and block {self._seen} "
                    "is known to be committed: it is behind; ask again later, or another peer"
                )
            threading.Event().wait(PAUSE_S)

    def _read(self, block: Block) -> IndexedBlock:
        return IndexedBlock(
            block.number, block.hash, block.previous_hash, list(ledger_transactions(block, self._chaincode))
        )

    def _open(self) -> Index:
        if self._index is None:
            self._index = next(filter(None, self._tries()))
        return self._index

    def _tries(self) -> Iterator[Index | None]:
        """The index where it belongs, else made anew there, else in a temporary file."""
        if self._path is not None:
            with contextlib.suppress(OSError, sqlite3.OperationalError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    yield Index(self._path)
                except sqlite3.DatabaseError as error:
                    if isinstance(error, sqlite3.OperationalError):
                        raise
                    self._remove()
                    yield Index(self._path)
        yield Index(None)

    def _remove(self) -> None:
        if self._path is not None:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _drop(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)

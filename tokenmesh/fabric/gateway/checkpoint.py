"""How far someone has come in reading events, so that they go on there after they were stopped or killed.

The file is that of Fabric's Node client: either can go on where the other stopped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol

from tokenmesh.fabric.errors import FabricError


class HasPosition(Protocol):
    """What :meth:`InMemoryCheckpointer.checkpoint_chaincode_event` reads of an event."""

    @property
    def block_number(self) -> int: ...

    @property
    def transaction_id(self) -> str: ...


class Checkpoint(Protocol):
    """Where to go on: in which block, and behind which of its transactions. None, None: nothing read yet."""

    @property
    def block_number(self) -> int | None: ...

    @property
    def transaction_id(self) -> str | None: ...


class InMemoryCheckpointer:
    """Remembers as long as the process lives."""

    def __init__(self) -> None:
        self._block_number: int | None = None
        self._transaction_id: str | None = None

    @property
    def block_number(self) -> int | None:
        return self._block_number

    @property
    def transaction_id(self) -> str | None:
        return self._transaction_id

    def checkpoint_block(self, block_number: int) -> None:
        """A block was dealt with: go on behind it."""
        self._remember(block_number + 1, None)

    def checkpoint_transaction(self, block_number: int, transaction_id: str) -> None:
        """A transaction was dealt with: go on behind it, in the same block."""
        self._remember(block_number, transaction_id)

    def checkpoint_chaincode_event(self, event: HasPosition) -> None:
        """An event was dealt with: go on behind it."""
        self._remember(event.block_number, event.transaction_id)

    def _remember(self, block_number: int, transaction_id: str | None) -> None:
        self._block_number, self._transaction_id = block_number, transaction_id


class FileCheckpointer(InMemoryCheckpointer):
    """Remembers in a file, which is on disk when a method returns, and is at no moment half written.

    One writer a file. ``durable=False`` leaves it to the system when to write: it survives a killed process,
    not a power cut, and costs microseconds instead of a write to disk.
    """

    def __init__(self, path: str | Path, *, durable: bool = True) -> None:
        super().__init__()
        self._path = Path(path)
        self._durable = durable
        self._load()

    def _remember(self, block_number: int, transaction_id: str | None) -> None:
        state = {"blockNumber": str(block_number)}
        if transaction_id is not None:
            state["transactionId"] = transaction_id
        made = self._path.with_name(f".{self._path.name}.new")
        with made.open("w") as file:
            json.dump(state, file)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        made.replace(self._path)
        if self._durable:
            _sync_folder(self._path.parent)
        super()._remember(block_number, transaction_id)

    def _load(self) -> None:
        try:
            state = json.loads(self._path.read_text() or "{}")
            block, transaction_id = state.get("blockNumber"), state.get("transactionId")
            self._block_number = None if block is None else int(block)
            self._transaction_id = None if transaction_id is None else str(transaction_id)
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise FabricError(f"there is no folder {self._path.parent} for the checkpoint") from None
        except (OSError, ValueError, AttributeError) as error:
            raise FabricError(
                f"{self._path} is no checkpoint: {error}; move it away to begin again from the start block"
            ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

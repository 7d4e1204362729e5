"""Signatures checked by several threads at once: the cryptography library lets go of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tokenmesh_chaincode import documents
from tokenmesh_chaincode.prepared import Item

SEQUENTIAL_MAX: Final = 100
"""So many signatures are checked by the thread that asks. Where many wait for Python's lock, one more thread
that does costs all of them more than it brings."""


class Verifiers:
    """As ``documents.verify_many``, by ``threads`` threads: one for each processor. Thread-safe."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.threads - 1 or 1, "tokenmesh-verifier")

    def __call__(self, items: Sequence[Item]) -> list[bool]:
        if self.threads == 1 or len(items) <= SEQUENTIAL_MAX:
            return documents.verify_many(items)
        size = -(-len(items) // self.threads)
        rest = [
            self._pool.submit(documents.verify_many, items[start : start + size])
            for start in range(size, len(items), size)
        ]
        found = documents.verify_many(items[:size])
        for part in rest:
            found.extend(part.result())
        return found

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False)

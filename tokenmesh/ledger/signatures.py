"""Signatures, checked by as many threads as there are processors.

The cryptography library lets go of Python's lock while it works, so two threads check twice as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import Contract, Operation, Signed, verify_many
from tokenmesh_chaincode.state import Value

Item: TypeAlias = tuple[Signed[Any], EllipticCurvePublicKey]

SEQUENTIAL_MAX = 8
"""Fewer than this are checked faster than other threads are woken."""


class Signatures:
    """A verifier for the rules: as ``documents.verify_many``, by several threads.

    Whether a key made a signature never changes, so what :meth:`look_ahead` found out before a transaction
    began is still true within it, and the time is not spent while others wait for the ledger's lock.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads - 1 or 1, "tokenmesh-ledger-verifier")
        self._known: dict[str, tuple[EllipticCurvePublicKey, bool]] = {}
        self.contracts: list[Contract] = []
        """The contracts that were asked about since this was emptied."""

    def __call__(self, items: Sequence[Item]) -> list[bool]:
        """Whether each key made the signature of its document."""
        if len(items) == 1:
            known = self._known.get(items[0][0].text)
            if known is not None and known[0] is items[0][1]:
                return [known[1]]
        self.contracts += [signed.body for signed, _ in items if isinstance(signed.body, Contract)]
        return self._check(items)

    def look_ahead(self, operations: Iterable[Signed[Operation]], get: Callable[[str], Value | None]) -> None:
        """Check now, all at once, the signatures that the rules will ask about one by one.

        ``get`` reads the state, as it may have been some time ago: a wallet that is not there yet, or was
        rotated since, costs a check later; nothing is decided here.
        """
        items: list[Item] = []
        for signed in operations:
            wallet = get(f"wallet/{signed.header.kid}") or {"certs": ()}
            items += [
                (signed, public_key(certificate["pem"]))
                for certificate in wallet["certs"]
                if certificate["x5t"] == signed.header.x5t
            ]
        for (signed, key), holds in zip(items, self._check(items), strict=True):
            self._known[signed.text] = key, holds

    def forget(self) -> None:
        """Drop what was found out ahead."""
        self._known.clear()

    def _check(self, items: Sequence[Item]) -> list[bool]:
        if self._threads == 1 or len(items) < SEQUENTIAL_MAX:
            return verify_many(items)
        size = -(-len(items) // self._threads)
        rest = [
            self._pool.submit(verify_many, items[start : start + size])
            for start in range(size, len(items), size)
        ]
        found = verify_many(items[:size])
        for part in rest:
            found.extend(part.result())
        return found

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False)

"""Work done ahead: reading documents and checking signatures before a batch has its turn.

None of it depends on the ledger's state as it will be: what a text says, and whether a key made a signature,
never changes. So a settlement's thousand signatures are checked while the batch before is being written, by
as many threads as there are processors (the cryptography library lets go of Python's lock), and the ledger
is locked only for what needs the lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh_chaincode import documents
from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures, Signed
from tokenmesh_chaincode.prepared import Item, Prepared

Certificates: TypeAlias = Callable[[str], Mapping[str, str]]
"""Gives a wallet's certificates, PEM by thumbprint; none for a wallet that is not known."""

KEYS_MAX = 4_096
"""Keys of wallets that are remembered."""
SEQUENTIAL_MAX = 100
"""So many signatures are checked by the thread that prepares. Where many callers wait for Python's lock, one
more thread that does costs all of them more than it brings."""


class Preparer:
    """Prepares operations; several threads may."""

    def __init__(self, certificates: Certificates, threads: int | None = None) -> None:
        self._certificates = certificates
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads - 1 or 1, "tokenmesh-ledger-verifier")
        self._keys: dict[tuple[str, str], EllipticCurvePublicKey] = {}

    def prepare(self, texts: Sequence[str], disclosures: Disclosures = NO_DISCLOSURES) -> list[Prepared]:
        """Read the operations, and check all their signatures and those of the contracts in them."""
        prepared = [Prepared(text, disclosures) for text in texts]
        wanted = [(one, signed, key) for one in prepared for signed, key in self._items(one)]
        found = self._verify([(signed, key) for _, signed, key in wanted])
        for (one, signed, key), holds in zip(wanted, found, strict=True):
            one.checked[signed.text] = key, holds
        return prepared

    def _items(self, one: Prepared) -> Iterator[Item]:
        if one.signed is None:
            return
        signed: Signed[Any]
        for signed in (one.signed, *one.read.values()):
            key = self._key(signed.header.kid, signed.header.x5t)
            if key is not None:
                yield signed, key

    def _key(self, name: str, x5t: str) -> EllipticCurvePublicKey | None:
        key = self._keys.get((name, x5t))
        if key is None:
            pem = self._certificates(name).get(x5t)
            if pem is None:
                return None
            if len(self._keys) >= KEYS_MAX:
                self._keys.clear()
            key = self._keys[name, x5t] = public_key(pem)
        return key

    def _verify(self, items: Sequence[Item]) -> list[bool]:
        if self._threads == 1 or len(items) <= SEQUENTIAL_MAX:
            return documents.verify_many(items)
        size = -(-len(items) // self._threads)
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

"""Work done ahead: reading documents and checking signatures before a batch has its turn.

None of it depends on the ledger's state as it will be: what a text says, and whether a key made a signature,
never changes. So a settlement's thousand signatures are checked while the batch before is being written, by
as many threads as there are processors (the cryptography library lets go of Python's lock), and the ledger
is locked only for what needs the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh_chaincode.certificates import public_key
from tokenmesh_chaincode.documents import NO_DISCLOSURES, Disclosures
from tokenmesh_chaincode.prepared import Prepared, check_ahead
from tokenmesh_chaincode.verifiers import Verifiers

Certificates: TypeAlias = Callable[[str], Mapping[str, str]]
"""Gives a wallet's certificates, PEM by thumbprint; none for a wallet that is not known."""

KEYS_MAX = 4_096
"""Keys of wallets that are remembered."""


class Preparer:
    """Prepares operations; several threads may."""

    def __init__(self, certificates: Certificates, threads: int | None = None) -> None:
        self._certificates = certificates
        self._verifiers = Verifiers(threads)
        self._keys: dict[tuple[str, str], EllipticCurvePublicKey] = {}

    def prepare(self, texts: Sequence[str], disclosures: Disclosures = NO_DISCLOSURES) -> list[Prepared]:
        """Read the operations, and check all their signatures and those of the contracts in them."""
        prepared = [Prepared(text, disclosures) for text in texts]
        check_ahead(prepared, self._key, self._verifiers)
        return prepared

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

    def close(self) -> None:
        """Let the threads go."""
        self._verifiers.close()

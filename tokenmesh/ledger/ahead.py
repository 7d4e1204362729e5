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
from tokenmesh_chaincode.documents import Contract, DocumentError, Operation, Signed
from tokenmesh_chaincode.limits import (
    EXPIRE_ITEMS_MAX,
    FORGET_ITEMS_MAX,
    SETTLE_ITEMS_MAX,
    SWEEP_ITEMS_MAX,
    VOID_ITEMS_MAX,
)
from tokenmesh_chaincode.rules import Context, Outcome, apply
from tokenmesh_chaincode.state import State

Item: TypeAlias = tuple[Signed[Any], EllipticCurvePublicKey]
Certificates: TypeAlias = Callable[[str], Mapping[str, str]]
"""Gives a wallet's certificates, PEM by thumbprint; none for a wallet that is not known."""

KEYS_MAX = 4_096
"""Keys of wallets that are remembered."""
LISTED_MAX = max(SWEEP_ITEMS_MAX, VOID_ITEMS_MAX, EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX)
SEQUENTIAL_MAX = 100
"""So many signatures are checked by the thread that prepares. Where many callers wait for Python's lock, one
more thread that does costs all of them more than it brings."""


class Prepared:
    """An operation, read, with what is known of its signatures: what the rules ask, in their place.

    ``signed`` is None if the text is no operation.
    """

    __slots__ = ("carried", "checked", "read", "signed", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.signed: Signed[Operation] | None
        self.carried: list[Signed[Contract]] = []
        """The contracts in a settlement, as far as they can be read, in their order."""
        self.read: dict[str, Signed[Contract]] = {}
        self.checked: dict[str, tuple[EllipticCurvePublicKey, bool]] = {}
        try:
            self.signed = documents.parse_operation(text)
        except DocumentError:
            self.signed = None
            return
        for contract in _texts(self.signed.body):
            try:
                signed = self.read[contract] = documents.parse_contract(contract)
            except DocumentError:
                continue  # the rules will say what is wrong with it
            self.carried.append(signed)

    def parse_contract(self, text: str) -> Signed[Contract]:
        """As ``documents.parse_contract``."""
        return self.read.get(text) or documents.parse_contract(text)

    def verify_many(self, items: Sequence[Item]) -> list[bool]:
        """As ``documents.verify_many``."""
        checked = self.checked
        results = []
        for signed, key in items:
            known = checked.get(signed.text)
            # A wallet that was registered since, or rotated, has a key that was not tried ahead.
            results.append(
                known[1] if known is not None and known[0] is key else documents.verify(signed, key)
            )
        return results


class Preparer:
    """Prepares operations; several threads may."""

    def __init__(self, certificates: Certificates, threads: int | None = None) -> None:
        self._certificates = certificates
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads - 1 or 1, "tokenmesh-ledger-verifier")
        self._keys: dict[tuple[str, str], EllipticCurvePublicKey] = {}

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Read the operations, and check all their signatures and those of the contracts in them."""
        prepared = [Prepared(text) for text in texts]
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


def apply_prepared(state: State, one: Prepared, context: Context) -> Outcome:
    """Have the rules judge an operation, with what is known of it already."""
    if one.signed is None:
        return apply(state, one.text, context)
    return apply(state, one.signed, context, verify_many=one.verify_many, parse_contract=one.parse_contract)


def _texts(operation: Operation) -> Iterator[str]:
    """The texts of the contracts that an operation carries, if it has the form of a settlement."""
    items = operation.arg.get("items") if operation.act == "settle" else None
    if not isinstance(items, list) or len(items) > SETTLE_ITEMS_MAX:
        return
    for item in items:
        if isinstance(item, list) and item and isinstance(item[0], str):
            yield item[0]


def keys_read(one: Prepared) -> Iterator[str]:
    """Keys of the state that the rules will read for an operation, as far as they are read only once."""
    if one.signed is None:
        return
    body = one.signed.body
    yield f"op/{body.iss}/{body.jti}"
    if body.act == "hold":
        yield f"hold/{body.iss}/{body.arg.get('id')}"
    for signed in one.carried:
        if signed.body.via == "hold":
            yield f"hold/{signed.body.iss}/{signed.body.jti}"
    for field, prefix in _READ.get(body.act, ()):
        listed = body.arg.get(field)
        if isinstance(listed, list) and len(listed) <= LISTED_MAX:
            for named in listed:
                # Either an id, or whose it is and the id.
                name = "/".join(map(str, named)) if isinstance(named, list) else f"{body.iss}/{named}"
                yield f"{prefix}/{name}"


_READ = {
    "sweep": [("credits", "credit")],
    "void": [("holds", "hold")],
    "expire": [("holds", "hold")],
    "forget": [("holds", "hold"), ("operations", "op")],
}

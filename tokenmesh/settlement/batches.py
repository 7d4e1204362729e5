"""What the journal's batches are made into for the ledger, and what its answer says of their items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenmesh.journal import Batch, Item
from tokenmesh_chaincode.documents import DocumentError, parse_presented, take_presented, thumbprint

OF_DISCLOSURES = ("undisclosed", "bad_disclosure")
"""The rules' words for what can be wrong with a private contract's disclosure."""


def settle_argument(batch: Batch) -> dict[str, Any]:
    arg: dict[str, Any] = {
        "items": [[take_presented(item.contract)[0], item.charged] for item in batch.items]
    }
    if batch.skipped:
        arg["skipped"] = [list(skip) for skip in batch.skipped]
    return arg


def disclosures(items: Iterable[Item]) -> dict[str, str] | None:
    """What the private contracts among them are for: the ledger is told beside the operation, never in it."""
    presented = [take_presented(item.contract)[1] for item in items]
    found = {thumbprint(one.encode()): one for one in presented if one is not None}
    return found or None


def is_disclosed(item: Item) -> bool:
    """Whether it is not private, or its disclosure is in the journal as it came."""
    try:
        parse_presented(item.contract)
    except DocumentError as error:
        return error.code not in OF_DISCLOSURES
    return True


def refused_items(items: list[Item], refused: Mapping[str, str]) -> list[tuple[Item, str]]:
    """The items that the rules name: as ``payer/id``, or by place if their text was no contract."""
    named = {f"{item.payer}/{item.jti}": item for item in items}
    named |= {f"#{place}": item for place, item in enumerate(items)} if refused else {}
    return [(named[name], code) for name, code in refused.items() if name in named]

"""Composite keys, as every shim of Fabric's forms them: a type and attributes, each ended by U+0000.

They lie in a space of their own, below every other key, so a range over plain keys never meets one.
"""

from __future__ import annotations

from collections.abc import Sequence

SPACE = "\x00"
LAST = "\U0010ffff"
FIRST_PLAIN = "\x01"
"""Where a range of plain keys begins when it has no first key."""


def create_composite_key(object_type: str, attributes: Sequence[str]) -> str:
    """One key out of a type and attributes. Neither may hold U+0000 or U+10FFFF."""
    for part in (object_type, *attributes):
        _check(part)
    return SPACE + "".join(part + SPACE for part in (object_type, *attributes))


def split_composite_key(key: str) -> tuple[str, list[str]]:
    """The type and the attributes of a composite key. ``ValueError`` if it is none."""
    if len(key) < 2 or key[0] != SPACE or key[-1] != SPACE:
        raise ValueError("this is no composite key: one begins and ends with U+0000")
    object_type, *attributes = key[1:-1].split(SPACE)
    return object_type, attributes


def partial_range(object_type: str, attributes: Sequence[str]) -> tuple[str, str]:
    """First and last key of all that begin with this type and these attributes."""
    start = create_composite_key(object_type, attributes)
    return start, start + LAST


def _check(part: str) -> None:
    if SPACE in part or LAST in part:
        raise ValueError("a part of a composite key may hold neither U+0000 nor U+10FFFF")

"""Ranges of keys, read in pages. For questions only: a range that was read conflicts with all that is written
into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, NamedTuple

from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.state import Value

PAGE_ROWS: Final = 1_000
"""Rows that are asked of the peer at once; Fabric's own limit, ``totalQueryLimit``, is not to be below."""


class Found(NamedTuple):
    """A row of the state."""

    key: str
    value: Value


def after(prefix: str) -> str:
    """The first key after all keys that begin with ``prefix``, which ends in ``"/"``."""
    return prefix[:-1] + "0"


def rows(stub: Stub, prefix: str, start: str = "") -> Iterator[Found]:
    """All rows whose keys begin with ``prefix``, in order, from the key ``start`` on."""
    end = after(prefix)
    first = max(prefix, start)
    bookmark = ""
    while first < end:
        page = stub.get_state_by_range_with_pagination(first, end, PAGE_ROWS, bookmark)
        for row in page.items:
            yield Found(row.key, json.loads(row.value))
        bookmark = page.bookmark
        if not bookmark or not page.items:
            return

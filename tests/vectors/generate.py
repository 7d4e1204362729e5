"""Makes the test vectors: ``python tests/vectors/generate.py`` writes the JSON files beside this one.

They are the same each time. What changes them is a change of the protocol.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from vectors.contracts import contracts
from vectors.ledger import operations
from vectors.naming import naming
from vectors.parties import keys
from vectors.private import private
from vectors.receipts import receipts

FOLDER = Path(__file__).parent
FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "keys.json": keys,
    "naming.json": naming,
    "contracts.json": contracts,
    "private.json": private,
    "receipts.json": receipts,
    "operations.json": operations,
}


def spell(vectors: dict[str, Any]) -> str:
    """The vectors as they stand in their file."""
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    for name, make in FILES.items():
        (FOLDER / name).write_text(spell(make()))

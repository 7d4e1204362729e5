"""Which contracts a settlement has settled, and whether each is settled once, whatever pays for it.

The rules cannot see it where a dishonest payee settles one contract id under two allowances: it is found in
the history, where both signed documents are.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence

from tokenmesh_chaincode.documents import Contract
from tokenmesh_chaincode.rules import Outcome

_TABLE = """
    CREATE TABLE settled (payer TEXT, jti TEXT, via TEXT, n, PRIMARY KEY (payer, jti)) WITHOUT ROWID
"""


def settled_of(carried: Sequence[Contract], outcome: Outcome) -> list[Contract]:
    """The contracts that a settlement has settled, of those that it carries."""
    refused = outcome.detail["refused"]
    settled = [one for one in carried if f"{one.iss}/{one.jti}" not in refused]
    if len(settled) < outcome.detail["settled"]:
        # One that stands there twice, once settled and once refused: the outcome does not say which.
        often = Counter((one.iss, one.jti) for one in carried)
        twice = {(one.iss, one.jti): one for one in carried if often[one.iss, one.jti] > 1}
        settled += [one for key, one in twice.items() if "/".join(key) in refused]
    return settled


class SettledOnce:
    """The contracts settled so far, in a table of its own in ``connection``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(_TABLE)

    def take(self, n: int | str, settled: Sequence[Contract]) -> Iterator[str]:
        """Note what transaction ``n`` settles; says so of each that was settled before."""
        if not settled:
            return
        before = self._connection.execute(
            "SELECT s.payer, s.jti, s.via, s.n FROM json_each(?) j JOIN settled s "
            "ON s.payer = json_extract(j.value, '$[0]') AND s.jti = json_extract(j.value, '$[1]')",
            (json.dumps([(contract.iss, contract.jti) for contract in settled]),),
        )
        known = {(payer, jti): (via, n) for payer, jti, via, n in before}
        for contract in settled:
            key = (contract.iss, contract.jti)
            if key in known:
                via, earlier = known[key]
                yield (
                    f"the contract {contract.jti} of {contract.iss} is settled for {contract.aud} by way of "
                    f"{contract.via}, and was settled by way of {via} in transaction {earlier}"
                )
            known[key] = (contract.via, n)
        self._connection.executemany(
            "INSERT OR IGNORE INTO settled (payer, jti, via, n) VALUES (?, ?, ?, ?)",
            sorted((contract.iss, contract.jti, contract.via, n) for contract in settled),
        )

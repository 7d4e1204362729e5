"""A ledger to be tampered with, and the hand that does it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from support.ledgers import Domain
from tokenmesh.ledger.base import Transaction
from tokenmesh.ledger.verify import Report, verify_ledger


class Written(NamedTuple):
    """A ledger that holds, at rest, and how to find things in it."""

    path: Path
    domain: Domain
    transactions: list[Transaction]

    def number(self, act: str) -> int:
        """The number of the first transaction with such an operation."""
        return next(one.number for one in self.transactions if one.operations[0].act == act)

    def tx_id(self, number: int) -> str:
        return next(one.tx_id for one in self.transactions if one.number == number)


def edit(written: Written, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Edit the file by hand, as with the sqlite3 shell."""
    with closing(sqlite3.connect(written.path)) as connection, connection:
        for statement in statements:
            sql, values = (statement, ()) if isinstance(statement, str) else statement
            assert connection.execute(sql, values).rowcount != 0, sql


def found(written: Written) -> Report:
    report = verify_ledger(written.path)
    for finding in report.findings:
        assert finding.text.isascii()
    return report

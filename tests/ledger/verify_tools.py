"""A ledger to be tampered with, and the hand that does it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ledger.suite_tools import PAYEE, PAYER, contracts, open_allowance, place_hold, settle

from support.ledgers import GOVERNANCE, Domain, make_ledger, now_of
from support.wallets import Clock
from tokenmesh.ledger.base import Transaction
from tokenmesh.ledger.verify import Report, verify_ledger
from tokenmesh_chaincode.rules import default_policy


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


def write_original(directory: Path) -> Written:
    """One of everything, closed, so that all of it lies in one file."""
    clock = Clock()
    domain = make_ledger(directory, clock=clock)
    domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 11})
    hold, other = place_hold(domain, 20), place_hold(domain, 30)
    allowance = open_allowance(domain, 200)
    settle(domain, *((text, 5) for text in contracts(domain, allowance, 10)))
    settle(domain, (domain.contract(PAYER, PAYEE, jti=hold, tok=20), 13), ("nonsense", 1))
    domain.do(PAYEE, "void", {"holds": [[PAYER, other]]})
    domain.ask(PAYER, "transfer", {"to": PAYEE, "tokens": 10**9})
    domain.do(GOVERNANCE, "set_policy", {"policy": {**default_policy(), "tokens_max": 1_000}})
    new = domain.wallets.new(PAYER)
    domain.do(GOVERNANCE, "rotate", {"name": PAYER, "cert": new.certificate_pem})
    domain.do(PAYER, "close", {"id": allowance})
    texts = [domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": n}) for n in range(1, 6)]
    domain.submit(*texts)
    clock.forward(100_000)
    domain.do(PAYEE, "expire", now_of(domain.ledger.expirable(domain.now, 100)))
    domain.do(PAYEE, "forget", now_of(domain.ledger.forgettable(domain.now, 100)))
    place_hold(domain, 3)
    transactions = now_of(domain.ledger.transactions(limit=1_000))
    domain.ledger.close()
    return Written(domain.ledger.path, domain, transactions)


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

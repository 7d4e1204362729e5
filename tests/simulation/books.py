"""The auditor's look at the ledger: every transaction as it appears, against books of its own.

It reads the file as it lies there, through a connection of its own, and believes nothing that the product's
code says about it.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from simulation.economy import Economy
from simulation.home import POLICY, Home
from simulation.world import World

AT_BITS = 20


class Violation(BaseException):
    """Something that must always hold does not. No ``except Exception`` of the product's keeps it back."""


class Books:
    """The books of one simulation's ledger."""

    def __init__(self, world: World, path: Path, home: Home) -> None:
        self._world = world
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._after = -1
        self.documents: list[str] = []
        """All operations in the ledger, as they were signed."""
        keys = {name: wallet.key.public_key() for name, wallet in home.wallets.items()}
        self.economy = Economy(home.domain, keys, POLICY)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look(self) -> None:
        """Enter what is new, and compare; raises :class:`Violation`."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
        execute = self._connection.execute
        transactions = execute(
            "SELECT n, time_ms, signer FROM transactions WHERE n > ? ORDER BY n", (self._after,)
        ).fetchall()
        if not transactions and execute("SELECT max(n) FROM transactions").fetchone() != (self._after,):
            raise Violation(f"the ledger has forgotten transaction {self._after}")
        for n, time_ms, signer in transactions:
            if n != self._after + 1:
                raise Violation(f"transaction {n} follows {self._after}")
            self._after = n
            rows = execute(
                "SELECT document, outcome FROM operations WHERE at >= ? AND at < ? ORDER BY at",
                (n << AT_BITS, (n + 1) << AT_BITS),
            ).fetchall()
            if n > 0:
                for document, outcome in rows:
                    self._enter(n, document.decode(), json.loads(outcome), time_ms // 1000, signer)
        if transactions:
            self._compare(execute)

    def _enter(self, n: int, document: str, outcome: dict[str, Any], now: int, signer: str) -> None:
        try:
            expected = self.economy.apply(document, now)
        except AssertionError as error:
            raise Violation(str(error)) from error
        self.documents.append(document)
        body = self.economy.read(document).body
        if self._world.steps:
            code = outcome["code"]
            self._world.say("ledger", f"{n}: {body['act']} {body['jti']} of {body['iss']}: {code}")
        if expected["detail"] is None:
            expected["detail"] = outcome["detail"]
        if outcome != expected:
            raise Violation(
                f"{body['act']} {body['jti']} of {body['iss']} came to {outcome}, and should to {expected}"
            )

    def _compare(self, execute: Any) -> None:
        """Whether the ledger's state is what the books say, and what must hold of it holds."""
        books, accounted, supply = self.economy, 0, 0
        seen = {"balance": 0, "credit": 0, "hold": 0, "allowance": 0}
        spent: dict[str, Any] = {}
        allowances: dict[str, Any] = {}
        for key, text in execute("SELECT key, value FROM state").fetchall():
            kind, _, name = key.partition("/")
            value = json.loads(text)
            if kind == "balance":
                accounted += value["tokens"]
                if value["tokens"] < 0:
                    raise Violation(f"{name} has a balance of {value['tokens']}")
                _same(key, value["tokens"], books.balances[name])
            elif kind == "credit":
                accounted += value["tokens"]
                wallet, _, row = name.partition("/")
                _same(key, value["tokens"], books.credits.get((wallet, row)))
            elif kind == "hold":
                payer, _, hold_id = name.partition("/")
                hold = books.holds.get((payer, hold_id))
                accounted += value["tokens"] if value["state"] == "open" else 0
                _same(key, (value["tokens"], value["state"], value["charged"]), _hold(hold))
            elif kind == "allowance":
                allowances[name] = value
            elif kind == "spent":
                spent[name] = value
            elif kind == "supply":
                supply += value["tokens"]
            if kind in seen:
                seen[kind] += 1
        for name, value in allowances.items():
            record = spent.get(name, {"tokens": 0, "lanes": {}})
            accounted += 0 if value["ended"] else value["tokens"] - record["tokens"]
            if record["tokens"] > value["tokens"]:
                raise Violation(f"of allowance {name} more is spent than was set aside")
            used = {
                (lane, seq)
                for lane, ranges in record["lanes"].items()
                for first, last in ranges
                for seq in range(first, last + 1)
            }
            mine = books.allowances.get(name)
            theirs = (value["tokens"], value["ended"], record["tokens"], used)
            _same(name, theirs, mine and (mine.tokens, mine.ended, mine.spent, mine.used))
        if accounted != supply or supply != books.supply:
            raise Violation(f"{accounted} tokens are accounted for, and there are {supply}")
        counts = (len(books.credits), len(books.holds), len(books.allowances))
        _same("rows", (seen["credit"], seen["hold"], seen["allowance"]), counts)


def _hold(hold: Any) -> Any:
    return hold and (hold.tokens, hold.state, hold.charged)


def _same(what: str, is_: Any, should: Any) -> None:
    if is_ != should:
        raise Violation(f"the ledger has {is_} for {what}, and should have {should}")

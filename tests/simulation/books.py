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
_KINDS = ("balance", "credit", "hold", "allowance", "spent", "supply")


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
        except Exception as error:
            raise Violation(f"the auditor cannot follow the ledger: {error!r}") from error
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
        books = self.economy
        state: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        for key, text in execute("SELECT key, value FROM state").fetchall():
            kind, _, name = key.partition("/")
            if kind in state:
                state[kind][name] = json.loads(text)
        balances = {name: value["tokens"] for name, value in state["balance"].items()}
        if any(tokens < 0 for tokens in balances.values()):
            raise Violation(f"a balance is below zero: {balances}")
        _same("balances", balances, {name: books.balances[name] for name in balances})
        credited = {name: value["tokens"] for name, value in state["credit"].items()}
        _same("credits", credited, {"/".join(key): tokens for key, tokens in books.credits.items()})
        holds = {
            name: (value["tokens"], value["state"], value["charged"]) for name, value in state["hold"].items()
        }
        mine = {"/".join(key): (one.tokens, one.state, one.charged) for key, one in books.holds.items()}
        _same("holds", holds, mine)
        held = sum(tokens for tokens, now, _ in holds.values() if now == "open")
        accounted = sum(balances.values()) + sum(credited.values()) + held + self._allowed(state)
        supply = sum(value["tokens"] for value in state["supply"].values())
        if accounted != supply or supply != books.supply:
            raise Violation(f"{accounted} tokens are accounted for, and there are {supply}")

    def _allowed(self, state: dict[str, dict[str, Any]]) -> int:
        """Compare the allowances; what is left in those that are open."""
        found, left = {}, 0
        for name, value in state["allowance"].items():
            record = state["spent"].get(name, {"tokens": 0, "lanes": {}})
            if record["tokens"] > value["tokens"]:
                raise Violation(f"of allowance {name} more is spent than was set aside")
            used = {
                (lane, seq)
                for lane, ranges in record["lanes"].items()
                for first, last in ranges
                for seq in range(first, last + 1)
            }
            found[name] = (value["tokens"], value["ended"], record["tokens"], used)
            left += 0 if value["ended"] else value["tokens"] - record["tokens"]
        mine = {
            name: (one.tokens, one.ended, one.spent, one.used)
            for name, one in self.economy.allowances.items()
        }
        _same("allowances", found, mine)
        return left


def _same(what: str, is_: dict[str, Any], should: dict[str, Any]) -> None:
    if is_ != should:
        names = sorted(name for name in {*is_, *should} if is_.get(name) != should.get(name))
        told = [f"{is_.get(name)} and not {should.get(name)} for {name}" for name in names]
        raise Violation(f"the ledger's {what} are not those of the books: {'; '.join(told)}")

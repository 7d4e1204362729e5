"""Questions to the embedded ledger's file, each answered from one consistent view of it.

Balances are sums over ranges of keys: questions may range over the state, the rules may not (on Fabric a
range read would conflict with every write into it).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from tokenmesh.ledger.base import (
    HISTORY_LIMIT_MAX,
    Allowance,
    Balance,
    Certificate,
    ContractRecord,
    Credit,
    Hold,
    Proposal,
    Recorded,
    Supply,
    Transaction,
    WalletRecord,
)
from tokenmesh.ledger.store import AT_BITS
from tokenmesh_chaincode.documents import DocumentError, parse_contract, parse_operation
from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX, RECORD_KEEP_S
from tokenmesh_chaincode.rules import Outcome

OPERATIONS_LISTED_MAX = 10_000
"""A listing of transactions ends early once it has so many operations; ask on from its last number."""
DOCUMENT_LISTED_BYTES_MAX = 8_192

_ALLOWANCES = """
    SELECT a.value, s.value FROM state a LEFT JOIN state s ON s.key = 'spent/' || substr(a.key, 11)
    WHERE a.payer = ? AND a.key >= 'allowance/' AND a.key < 'allowance0'
    ORDER BY a.due, a.key
"""


class Questions:
    """The questions, over one connection that only one thread uses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> dict[str, Any] | None:
        """The value of one key of the state."""
        row = self._connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def domain(self) -> str:
        """The domain's id; "" for a file that holds no ledger."""
        domain = self.get("domain") or {"id": ""}
        return str(domain["id"])

    def wallet(self, name: str) -> WalletRecord | None:
        value = self.get(f"wallet/{name}")
        return None if value is None else _wallet(value)

    def wallets(self) -> list[WalletRecord]:
        return [_wallet(json.loads(value)) for _, value in self._range("wallet/")]

    def policy(self) -> dict[str, Any]:
        return self.get("policy") or {}

    def balance(self, name: str) -> Balance:
        balance = self.get(f"balance/{name}") or {"tokens": 0}
        (held,) = self._connection.execute(
            "SELECT coalesce(sum(json_extract(value, '$.tokens')), 0) FROM state "
            "WHERE payer = ? AND key >= 'hold/' AND key < 'hold0'",
            (name,),
        ).fetchone()
        allowed = sum(allowance.left for allowance in self.allowances(name, None))
        return Balance(balance["tokens"], self._sum(f"credit/{name}/"), held, allowed)

    def credits(self, name: str, limit: int) -> list[Credit]:
        prefix = f"credit/{name}/"
        return [
            Credit(key[len(prefix) :], json.loads(value)["tokens"])
            for key, value in self._range(prefix, limit)
        ]

    def hold(self, payer: str, hold_id: str) -> Hold | None:
        value = self.get(f"hold/{payer}/{hold_id}")
        if value is None:
            return None
        return Hold(
            payer,
            hold_id,
            value["payee"],
            value["tokens"],
            value["opened_at"],
            value["exp"],
            value["grace_s"],
            value["state"],
            value["charged"],
        )

    def allowance(self, allowance_id: str) -> Allowance | None:
        value = self.get(f"allowance/{allowance_id}")
        if value is None:
            return None
        return _allowance(allowance_id, value, self.get(f"spent/{allowance_id}"))

    def allowances(self, payer: str, payee: str | None) -> list[Allowance]:
        found = []
        rows = self._connection.execute(
            _ALLOWANCES.replace("a.value", "substr(a.key, 11), a.value", 1), (payer,)
        )
        for allowance_id, value, spent in rows:
            allowance = _allowance(allowance_id, json.loads(value), spent and json.loads(spent))
            if payee is None or allowance.payee == payee:
                found.append(allowance)
        return found

    def proposals(self, now: int) -> list[Proposal]:
        values = [(key, json.loads(value)) for key, value in self._range("proposal/")]
        return [
            Proposal(
                id=key.partition("/")[2],
                act=value["act"],
                arg=value["arg"],
                by=value["by"],
                approved=tuple(value["approved"]),
                exp=value["exp"],
            )
            for key, value in values
            if not value["done"] and now < value["exp"]
        ]

    def expirable(self, now: int, limit: int, payer: str | None) -> dict[str, Any]:
        limit = min(limit, EXPIRE_ITEMS_MAX)
        payers = [wallet.name for wallet in self.wallets()] if payer is None else [payer]
        keys: list[str] = []
        for name in payers:
            if len(keys) >= limit:
                break
            rows = self._connection.execute(
                "SELECT key FROM state WHERE payer = ? AND due <= ? ORDER BY due LIMIT ?",
                (name, now, limit - len(keys)),
            )
            keys.extend(key for (key,) in rows)
        return {"holds": _ids(keys, "hold"), "allowances": _ids(keys, "allowance")}

    def forgettable(self, now: int, limit: int) -> dict[str, Any]:
        rows = self._connection.execute(
            "SELECT key FROM state WHERE payer IS NULL AND due < ? ORDER BY due LIMIT ?",
            (now - RECORD_KEEP_S, min(limit, FORGET_ITEMS_MAX)),
        )
        keys = [key for (key,) in rows]
        return {
            "operations": _ids(keys, "op"),
            "holds": _ids(keys, "hold"),
            "allowances": _ids(keys, "allowance"),
            "proposals": _ids(keys, "proposal"),
        }

    def supply(self) -> Supply:
        minted = burned = 0
        for _, value in self._range("supply/"):
            tokens = json.loads(value)["tokens"]
            minted, burned = (minted + tokens, burned) if tokens > 0 else (minted, burned - tokens)
        (held,) = self._connection.execute(
            "SELECT coalesce(sum(json_extract(value, '$.tokens')), 0) FROM state "
            "WHERE payer IS NOT NULL AND key >= 'hold/' AND key < 'hold0'"
        ).fetchone()
        (allowed,) = self._connection.execute(
            "SELECT coalesce(sum(json_extract(a.value, '$.tokens') - "
            "coalesce(json_extract(s.value, '$.tokens'), 0)), 0) "
            "FROM state a LEFT JOIN state s ON s.key = 'spent/' || substr(a.key, 11) "
            "WHERE a.payer IS NOT NULL AND a.key >= 'allowance/' AND a.key < 'allowance0'"
        ).fetchone()
        return Supply(minted, burned, self._sum("balance/") + self._sum("credit/") + held + allowed)

    def transactions(
        self, after: int, limit: int, wallet: str | None, newest_first: bool
    ) -> list[Transaction]:
        found: list[Transaction] = []
        operations = 0
        for row in self._transaction_rows(after, min(limit, HISTORY_LIMIT_MAX), wallet, newest_first):
            transaction = self._transaction(*row, listed=True)
            operations += len(transaction.operations)
            if found and operations > OPERATIONS_LISTED_MAX:
                break
            found.append(transaction)
        return found

    def _transaction_rows(
        self, after: int, limit: int, wallet: str | None, newest_first: bool
    ) -> Iterator[tuple[int, str, int, str]]:
        table, where = "transactions t", ""
        if wallet is not None:
            table, where = "parties p JOIN transactions t ON t.n = p.n", "p.wallet = :wallet AND "
        number = "p.n" if wallet is not None else "t.n"
        if newest_first:
            where += f"{number} > 0 AND (:after = 0 OR {number} < :after) ORDER BY {number} DESC"
        else:
            where += f"{number} > :after ORDER BY {number}"
        yield from self._connection.execute(
            f"SELECT t.n, t.id, t.time_ms, t.signer FROM {table} WHERE {where} LIMIT :limit",  # noqa: S608
            {"after": after, "limit": limit, "wallet": wallet},
        )

    def transaction(self, tx_id: str) -> Transaction | None:
        row = self._connection.execute(
            "SELECT n, id, time_ms, signer FROM transactions WHERE id = ?", (tx_id,)
        ).fetchone()
        return None if row is None else self._transaction(*row, listed=False)

    def _transaction(self, n: int, tx_id: str, time_ms: int, signer: str, *, listed: bool) -> Transaction:
        rows = self._connection.execute(
            "SELECT issuer, id, act, outcome, length(document), "
            "CASE WHEN length(document) <= ? THEN document END FROM operations "
            "WHERE at >= ? AND at < ? ORDER BY at",
            (DOCUMENT_LISTED_BYTES_MAX if listed else 2**40, n << AT_BITS, (n + 1) << AT_BITS),
        )
        operations = tuple(
            Recorded(
                issuer,
                operation_id,
                act,
                Outcome.from_json(json.loads(outcome)),
                length,
                None if document is None else document.decode(),
            )
            for issuer, operation_id, act, outcome, length, document in rows
        )
        return Transaction(n, tx_id, time_ms / 1000, signer, operations)

    def contract(self, jti: str) -> list[ContractRecord]:
        rows = self._connection.execute(
            "SELECT t.id, t.time_ms, o.outcome, o.document FROM contracts c "
            "JOIN operations o ON o.at = c.at JOIN transactions t ON t.n = c.at >> ? "
            "WHERE c.jti = ? ORDER BY c.at LIMIT ?",
            (AT_BITS, jti, HISTORY_LIMIT_MAX),
        )
        return [
            record
            for tx_id, time_ms, outcome, document in rows
            for record in _appearances(
                jti, tx_id, time_ms / 1000, Outcome.from_json(json.loads(outcome)), document.decode()
            )
        ]

    def _range(self, prefix: str, limit: int = -1) -> Iterable[tuple[str, str]]:
        return self._connection.execute(
            "SELECT key, value FROM state WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (prefix, after(prefix), limit),
        )

    def _sum(self, prefix: str) -> int:
        (tokens,) = self._connection.execute(
            "SELECT coalesce(sum(json_extract(value, '$.tokens')), 0) FROM state WHERE key >= ? AND key < ?",
            (prefix, after(prefix)),
        ).fetchone()
        return int(tokens)


def after(prefix: str) -> str:
    """The first key after all keys that begin with ``prefix`` (which ends in "/")."""
    return prefix[:-1] + "0"


def _wallet(value: dict[str, Any]) -> WalletRecord:
    certificates = tuple(
        Certificate(
            one["x5t"],
            one["pem"],
            one["since"],
            one["until"],
            one.get("revoked_at"),
            one.get("revoked_since"),
        )
        for one in value["certs"]
    )
    return WalletRecord(
        value["name"],
        value["role"],
        value["url"],
        certificates,
        value["frozen_at"],
        value["created"],
        value.get("frozen_since"),
    )


def _allowance(allowance_id: str, value: dict[str, Any], spent: dict[str, Any] | None) -> Allowance:
    spent = spent or {"tokens": 0, "lanes": {}}
    return Allowance(
        allowance_id,
        value["payer"],
        value["payee"],
        value["tokens"],
        value["opened_at"],
        value["exp"],
        value["grace_s"],
        value["closed_at"],
        value["ended"],
        spent["tokens"],
        spent["lanes"],
    )


def _ids(keys: Iterable[str], kind: str) -> list[Any]:
    """The ids in those ``keys`` that are of this kind, as operations name them: ``id`` or ``[owner, id]``."""
    found = []
    for key in keys:
        name, *rest = key.split("/", 2)
        if name == kind:
            found.append(rest[0] if len(rest) == 1 else rest)
    return found


def _appearances(
    jti: str, tx_id: str, time: float, outcome: Outcome, document: str
) -> Iterator[ContractRecord]:
    """Where the contract id stands in one settlement."""
    refused = outcome.detail.get("refused", {})
    for text, charged in parse_operation(document).body.arg["items"]:
        try:
            contract = parse_contract(text).body
        except DocumentError:
            continue  # it was refused as no contract at all, so it has no id to be found under
        if contract.jti == jti:
            yield ContractRecord(
                tx_id,
                time,
                contract.iss,
                contract.aud,
                contract.op,
                charged,
                refused.get(f"{contract.iss}/{jti}", "ok"),
                text,
            )

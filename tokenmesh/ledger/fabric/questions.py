"""Questions about the state, answered by the chaincode on one peer: JSON, and back to the port's records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tokenmesh.errors import LedgerUnavailable
from tokenmesh.fabric.errors import FabricError
from tokenmesh.fabric.gateway import Contract, Retry
from tokenmesh.ledger.base import (
    Allowance,
    Balance,
    Certificate,
    Credit,
    Hold,
    Proposal,
    Supply,
    WalletRecord,
)
from tokenmesh_chaincode.contract.questions import DISCLOSED_MAX
from tokenmesh_chaincode.documents import canonical
from tokenmesh_chaincode.limits import EXPIRE_ITEMS_MAX, FORGET_ITEMS_MAX

Record = TypeVar("Record")

EXPIRABLE_PAGES_MAX = 100
"""Stretches of what is open that are looked through for one answer; the next question finds what is left."""
FORGETTABLE_PAGES_MAX = 8


class StateQuestions:
    """The questions; every method blocks until there is an answer, and raises ``LedgerUnavailable``.

    Safe to use from many threads.
    """

    def __init__(self, contract: Contract, retry: Retry, wallet: str | None = None) -> None:
        self._contract = contract
        self._retry = retry
        # With its own operations, so that many who forget do not all begin with the same.
        self._forget_from = f"op/{wallet}/" if wallet else ""

    def domain(self) -> str:
        """The domain's id; "" where no ledger has begun."""
        return str(self._ask("domain"))

    def policy(self) -> dict[str, Any]:
        return dict(self._ask("policy"))

    def wallet(self, name: str) -> WalletRecord | None:
        found = self._ask("wallet", name)
        return None if found is None else _wallet(found)

    def wallets(self) -> list[WalletRecord]:
        return sorted((_wallet(one) for one in self._all("wallets")), key=lambda one: one.name)

    def balance(self, name: str) -> Balance:
        return _record(Balance, self._ask("balance", name))

    def credits(self, name: str, limit: int) -> list[Credit]:
        return [_record(Credit, one) for one in self._ask("credits", name, limit)]

    def hold(self, payer: str, hold_id: str) -> Hold | None:
        found = self._ask("hold", payer, hold_id)
        return None if found is None else _record(Hold, found)

    def allowance(self, allowance_id: str) -> Allowance | None:
        found = self._ask("allowance", allowance_id)
        return None if found is None else _record(Allowance, found)

    def allowances(self, payer: str, payee: str | None) -> list[Allowance]:
        return [_record(Allowance, one) for one in self._all("allowances", payer, payee)]

    def proposals(self, now: int) -> list[Proposal]:
        return [
            _record(Proposal, {**one, "approved": tuple(one["approved"])})
            for one in self._all("proposals", now)
        ]

    def disclosures(self, digests: Sequence[str]) -> dict[str, str]:
        """Disclosures of private contracts by their digests, as far as the peer that is asked may tell."""
        found: dict[str, str] = {}
        for start in range(0, len(digests), DISCLOSED_MAX):
            found.update(self._ask("disclosures", list(digests[start : start + DISCLOSED_MAX])))
        return found

    def supply(self) -> Supply:
        return _record(Supply, self._ask("supply"))

    def expirable(self, now: int, limit: int, payer: str | None) -> dict[str, Any]:
        limit = min(limit, EXPIRE_ITEMS_MAX)
        found: dict[str, list[Any]] = {"holds": [], "allowances": []}
        start = ""
        for _ in range(EXPIRABLE_PAGES_MAX):
            answer = self._ask("expirable", now, limit - _count(found), payer, start)
            start = answer["next"]
            _add(found, answer)
            if not start or _count(found) >= limit:
                break
        return found

    def forgettable(self, now: int, limit: int) -> dict[str, Any]:
        """Each question looks on from where the last one ended, and round, so that none takes long."""
        limit = min(limit, FORGET_ITEMS_MAX)
        found: dict[str, list[Any]] = {"operations": [], "holds": [], "allowances": [], "proposals": []}
        began = start = self._forget_from
        wrapped = False
        for _ in range(FORGETTABLE_PAGES_MAX):
            answer = self._ask("forgettable", now, limit - _count(found), start)
            start = answer["next"]
            _add(found, answer)
            if _count(found) >= limit or (wrapped and start >= began):
                break
            if not start:
                if wrapped or not began:
                    break
                wrapped = True
        self._forget_from = start
        return found

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            answer = self._contract.evaluate("ask", (question, canonical(list(arguments))), retry=self._retry)
        except FabricError as error:
            raise LedgerUnavailable(f"the ledger could not answer: {error}") from error
        return json.loads(answer)

    def _all(self, question: str, *arguments: Any) -> Iterator[Any]:
        """All items of an answer that comes in pages."""
        start = ""
        while True:
            answer = self._ask(question, *arguments, start)
            yield from answer["items"]
            start = answer["next"]
            if not start:
                return


def _record(kind: type[Record], value: Mapping[str, Any]) -> Record:
    """A record of the port, out of an answer that has its fields, and may have more."""
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # all of them are named tuples
    return kind(**{name: value[name] for name in fields if name in value})


def _wallet(value: Mapping[str, Any]) -> WalletRecord:
    certificates = tuple(_record(Certificate, one) for one in value["certificates"])
    return _record(WalletRecord, {**value, "certificates": certificates})


def _count(found: Mapping[str, list[Any]]) -> int:
    return sum(map(len, found.values()))


def _add(found: dict[str, list[Any]], answer: Mapping[str, Any]) -> None:
    for field, items in found.items():
        items += [item for item in answer[field] if item not in items]

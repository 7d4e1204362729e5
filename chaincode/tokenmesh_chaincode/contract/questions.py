"""``ask``: questions about the state, answered in JSON by one peer, and never endorsed to be committed.

Every answer is bounded. One that could grow has ``next``, where the rest of it begins (``""``: there is
none): ask again with that as the last argument.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tokenmesh_chaincode.contract.batch import COLLECTION
from tokenmesh_chaincode.contract.errors import ContractError
from tokenmesh_chaincode.contract.scan import Found, rows
from tokenmesh_chaincode.contract.state import INDEX
from tokenmesh_chaincode.contract.stub import Stub
from tokenmesh_chaincode.documents import canonical, is_name
from tokenmesh_chaincode.limits import (
    EXPIRE_ITEMS_MAX,
    FORGET_ITEMS_MAX,
    RECORD_KEEP_S,
    SWEEP_ITEMS_MAX,
    TIME_S_MAX,
)
from tokenmesh_chaincode.rules.arguments import Check, is_id, is_thumbprint, is_time, list_of
from tokenmesh_chaincode.state import Value

QUESTION_BYTES_MAX: Final = 4_096
LISTED_MAX: Final = 250
"""Wallets, allowances or proposals in one answer."""
DISCLOSED_MAX: Final = 50
"""Disclosures in one answer."""
SCANNED_MAX: Final = 10_000
"""Rows that are looked at for one answer about what is over."""
CURSOR_LENGTH_MAX: Final = 256

Answer = Any


class Ask:
    """The questions, over one stub."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def _get(self, *keys: str) -> list[Value | None]:
        if not keys:
            return []
        return [None if data is None else json.loads(data) for data in self._stub.get_states(keys)]

    def domain(self) -> Answer:
        (value,) = self._get("domain")
        return "" if value is None else value["id"]

    def policy(self) -> Answer:
        (value,) = self._get("policy")
        return value or {}

    def wallet(self, name: str) -> Answer:
        (value,) = self._get(f"wallet/{name}")
        return None if value is None else _wallet(value)

    def wallets(self, start: str = "") -> Answer:
        items, following = _page(rows(self._stub, "wallet/", start))
        return {"items": [_wallet(row.value) for row in items], "next": following}

    def balance(self, name: str) -> Answer:
        (balance,) = self._get(f"balance/{name}")
        earned = sum(row.value["tokens"] for row in rows(self._stub, f"credit/{name}/"))
        held, allowed = self._set_aside(f"{INDEX}/{name}/")
        return {
            "spendable": 0 if balance is None else balance["tokens"],
            "credits": earned,
            "held": held,
            "allowed": allowed,
        }

    def _set_aside(self, prefix: str) -> tuple[int, int]:
        """Tokens in open holds, and what is left in open allowances."""
        held = allowed = 0
        for chunk in _chunks(rows(self._stub, prefix)):
            allowances = []
            for row in chunk:
                _, _, kind, name = row.key.split("/", 3)
                if kind == "hold":
                    held += row.value["tokens"]
                else:
                    allowed += row.value["tokens"]
                    allowances.append(f"spent/{name}")
            allowed -= sum(spent["tokens"] for spent in self._get(*allowances) if spent is not None)
        return held, allowed

    def credits(self, name: str, limit: int) -> Answer:
        prefix = f"credit/{name}/"
        items, _ = _page(rows(self._stub, prefix), min(limit, SWEEP_ITEMS_MAX))
        return [{"id": row.key.removeprefix(prefix), "tokens": row.value["tokens"]} for row in items]

    def hold(self, payer: str, hold_id: str) -> Answer:
        (value,) = self._get(f"hold/{payer}/{hold_id}")
        return None if value is None else {"id": hold_id, **value}

    def allowance(self, allowance_id: str) -> Answer:
        value, spent = self._get(f"allowance/{allowance_id}", f"spent/{allowance_id}")
        return None if value is None else _allowance(allowance_id, value, spent)

    def allowances(self, payer: str, payee: str | None, start: str = "") -> Answer:
        """Those that have not ended; of one payee's a page may hold few, or none, and more may follow."""
        prefix = f"{INDEX}/{payer}/allowance/"
        items, following = _page(rows(self._stub, prefix, start))
        ids = [row.key.removeprefix(prefix) for row in items]
        values = self._get(*(f"allowance/{one}" for one in ids), *(f"spent/{one}" for one in ids))
        found = [
            _allowance(one, value, spent)
            for one, value, spent in zip(ids, values[: len(ids)], values[len(ids) :], strict=True)
            if value is not None and payee in (None, value["payee"])
        ]
        return {"items": found, "next": following}

    def proposals(self, now: int, start: str = "") -> Answer:
        """What can still be approved."""
        items, following = _page(rows(self._stub, "proposal/", start))
        found = [
            {"id": row.key.partition("/")[2], **_without(row.value, "done")}
            for row in items
            if not row.value["done"] and now < row.value["exp"]
        ]
        return {"items": found, "next": following}

    def expirable(self, now: int, limit: int, payer: str | None, start: str = "") -> Answer:
        prefix = f"{INDEX}/" if payer is None else f"{INDEX}/{payer}/"
        due, following = _sift(
            rows(self._stub, prefix, start), lambda row: row.value["due"] <= now, min(limit, EXPIRE_ITEMS_MAX)
        )
        holds, allowances = [], []
        for row in due:
            _, owner, kind, name = row.key.split("/", 3)
            if kind == "hold":
                holds.append([owner, name])
            else:
                allowances.append(name)
        return {"holds": holds, "allowances": allowances, "next": following}

    def forgettable(self, now: int, limit: int, start: str = "") -> Answer:
        """Whoever asks again and again goes round: from ``next`` on, and after the end from the beginning."""
        scanned = (row for prefix in _FORGOTTEN for row in rows(self._stub, prefix, start))
        before = now - RECORD_KEEP_S
        past, following = _sift(scanned, lambda row: _over(row) < before, min(limit, FORGET_ITEMS_MAX))
        answer: dict[str, Any] = {field: [] for field in _FORGOTTEN.values()}
        for row in past:
            kind, _, rest = row.key.partition("/")
            field = _FORGOTTEN[f"{kind}/"]
            answer[field].append(rest.split("/", 1) if "/" in rest else rest)
        return {**answer, "next": following}

    def disclosures(self, digests: list[str]) -> Answer:
        """What the private contracts with these digests are for: only a member of the collection can tell."""
        found = self._stub.get_private_datas(COLLECTION, digests) if digests else []
        return {
            digest: data.decode("ascii")
            for digest, data in zip(digests, found, strict=True)
            if data is not None
        }

    def supply(self) -> Answer:
        minted = burned = 0
        for row in rows(self._stub, "supply/"):
            tokens = row.value["tokens"]
            minted, burned = (minted + tokens, burned) if tokens > 0 else (minted, burned - tokens)
        accounted = sum(row.value["tokens"] for row in rows(self._stub, "balance/"))
        accounted += sum(row.value["tokens"] for row in rows(self._stub, "credit/"))
        accounted += sum(self._set_aside(f"{INDEX}/"))
        return {"minted": minted, "burned": burned, "accounted": accounted}


_FORGOTTEN: Final = {
    "allowance/": "allowances",
    "hold/": "holds",
    "op/": "operations",
    "proposal/": "proposals",
}
"""What can be forgotten, in the order of its keys, and what ``forget`` calls it."""


def _over(row: Found) -> int:
    """When what a record is about was over, as ``forget`` judges it; never for what is still open."""
    value = row.value
    open_still = value.get("state") == "open" or value.get("ended") is False
    return TIME_S_MAX if open_still else int(value["exp"] + value.get("grace_s", 0))


def _page(found: Iterator[Found], limit: int | None = None) -> tuple[list[Found], str]:
    """The first ``limit`` rows, or ``LISTED_MAX``, and the key of the next one."""
    limit = LISTED_MAX if limit is None else limit
    items: list[Found] = []
    for row in found:
        if len(items) == limit:
            return items, row.key
        items.append(row)
    return items, ""


def _sift(found: Iterator[Found], wanted: Callable[[Found], bool], limit: int) -> tuple[list[Found], str]:
    """At most ``limit`` rows that are wanted, of at most ``SCANNED_MAX``; and the key of the next one."""
    items: list[Found] = []
    for scanned, row in enumerate(found):
        if scanned == SCANNED_MAX or len(items) == limit:
            return items, row.key
        if wanted(row):
            items.append(row)
    return items, ""


def _chunks(found: Iterator[Found], size: int = 1_000) -> Iterator[list[Found]]:
    chunk: list[Found] = []
    for row in found:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    yield chunk


def _without(value: Value, name: str) -> Value:
    return {field: item for field, item in value.items() if field != name}


def _wallet(value: Value) -> Value:
    return {**_without(value, "certs"), "certificates": value["certs"]}


def _allowance(allowance_id: str, value: Value, spent: Value | None) -> Value:
    spent = spent or {"tokens": 0, "lanes": {}}
    return {"id": allowance_id, **value, "spent": spent["tokens"], "lanes": spent["lanes"]}


def _is_cursor(value: object) -> bool:
    return isinstance(value, str) and len(value) <= CURSOR_LENGTH_MAX


def _is_limit(value: object) -> bool:
    return type(value) is int and value >= 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_QUESTIONS: Final[Mapping[str, tuple[Callable[..., Answer], tuple[Check, ...]]]] = {
    "domain": (Ask.domain, ()),
    "policy": (Ask.policy, ()),
    "wallet": (Ask.wallet, (is_name,)),
    "wallets": (Ask.wallets, (_is_cursor,)),
    "balance": (Ask.balance, (is_name,)),
    "credits": (Ask.credits, (is_name, _is_limit)),
    "hold": (Ask.hold, (is_name, is_id)),
    "allowance": (Ask.allowance, (is_id,)),
    "allowances": (Ask.allowances, (is_name, _or_none(is_name), _is_cursor)),
    "proposals": (Ask.proposals, (is_time, _is_cursor)),
    "expirable": (Ask.expirable, (is_time, _is_limit, _or_none(is_name), _is_cursor)),
    "forgettable": (Ask.forgettable, (is_time, _is_limit, _is_cursor)),
    "disclosures": (Ask.disclosures, (list_of(is_thumbprint, DISCLOSED_MAX),)),
    "supply": (Ask.supply, ()),
}


def answer(stub: Stub) -> bytes:
    """The answer to the question in the stub's parameters: its name, and its arguments as a JSON array."""
    name, arguments = _read(stub)
    if name not in _QUESTIONS:
        raise ContractError("bad_argument", f"there is no question {name[:40]!r}: {', '.join(_QUESTIONS)}")
    question, checks = _QUESTIONS[name]
    if checks and checks[-1] is _is_cursor and len(arguments) == len(checks) - 1:
        arguments = [*arguments, ""]
    if len(arguments) != len(checks) or not all(map(_fits, checks, arguments)):
        raise ContractError("bad_argument", f"the question {name} takes other arguments")
    return canonical(question(Ask(stub), *arguments))


def _fits(check: Check, argument: object) -> bool:
    return check(argument)


def _read(stub: Stub) -> tuple[str, list[Any]]:
    if sum(map(len, stub.parameters)) > QUESTION_BYTES_MAX:
        raise ContractError("bad_argument", f"a question has at most {QUESTION_BYTES_MAX} bytes")
    try:
        question, data = stub.parameters
        name, arguments = question.decode("ascii"), json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ContractError(
            "bad_argument", "ask takes a question and a JSON array of its arguments"
        ) from error
    if not isinstance(arguments, list):
        raise ContractError("bad_argument", "the arguments of a question are a JSON array")
    return name, arguments

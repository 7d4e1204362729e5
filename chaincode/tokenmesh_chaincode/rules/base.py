"""What every operation of the rules works with: outcomes, refusals, the call, and the records of state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenmesh_chaincode.documents import Disclosures, Parser, Verifier
from tokenmesh_chaincode.limits import TOKENS_MAX
from tokenmesh_chaincode.rules.codes import OK
from tokenmesh_chaincode.state import State, Value


class Outcome(NamedTuple):
    """What an operation came to: ``code`` is ``"ok"`` or a refusal of :mod:`~.rules.codes`."""

    ok: bool
    code: str
    detail: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "code": self.code, "detail": self.detail}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Outcome:
        return cls(value["ok"], value["code"], value["detail"])


class Context(NamedTuple):
    """What the rules know of the world: ``now``, the ledger transaction's time in Unix seconds."""

    now: int


class Refusal(Exception):
    """Ends an operation: nothing of it happens. Never leaves the rules."""

    def __init__(self, code: str, **detail: Any) -> None:
        super().__init__(code)
        self.outcome = Outcome(False, code, detail)


class Given(NamedTuple):
    """What a ledger hands to the rules along with an operation; see :func:`~.rules.engine.apply`."""

    verify_many: Verifier
    parse_contract: Parser
    disclosures: Disclosures
    recorded: Outcome | None


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that is being carried out: by whom, when, under which policy, on which state.

    ``by`` is for whom it is done: the caller, or the proposer of what the caller has approved.
    """

    state: State
    now: int
    domain: Value
    policy: Value
    wallet: Value
    id: str
    by: str
    given: Given

    @property
    def name(self) -> str:
        name: str = self.wallet["name"]
        return name


Detail = dict[str, Any]
Argument = dict[str, Any]


class Act(NamedTuple):
    """One kind of operation: what it does, its argument's fields, and who may ask for it.

    ``when_frozen``: a frozen wallet may. ``needs_approval``: with a threshold above one this takes a
    proposal.
    """

    run: Callable[[Call, Argument], Detail]
    fields: Mapping[str, Callable[[Any], bool]]
    optional: frozenset[str] = frozenset()
    governors_only: bool = False
    when_frozen: bool = False
    needs_approval: Callable[[Call, Argument], bool] | None = None


def always(_call: Call, _argument: Argument) -> bool:
    """Of acts that take several governors whatever their argument."""
    return True


def ok(detail: Detail) -> Outcome:
    return Outcome(True, OK, detail)


def is_frozen(wallet: Value) -> bool:
    return wallet["frozen_at"] is not None


def wallet_of(state: State, name: str) -> Value:
    wallet = state.get(f"wallet/{name}")
    if wallet is None:
        raise Refusal("unknown_wallet", wallet=name)
    return wallet


def check_payee(call: Call, payee: str) -> None:
    """Refuse to set tokens aside for a payee that could not be paid with them."""
    if payee == call.name:
        raise Refusal("bad_argument", why="payer and payee are the same wallet")
    if is_frozen(wallet_of(call.state, payee)):
        raise Refusal("payee_frozen", wallet=payee)


def spend(call: Call, tokens: int) -> int:
    """Take tokens out of the caller's balance, which nobody else writes; return what is left."""
    key = f"balance/{call.name}"
    record = call.state.get(key)
    have: int = record["tokens"] if record else 0
    if have < tokens:
        raise Refusal("insufficient_funds", have=have, need=tokens)
    call.state.put(key, {"tokens": have - tokens})
    return have - tokens


def earn(call: Call, tokens: int) -> int:
    """Add tokens to the caller's balance; return what is there then."""
    key = f"balance/{call.name}"
    record = call.state.get(key)
    total: int = (record["tokens"] if record else 0) + tokens
    if total > TOKENS_MAX:
        raise Refusal("too_many_tokens", have=total - tokens, more=tokens)
    call.state.put(key, {"tokens": total})
    return total


def credit(call: Call, to: str, tokens: int, why: str) -> str | None:
    """Leave tokens for a wallet to sweep, in a row of their own that no other operation writes.

    The row's id follows from the operation's. Should a row of that id be left over from an operation that
    was forgotten since, the tokens are added to it: none are ever lost.
    """
    if tokens == 0:
        return None
    key = credit_key(call.name, call.id, to)
    before = call.state.get(key)
    total: int = tokens + (before["tokens"] if before else 0)
    if total > TOKENS_MAX:
        raise Refusal("too_many_tokens", more=tokens)
    call.state.put(key, {"tokens": total, "from": call.name, "why": why})
    return key.rpartition("/")[2]


def credit_key(by: str, operation_id: str, to: str) -> str:
    """The row in which an operation of the wallet ``by`` leaves tokens for the wallet ``to``."""
    return f"credit/{to}/{operation_id}" if to == by else f"credit/{to}/{by}:{operation_id}"


def issue(call: Call, tokens: int) -> None:
    """Note in a row of its own that supply has grown, or shrunk, by so many tokens."""
    key = f"supply/{call.name}/{call.id}"
    before = call.state.get(key)
    call.state.put(key, {"tokens": tokens + (before["tokens"] if before else 0)})


def end_of(allowance: Value) -> int:
    """When an allowance ends: at its expiry, or when its payer has closed it."""
    exp: int = allowance["exp"]
    closed_at: int | None = allowance["closed_at"]
    return exp if closed_at is None or closed_at > exp else closed_at

"""An operation that was read ahead: its contracts, its signatures, and the keys that the rules will read.

What a text says, and whether a key made a signature, does not depend on the state. So a ledger may find out
before an operation has its turn; and with the keys known, it fetches all that a batch needs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import (
    NO_DISCLOSURES,
    Contract,
    Disclosures,
    DocumentError,
    Operation,
    Signed,
    is_name,
)
from tokenmesh_chaincode.limits import (
    EXPIRE_ITEMS_MAX,
    FORGET_ITEMS_MAX,
    HOLD_ITEMS_MAX,
    SETTLE_ITEMS_MAX,
    SKIPPED_ITEMS_MAX,
    SWEEP_ITEMS_MAX,
    VOID_ITEMS_MAX,
)
from tokenmesh_chaincode.rules import Context, Outcome, apply
from tokenmesh_chaincode.rules.arguments import (
    Check,
    is_credit_id,
    is_id,
    is_time,
    is_tokens,
    list_of,
    tuple_of,
)
from tokenmesh_chaincode.rules.base import credit_key
from tokenmesh_chaincode.rules.enforcing import is_freeze, is_revocation
from tokenmesh_chaincode.state import State

Item: TypeAlias = tuple[Signed[Any], EllipticCurvePublicKey]
KeyOf: TypeAlias = Callable[[str, str], EllipticCurvePublicKey | None]
"""Gives the key in a wallet's certificate, by the wallet's name and the certificate's thumbprint."""


class Prepared:
    """An operation, read, with what is known of its signatures: what the rules ask, in their place.

    ``signed`` is None if the text is no operation.
    """

    __slots__ = ("carried", "checked", "disclosures", "read", "signed", "text")

    def __init__(self, text: str, disclosures: Disclosures = NO_DISCLOSURES) -> None:
        """``disclosures`` are those that came beside the operation, or more."""
        self.text = text
        self.signed: Signed[Operation] | None
        self.carried: list[Signed[Contract]] = []
        """The contracts in a settlement, as far as they can be read, in their order."""
        self.disclosures: dict[str, str] = {}
        """Of the private ones among them, as far as they came along."""
        self.read: dict[str, Signed[Contract]] = {}
        self.checked: dict[str, tuple[EllipticCurvePublicKey, bool]] = {}
        try:
            self.signed = documents.parse_operation(text)
        except DocumentError:
            self.signed = None
            return
        for contract in _texts(self.signed.body):
            try:
                signed = self.read[contract] = documents.parse_contract(contract)
            except DocumentError:
                continue  # the rules will say what is wrong with it
            self.carried.append(signed)
            sd = signed.body.sd
            if sd is not None and sd in disclosures:
                self.disclosures[sd] = disclosures[sd]

    def parse_contract(self, text: str) -> Signed[Contract]:
        """As ``documents.parse_contract``."""
        return self.read.get(text) or documents.parse_contract(text)

    def verify_many(self, items: Sequence[Item]) -> list[bool]:
        """As ``documents.verify_many``."""
        checked = self.checked
        if not checked:
            return documents.verify_many(items)
        results = []
        for signed, key in items:
            known = checked.get(signed.text)
            # A wallet that was registered since, or rotated, has a key that was not tried ahead.
            results.append(
                known[1] if known is not None and known[0] is key else documents.verify(signed, key)
            )
        return results


def check_ahead(some: Iterable[Prepared], key_of: KeyOf, verify_many: documents.Verifier) -> None:
    """Check all signatures of these operations, and of the contracts in them, in one call.

    Those of signers that are not known are left to the rules, which will say so.
    """
    wanted = [(one, signed, key) for one in some for signed, key in _signatures(one, key_of)]
    found = verify_many([(signed, key) for _, signed, key in wanted])
    for (one, signed, key), holds in zip(wanted, found, strict=True):
        one.checked[signed.text] = key, holds


def _signatures(one: Prepared, key_of: KeyOf) -> Iterator[Item]:
    if one.signed is None:
        return
    signed: Signed[Any]
    for signed in (one.signed, *one.read.values()):
        key = key_of(signed.header.kid, signed.header.x5t)
        if key is not None:
            yield signed, key


def apply_prepared(state: State, one: Prepared, context: Context, recorded: Outcome | None = None) -> Outcome:
    """Have the rules judge an operation, with what is known of it already; ``recorded`` as for ``apply``."""
    if one.signed is None:
        return apply(state, one.text, context)
    return apply(
        state,
        one.signed,
        context,
        verify_many=one.verify_many,
        parse_contract=one.parse_contract,
        disclosures=one.disclosures,
        recorded=recorded,
    )


def _texts(operation: Operation) -> Iterator[str]:
    """The texts of the contracts that an operation carries, if it has the form of a settlement."""
    items = operation.arg.get("items") if operation.act == "settle" else None
    if not isinstance(items, list) or len(items) > SETTLE_ITEMS_MAX:
        return
    for item in items:
        if isinstance(item, list) and item and isinstance(item[0], str):
            yield item[0]


def keys_read(one: Prepared) -> Iterator[str]:
    """Keys of the state that the rules will read for an operation, as far as its document tells.

    A forecast: what it leaves out is read when the rules ask for it, what it names for nothing is read for
    nothing. Only keys that can exist: an argument may say anything.
    """
    if one.signed is None:
        return
    body = one.signed.body
    yield "domain"
    yield "policy"
    yield f"wallet/{body.iss}"
    yield f"op/{body.iss}/{body.jti}"
    forecast = _READ.get(body.act)
    if forecast is not None:
        yield from forecast(one, body)


def keys_read_next(one: Prepared, state: State) -> Iterator[str]:
    """More keys that the rules will read, which the values of those from :func:`keys_read` tell."""
    if one.signed is None:
        return
    body = one.signed.body
    if body.act == "refill" and is_id(body.arg.get("id")):
        allowance = state.get(f"allowance/{body.arg['id']}")
        if allowance is not None:
            yield f"wallet/{allowance['payee']}"
    elif body.act == "expire":
        for allowance_id in _list(body, "allowances", _IDS):
            allowance = state.get(f"allowance/{allowance_id}")
            if allowance is not None:
                yield credit_key(body.iss, body.jti, allowance["payer"])
    elif body.act == "approve" and is_id(body.arg.get("proposal")):
        proposal = state.get(f"proposal/{body.arg['proposal']}")
        if proposal is not None:
            yield from (f"wallet/{name}" for name in proposal["approved"])


_IDS: Final = list_of(is_id, EXPIRE_ITEMS_MAX)
_EXPIRED: Final = list_of(tuple_of(is_name, is_id), EXPIRE_ITEMS_MAX)
_PLACED: Final = list_of(tuple_of(is_id, is_name, is_tokens, is_time), HOLD_ITEMS_MAX)
_VOIDED: Final = list_of(tuple_of(is_name, is_id), VOID_ITEMS_MAX)
_SWEPT: Final = list_of(is_credit_id, SWEEP_ITEMS_MAX)
_FORGOTTEN: Final = list_of(tuple_of(is_name, is_id), FORGET_ITEMS_MAX)
_FORGOTTEN_IDS: Final = list_of(is_id, FORGET_ITEMS_MAX)


def _list(body: Operation, field: str, check: Check) -> list[Any]:
    """The list in a field of the argument; an empty one if it does not have its form."""
    value = body.arg.get(field)
    return value if isinstance(value, list) and check(value) else []


def _named(body: Operation, field: str, prefix: str, check: Check) -> Iterator[str]:
    value = body.arg.get(field)
    if check(value):
        yield f"{prefix}/{value}"


def _mint(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"supply/{body.iss}/{body.jti}"
    yield f"balance/{body.iss}"


def _move(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"balance/{body.iss}"
    to = body.arg.get("to")
    if isinstance(to, str) and is_name(to):
        yield f"wallet/{to}"
        yield credit_key(body.iss, body.jti, to)


def _sweep(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"balance/{body.iss}"
    for row in _list(body, "credits", _SWEPT):
        yield f"credit/{body.iss}/{row}"


def _hold(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"balance/{body.iss}"
    yield from _named(body, "id", f"hold/{body.iss}", is_id)
    yield from _named(body, "payee", "wallet", is_name)


def _holds(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"balance/{body.iss}"
    payees: dict[str, None] = {}
    for hold_id, payee, _, _ in _list(body, "holds", _PLACED):
        payees[payee] = None
        yield f"hold/{body.iss}/{hold_id}"
    yield from (f"wallet/{payee}" for payee in payees)


def _allowance(_one: Prepared, body: Operation) -> Iterator[str]:
    yield from _named(body, "id", "allowance", is_id)
    if body.act != "close":
        yield f"balance/{body.iss}"
    if body.act == "open":
        yield from _named(body, "payee", "wallet", is_name)


def _settle(one: Prepared, body: Operation) -> Iterator[str]:
    payers: dict[str, None] = {}
    captured: dict[str, None] = {}
    allowances: dict[str, None] = {}
    for signed in one.carried:
        contract = signed.body
        payers[contract.iss] = None
        if contract.via == "hold":
            captured[contract.iss] = None
            yield f"hold/{contract.iss}/{contract.jti}"
        else:
            allowances[contract.via] = None
    for skipped in _list(body, "skipped", _SKIPPED):
        allowances[skipped[0]] = None
    yield from (f"wallet/{payer}" for payer in payers)
    yield from (credit_key(body.iss, body.jti, payer) for payer in captured)
    yield from _allowances(allowances)
    yield credit_key(body.iss, body.jti, body.iss)


def _is_skip(value: object) -> bool:
    return isinstance(value, list) and bool(value) and is_id(value[0])


_SKIPPED: Final = list_of(_is_skip, SKIPPED_ITEMS_MAX)


def _allowances(ids: Iterable[str]) -> Iterator[str]:
    for allowance_id in ids:
        yield f"allowance/{allowance_id}"
        yield f"spent/{allowance_id}"


def _give_back(_one: Prepared, body: Operation) -> Iterator[str]:
    payers: dict[str, None] = {}
    for payer, hold_id in _list(body, "holds", _VOIDED if body.act == "void" else _EXPIRED):
        payers[payer] = None
        yield f"hold/{payer}/{hold_id}"
    yield from (credit_key(body.iss, body.jti, payer) for payer in payers)
    if body.act == "expire":
        yield from _allowances(_list(body, "allowances", _IDS))


def _forget(_one: Prepared, body: Operation) -> Iterator[str]:
    for prefix, field in (("op", "operations"), ("hold", "holds")):
        for owner, name in _list(body, field, _FORGOTTEN):
            yield f"{prefix}/{owner}/{name}"
    for prefix, field in (("allowance", "allowances"), ("proposal", "proposals")):
        for name in _list(body, field, _FORGOTTEN_IDS):
            yield f"{prefix}/{name}"


def _wallet(_one: Prepared, body: Operation) -> Iterator[str]:
    yield from _named(body, "name", "wallet", is_name)


def _set_policy(_one: Prepared, _body: Operation) -> Iterator[str]:
    yield "governors"


def _enforce(_one: Prepared, body: Operation) -> Iterator[str]:
    for field, check in (("frozen", is_freeze), ("revoked", is_revocation)):
        value = body.arg.get(field)
        if isinstance(value, list) and check(value):
            yield f"wallet/{value[0]}"


def _propose(_one: Prepared, body: Operation) -> Iterator[str]:
    yield f"proposal/{body.jti}"


def _approve(_one: Prepared, body: Operation) -> Iterator[str]:
    yield from _named(body, "proposal", "proposal", is_id)


_READ: Final[dict[str, Callable[[Prepared, Operation], Iterator[str]]]] = {
    "mint": _mint,
    "burn": _mint,
    "grant": _move,
    "transfer": _move,
    "sweep": _sweep,
    "hold": _hold,
    "holds": _holds,
    "void": _give_back,
    "open": _allowance,
    "refill": _allowance,
    "close": _allowance,
    "settle": _settle,
    "expire": _give_back,
    "forget": _forget,
    "register": _wallet,
    "update": _wallet,
    "rotate": _wallet,
    "revoke": _wallet,
    "freeze": _wallet,
    "unfreeze": _wallet,
    "set_policy": _set_policy,
    "enforce": _enforce,
    "propose": _propose,
    "approve": _approve,
}

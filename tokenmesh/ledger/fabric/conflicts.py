"""Which operations must not be in two Fabric transactions at once: those with a common conflict key.

Two transactions of one block, of which one writes a key that the other has read, cost each other a round:
the later one is invalid and has to be proposed anew. So the pipeline keeps apart what it can see: operations
with a common key travel in one transaction, or one after the other. What it cannot see (other processes) is
found by the peers, and tried again; so nothing depends on these keys but speed, and the order in which one
wallet's operations are carried out.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

GOVERNANCE = "governance"
"""What governance does touches what all operations read: one of them at a time."""
ENFORCE = "enforce"
"""Of an operation whose time says when a change was in the state of those who endorse it."""

Claims = Mapping[str, Any]

# Of bytes: to translate a text, Python looks up each of its characters anew.
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
# Inside a string every quotation mark has a backslash before it, so these find names and not values.
_VIA, _ISS, _JTI = (re.compile(rb'"%s"\s*:\s*"([^"\\]*)"' % name) for name in (b"via", b"iss", b"jti"))


def conflict_keys(operation: str) -> frozenset[str]:
    """The conflict keys of an operation's document; of a text that is none, none at all."""
    claims = _claims(operation)
    arg = claims.get("arg")
    if not isinstance(arg, dict):
        return frozenset()
    issuer = claims.get("iss")
    keys = {f"op/{issuer}/{claims.get('jti')}"}
    keys_of = _KEYS.get(str(claims.get("act")))
    if keys_of is None:  # governance, or an act that the rules will not know
        keys |= {GOVERNANCE, f"balance/{issuer}"}
    else:
        keys.update(keys_of(issuer, arg))
    return frozenset(keys)


def _claims(document: str) -> Claims:
    """What a JWS says, unread by the rules: nothing if it says nothing."""
    try:
        claims = json.loads(_payload(document).decode())
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _payload(document: str) -> bytes:
    """The JSON in a JWS; nothing if there is none."""
    try:
        return a2b_base64(document.encode("ascii").split(b".", 2)[1].translate(_TO_BASE64) + b"==")
    except (ValueError, IndexError):
        return b""


def _enforce(issuer: Any, _arg: Claims) -> Iterator[str]:
    yield from (GOVERNANCE, f"balance/{issuer}", ENFORCE)


def _balance(issuer: Any, _arg: Claims) -> Iterator[str]:
    yield f"balance/{issuer}"


def _hold(issuer: Any, arg: Claims) -> Iterator[str]:
    yield from (f"balance/{issuer}", f"hold/{issuer}/{arg.get('id')}")


def _holds(issuer: Any, arg: Claims) -> Iterator[str]:
    yield f"balance/{issuer}"
    for item in _list(arg, "holds"):
        if isinstance(item, list) and item:
            yield f"hold/{issuer}/{item[0]}"


def _allowance(issuer: Any, arg: Claims) -> Iterator[str]:
    yield from (f"balance/{issuer}", f"allowance/{arg.get('id')}")


def _settle(_issuer: Any, arg: Claims) -> Iterator[str]:
    """The allowances and holds of the contracts: each contract says by what it is paid."""
    for item in _list(arg, "items"):
        if not (isinstance(item, list) and item and isinstance(item[0], str)):
            continue
        contract = _payload(item[0])
        via = _claim(_VIA, contract)
        if via == "hold":
            yield f"hold/{_claim(_ISS, contract)}/{_claim(_JTI, contract)}"
        elif via:
            yield f"allowance/{via}"
    for item in _list(arg, "skipped"):
        if isinstance(item, list) and item:
            yield f"allowance/{item[0]}"


def _claim(form: re.Pattern[bytes], contract: bytes) -> str:
    """One claim of a contract, without reading all of it: there may be thousands."""
    found = form.search(contract)
    return found[1].decode("ascii", "replace") if found else ""


def _items(_issuer: Any, arg: Claims) -> Iterator[str]:
    """What void, expire and forget name: ids, or whose and the id."""
    for field, kind in (("holds", "hold"), ("operations", "op")):
        for item in _list(arg, field):
            if isinstance(item, list):
                yield "/".join([kind, *map(str, item)])
    for item in _list(arg, "allowances"):
        yield f"allowance/{item}"
    if arg.get("proposals"):
        yield GOVERNANCE


def _list(arg: Claims, field: str) -> list[Any]:
    found = arg.get(field)
    return found if isinstance(found, list) else []


_KEYS: dict[str, Callable[[Any, Claims], Iterator[str]]] = {
    "hold": _hold,
    "holds": _holds,
    "open": _allowance,
    "refill": _allowance,
    "close": _allowance,
    "transfer": _balance,
    "grant": _balance,
    "mint": _balance,
    "burn": _balance,
    "sweep": _balance,
    "settle": _settle,
    "void": _items,
    "expire": _items,
    "forget": _items,
    "enforce": _enforce,
}

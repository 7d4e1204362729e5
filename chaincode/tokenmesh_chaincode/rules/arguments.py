"""The forms of operations' arguments. Strict: a field that is not known is refused, not ignored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from tokenmesh_chaincode.documents import is_form
from tokenmesh_chaincode.limits import CERTIFICATE_BYTES_MAX, TIME_S_MAX, TOKENS_MAX, URL_LENGTH_MAX
from tokenmesh_chaincode.rules.base import Act, Argument, Refusal

Check = Callable[[Any], bool]

_URL: Final = re.compile(r"https?://[\x21-\x7e]+")
_CREDIT: Final = re.compile(r"(?:[a-z0-9._-]{1,63}:)?[A-Za-z0-9_-]{1,64}")


def is_id(value: object) -> bool:
    return is_form("id", value)


def is_allowance_id(value: object) -> bool:
    # "hold" in a contract's `via` means the other way to pay.
    return is_form("id", value) and value != "hold"


def is_credit_id(value: object) -> bool:
    return isinstance(value, str) and _CREDIT.fullmatch(value) is not None


def is_tokens(value: object) -> bool:
    return type(value) is int and 1 <= value <= TOKENS_MAX


def is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= TIME_S_MAX


def is_role(value: object) -> bool:
    return value in ("service", "governor") if isinstance(value, str) else False


def is_url(value: object) -> bool:
    """Where a service is found: absolute, ``http`` or ``https``; ``None`` for nowhere."""
    if value is None:
        return True
    return isinstance(value, str) and len(value) <= URL_LENGTH_MAX and _URL.fullmatch(value) is not None


def is_pem(value: object) -> bool:
    return isinstance(value, str) and len(value) <= CERTIFICATE_BYTES_MAX and value.isascii()


def is_thumbprint(value: object) -> bool:
    return is_form("sd", value)


def is_act(value: object) -> bool:
    return is_form("act", value)


def is_object(value: object) -> bool:
    return type(value) is dict


def list_of(check: Check, longest: int) -> Check:
    """A check for lists of at most ``longest`` items, each as ``check`` wants it."""

    def is_list(value: object) -> bool:
        return type(value) is list and len(value) <= longest and all(map(check, value))

    return is_list


def tuple_of(*checks: Check) -> Check:
    """A check for lists of as many items as there are checks, each as its check wants it."""

    def is_tuple(value: object) -> bool:
        if type(value) is not list or len(value) != len(checks):
            return False
        return all(check(item) for check, item in zip(checks, value, strict=True))

    return is_tuple


def check_argument(act: Act, argument: Argument) -> None:
    """Refuse an argument with a field missing, unknown, or not of its form."""
    for field, check in act.fields.items():
        if field not in argument:
            if field not in act.optional:
                raise Refusal("bad_argument", why=f"the field {field} is missing")
        elif not check(argument[field]):
            raise Refusal("bad_argument", why=f"the field {field} does not have its form")
    if len(argument) > len(act.fields) or not act.fields.keys() >= argument.keys():
        known = ", ".join(act.fields)
        raise Refusal("bad_argument", why=f"a field that is not known; known are: {known}")

"""The policy: what governance may set, and who may pay whom for what."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Final

from tokenmesh_chaincode.limits import (
    GOVERNORS_MAX,
    OPERATION_NAME_LENGTH_MAX,
    POLICY_RULES_MAX,
    POLICY_SECONDS_MAX,
    TIME_S_MAX,
    TOKENS_MAX,
)

Policy = dict[str, Any]

# Each number with the least and the most it may be.
_NUMBERS: Final = {
    "version": (1, TOKENS_MAX),
    "threshold": (1, GOVERNORS_MAX),
    "contract_ttl_s_max": (1, POLICY_SECONDS_MAX),
    "hold_ttl_s_max": (1, POLICY_SECONDS_MAX),
    "allowance_ttl_s_max": (1, POLICY_SECONDS_MAX),
    "grace_s": (1, POLICY_SECONDS_MAX),
    "propagation_s": (0, POLICY_SECONDS_MAX),
    "rotation_overlap_s": (0, POLICY_SECONDS_MAX),
    "tokens_max": (1, TOKENS_MAX),
}
_PATTERNS: Final = ("payer", "payee", "operation")
_EFFECTS: Final = ("allow", "deny")


class PolicyError(ValueError):
    """A policy does not have its form; the message names the field and what would be right."""


def default_policy() -> Policy:
    """The policy of a new ledger: everyone may pay everyone, one governor suffices."""
    return {
        "version": 1,
        "since": 0,
        "threshold": 1,
        "contract_ttl_s_max": 300,
        "hold_ttl_s_max": 3600,
        "allowance_ttl_s_max": 86_400,
        "grace_s": 300,
        "propagation_s": 5,
        "rotation_overlap_s": 600,
        "tokens_max": 10**9,
        "default": "allow",
        "rules": [],
    }


def check_policy(policy: object) -> Policy:
    """Return the policy if it is complete and every field has its form; :class:`PolicyError` otherwise."""
    if not isinstance(policy, dict):
        raise PolicyError("a policy is a JSON object")
    known = {*_NUMBERS, "since", "default", "rules"}
    if policy.keys() != known:
        odd = ", ".join(sorted(map(str, policy.keys() ^ known)))
        raise PolicyError(f"fields missing or not known: {odd[:200]}")
    for field, (least, most) in _NUMBERS.items():
        value = policy[field]
        if type(value) is not int or not least <= value <= most:
            raise PolicyError(f"{field} is a whole number from {least} to {most}")
    since = policy["since"]
    if since is not None and (type(since) is not int or not 0 <= since <= TIME_S_MAX):
        raise PolicyError(f"since is null or a whole number from 0 to {TIME_S_MAX}")
    if not _is_effect(policy["default"]):
        raise PolicyError("default is allow or deny")
    rules = policy["rules"]
    if type(rules) is not list or len(rules) > POLICY_RULES_MAX:
        raise PolicyError(f"rules is a list of at most {POLICY_RULES_MAX}")
    for number, rule in enumerate(rules):
        _check_rule(number, rule)
    return policy


def _is_effect(value: object) -> bool:
    return isinstance(value, str) and value in _EFFECTS


def _check_rule(number: int, rule: object) -> None:
    if type(rule) is not dict or rule.keys() != {*_PATTERNS, "effect"}:
        raise PolicyError(f"rule {number} has the fields payer, payee, operation and effect")
    for field in _PATTERNS:
        pattern = rule[field]
        if not isinstance(pattern, str) or not 1 <= len(pattern) <= OPERATION_NAME_LENGTH_MAX:
            raise PolicyError(f"{field} of rule {number} is a pattern such as *, shop-* or GET /quote/*")
        if not _is_storable(pattern):
            raise PolicyError(f"{field} of rule {number} is not text that UTF-8 can hold")
    if not _is_effect(rule["effect"]):
        raise PolicyError(f"the effect of rule {number} is allow or deny")


def _is_storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def allows(policy: Policy, payer: str, payee: str, operation: str) -> bool:
    """Whether policy lets this payer pay this payee for this operation: the first rule that matches says.

    Patterns are shell globs (``fnmatch``), and tell capital from small letters.
    """
    for rule in policy["rules"]:
        if (
            fnmatchcase(payer, rule["payer"])
            and fnmatchcase(payee, rule["payee"])
            and fnmatchcase(operation, rule["operation"])
        ):
            return bool(rule["effect"] == "allow")
    return bool(policy["default"] == "allow")

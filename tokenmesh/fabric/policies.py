"""Signature policies, written as Fabric's tools write them: ``AND('Org1MSP.peer', OR('Org2MSP.member', …))``.

Operators are ``AND``, ``OR`` and ``OutOf(n, …)``; a principal is ``'MSP.ROLE'`` with one of the roles member,
admin, client, peer and orderer (``common/policydsl`` in Fabric's source).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from tokenmesh.fabric.errors import FabricError

TEXT_MAX = 10_000
DEPTH_MAX = 20
TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z]+)|(?P<number>\d+)|(?P<text>'[^']*'|\"[^\"]*\")|(?P<mark>[(),]))")
ROLES = {"member": 0, "admin": 1, "client": 2, "peer": 3, "orderer": 4}


class PolicyError(FabricError):
    """A policy is not written as it is to be; the message says where."""


def parse_policy(text: str) -> policies_pb2.SignaturePolicyEnvelope:
    """The policy as Fabric keeps it. Raises :class:`PolicyError`."""
    if len(text) > TEXT_MAX:
        raise PolicyError(f"a policy of more than {TEXT_MAX} characters")
    reader = _Reader(text)
    rule = reader.rule(0)
    reader.end()
    principals = [_principal(*name) for name in reader.principals]
    return policies_pb2.SignaturePolicyEnvelope(version=0, rule=rule, identities=principals)


def _principal(msp_id: str, role: str) -> msp_principal_pb2.MSPPrincipal:
    named = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=ROLES[role])
    return msp_principal_pb2.MSPPrincipal(
        principal_classification=msp_principal_pb2.MSPPrincipal.ROLE, principal=named.SerializeToString()
    )


class _Reader:
    """Recursive descent over the tokens of one policy."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = next(self._tokens)
        self.principals: list[tuple[str, str]] = []

    def rule(self, depth: int) -> policies_pb2.SignaturePolicy:
        kind, value, _ = self._next
        if depth > DEPTH_MAX:
            raise self._wrong(f"is nested more than {DEPTH_MAX} deep")
        if kind == "text":
            return policies_pb2.SignaturePolicy(signed_by=self._signed_by(value))
        if kind != "word" or value.lower() not in ("and", "or", "outof"):
            raise self._wrong("is neither AND, OR, OutOf nor 'MSP.role'")
        self._take("word")
        self._take("mark", "(")
        needed = self._needed() if value.lower() == "outof" else None
        rules = [self.rule(depth + 1)]
        while self._next[1] == ",":
            self._take("mark", ",")
            rules.append(self.rule(depth + 1))
        self._take("mark", ")")
        count = {"and": len(rules), "or": 1}.get(value.lower(), needed)
        if count is None or not 0 < count <= len(rules):
            raise self._wrong(f"asks for {count} out of {len(rules)}")
        return policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=count, rules=rules)
        )

    def end(self) -> None:
        if self._next[0] != "end":
            raise self._wrong("is more than one policy")

    def _needed(self) -> int:
        value = self._next[1].strip("'\"")
        if self._next[0] not in ("number", "text") or not value.isdigit():
            raise self._wrong("is no number, as OutOf has it first")
        self._take(self._next[0])
        self._take("mark", ",")
        return int(value)

    def _signed_by(self, quoted: str) -> int:
        msp_id, _, role = quoted[1:-1].rpartition(".")
        if not msp_id or role.lower() not in ROLES:
            raise self._wrong(f"is to be 'MSP.ROLE' with a role of {', '.join(ROLES)}")
        self._take("text")
        name = (msp_id, role.lower())
        if name not in self.principals:
            self.principals.append(name)
        return self.principals.index(name)

    def _take(self, kind: str, value: str | None = None) -> None:
        if self._next[0] != kind or (value is not None and self._next[1] != value):
            raise self._wrong(f"is not {value or kind}")
        self._next = next(self._tokens)

    def _split(self) -> Iterator[tuple[str, str, int]]:
        at = 0
        while self._text[at:].strip():
            found = TOKEN.match(self._text, at)
            if found is None:
                self._next = ("", self._text[at:], at)
                raise self._wrong("cannot be read")
            kind = str(found.lastgroup)
            yield kind, found.group(kind), found.start(kind)
            at = found.end()
        yield "end", "", len(self._text)

    def _wrong(self, what: str) -> PolicyError:
        _, value, at = self._next
        return PolicyError(f"the policy {self._text!r}, at character {at}: {value or 'its end'!r} {what}")

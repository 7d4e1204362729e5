"""A second opinion of the token economy: what each operation must come to, written from the docs alone.

It shares no line with the rules. It reads documents by itself, checks signatures by itself, and keeps its own
books; the ledger's outcomes and state are held against it, operation by operation. It knows what honest and
crooked services of the simulation do to a ledger, and no more: an act that it does not know is an error.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

SKEW_S = 10
OLDEST_S = 600
_ECDSA = ec.ECDSA(hashes.SHA256())


class Read(NamedTuple):
    """A document, taken apart: who is said to have signed it, what it says, and whether they have."""

    signer: str
    body: dict[str, Any]
    holds: bool
    digest: str


def _bytes(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@dataclass
class Hold:
    payer: str
    payee: str
    tokens: int
    opened_at: int
    exp: int
    grace_s: int
    state: str = "open"
    charged: int = 0


@dataclass
class Allowance:
    payer: str
    payee: str
    tokens: int
    opened_at: int
    exp: int
    grace_s: int
    ended: bool = False
    spent: int = 0
    used: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class Frozen:
    """A freeze: when it was decided, and since when it is in force."""

    at: int
    since: int | None = None


WHEN_FROZEN = ("sweep", "void", "settle", "expire")


class Refused(Exception):
    """An operation, or one item of it, is refused: the code, and what an outcome says beside it."""

    def __init__(self, code: str, **detail: Any) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class Economy:
    """The books. ``keys`` are the wallets' public keys, ``policy`` what the ledger was begun with."""

    def __init__(
        self, domain: str, keys: Mapping[str, ec.EllipticCurvePublicKey], policy: Mapping[str, Any]
    ) -> None:
        self.domain = domain
        self.keys = keys
        self.policy = policy
        self.frozen: dict[str, Frozen] = {}
        self.wallets: set[str] = {"governance"}
        self.supply = 0
        self.balances: defaultdict[str, int] = defaultdict(int)
        self.credits: dict[tuple[str, str], int] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.allowances: dict[str, Allowance] = {}
        self.outcomes: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        """What each operation came to, by issuer and id, with the digest of what it says."""
        self.settled: dict[tuple[str, str, str], int] = {}
        """What was charged for a contract, by payee, payer and id."""
        self._read: dict[str, Read] = {}

    def read(self, text: str) -> Read:
        """Take a document apart, and check its signature."""
        found = self._read.get(text)
        if found is None:
            head, body, signature = text.split(".")
            signer = json.loads(_bytes(head))["kid"]
            raw = _bytes(signature)
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            try:
                self.keys[signer].verify(encode_dss_signature(r, s), f"{head}.{body}".encode(), _ECDSA)
                holds = True
            except (InvalidSignature, KeyError):
                holds = False
            digest = hashlib.sha256(body.encode()).hexdigest()
            found = self._read[text] = Read(signer, json.loads(_bytes(body)), holds, digest)
        return found

    def apply(self, text: str, now: int) -> dict[str, Any]:
        """Enter an operation that the ledger has recorded at ``now``; what it must have come to."""
        signed = self.read(text)
        body = signed.body
        key = (body["iss"], body["jti"])
        assert signed.holds, f"the ledger took an operation {key} that its wallet did not sign"
        assert signed.signer == body["iss"], f"{signed.signer} signed for {body['iss']}"
        assert body["dom"] == self.domain, "the ledger took an operation for another one"
        assert key not in self.outcomes, f"the ledger has carried out {body['act']} {key} a second time"
        assert body["iat"] <= now + SKEW_S, f"{body['act']} {key} was done before its time"
        assert now <= body["exp"], f"{body['act']} {key} was done {now - body['exp']} s after its time"
        try:
            self._check_caller(body["iss"], body["act"])
            detail = getattr(self, f"_{body['act']}")(body["iss"], body["jti"], now, body["arg"])
            outcome = {"ok": True, "code": "ok", "detail": detail}
        except Refused as refused:
            outcome = {"ok": False, "code": refused.code, "detail": refused.detail}
        self.outcomes[key] = (signed.digest, outcome)
        return outcome

    def _check_caller(self, by: str, act: str) -> None:
        if by in self.frozen and act not in WHEN_FROZEN:
            raise Refused("frozen", wallet=by)

    @property
    def set_aside(self) -> dict[str, int]:
        """What each wallet has in open holds and allowances."""
        sums: defaultdict[str, int] = defaultdict(int)
        for hold in self.holds.values():
            if hold.state == "open":
                sums[hold.payer] += hold.tokens
        for allowance in self.allowances.values():
            if not allowance.ended:
                sums[allowance.payer] += allowance.tokens - allowance.spent
        return sums

    def total(self, wallet: str) -> int:
        """All that a wallet has, wherever it is."""
        incoming = sum(tokens for (name, _), tokens in self.credits.items() if name == wallet)
        return self.balances[wallet] + incoming + self.set_aside.get(wallet, 0)

    def why_forbidden(self, contract: Mapping[str, Any]) -> str | None:
        """Why nobody may be paid with a contract any more, whose payee could know that when it was made."""
        frozen = self.frozen.get(contract["iss"])
        if frozen is not None and self._could_know(contract, frozen.since):
            return "frozen"
        if self._could_know(contract, self.policy["since"]) and any(
            (rule["payer"], rule["operation"]) == (contract["iss"], contract["op"])
            for rule in self.policy["rules"]
        ):
            return "forbidden"
        return None

    def _could_know(self, contract: Mapping[str, Any], since: int | None) -> bool:
        return since is not None and contract["iat"] > since + self.policy["propagation_s"]

    # The books

    def _spend(self, wallet: str, tokens: int) -> int:
        have = self.balances[wallet]
        if have < tokens:
            raise Refused("insufficient_funds", have=have, need=tokens)
        self.balances[wallet] -= tokens
        return self.balances[wallet]

    def _credit(self, by: str, jti: str, to: str, tokens: int) -> str | None:
        if tokens == 0:
            return None
        row = jti if by == to else f"{by}:{jti}"
        self.credits[to, row] = self.credits.get((to, row), 0) + tokens
        return row

    # What operations do

    def _mint(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        tokens = arg["tokens"]
        self.supply += tokens
        self.balances[by] += tokens
        return {"balance": self.balances[by]}

    def _register(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any] | None:
        self.wallets.add(arg["name"])
        return None

    def _grant(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        balance = self._spend(by, arg["tokens"])
        return {"balance": balance, "credit": self._credit(by, jti, arg["to"], arg["tokens"])}

    def _sweep(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        rows = arg["credits"]
        found = [self.credits.pop((by, row)) for row in rows if (by, row) in self.credits]
        self.balances[by] += sum(found)
        detail = {"swept": len(found), "tokens": sum(found), "missing": len(rows) - len(found)}
        return {**detail, "balance": self.balances[by]} if found else detail

    def _freeze(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        name = arg["name"]
        frozen = self.frozen.setdefault(name, Frozen(now))
        enforce = {"enforce": {"frozen": [name, frozen.at]}} if frozen.since is None else {}
        return {"frozen_at": frozen.at, **enforce}

    def _unfreeze(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        self.frozen.pop(arg["name"], None)
        return {}

    def _set_policy(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        version = self.policy["version"] + 1
        self.policy = {**arg["policy"], "version": version, "since": None}
        return {"version": version, "enforce": {"policy": version}}

    def _enforce(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        changes = 0
        if arg.get("policy") == self.policy["version"] and self.policy["since"] is None:
            self.policy = {**self.policy, "since": now}
            changes += 1
        name, at = arg.get("frozen", ("", 0))
        frozen = self.frozen.get(name)
        if frozen is not None and frozen.at == at and frozen.since is None:
            frozen.since = now
            changes += 1
        return {"since": now, "changes": changes}

    def _terms(self, by: str, payee: str, tokens: int, exp: int, now: int, ttl_s: int) -> None:
        if not now < exp <= now + ttl_s:
            raise Refused("bad_expiry", now=now, ttl_s_max=ttl_s)
        assert payee in self.wallets - {by}, "nobody in the simulation asks for that"

    def _hold(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        balance = self._place(by, now, arg["id"], arg["payee"], arg["tokens"], arg["exp"])
        return {"existing": True} if balance is None else {"balance": balance}

    def _holds(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        refused: dict[str, str] = {}
        new = []
        for name, payee, tokens, exp in arg["holds"]:
            try:
                balance = self._place(by, now, name, payee, tokens, exp)
            except Refused as error:
                refused[name] = error.code
            else:
                new.append(0 if balance is None else tokens)
        return {"placed": len(new), "tokens": sum(new), "refused": refused}

    def _place(self, by: str, now: int, name: str, payee: str, tokens: int, exp: int) -> int | None:
        """Place a hold; what is left then, or None if it is there."""
        known = self.holds.get((by, name))
        if known is not None:
            if (known.payee, known.tokens, known.exp) != (payee, tokens, exp):
                raise Refused("id_reused")
            if known.state != "open":
                raise Refused("hold_ended", state=known.state)
            return None
        self._terms(by, payee, tokens, exp, now, self.policy["hold_ttl_s_max"])
        balance = self._spend(by, tokens)
        self.holds[by, name] = Hold(by, payee, tokens, now, exp, self.policy["grace_s"])
        return balance

    def _open(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        name, payee, tokens, exp = arg["id"], arg["payee"], arg["tokens"], arg["exp"]
        known = self.allowances.get(name)
        if known is not None:
            if (known.payer, known.payee, known.tokens) != (by, payee, tokens):
                raise Refused("id_reused")
            if known.ended:
                raise Refused("allowance_ended")
            return {"existing": True}
        self._terms(by, payee, tokens, exp, now, self.policy["allowance_ttl_s_max"])
        balance = self._spend(by, tokens)
        self.allowances[name] = Allowance(by, payee, tokens, now, exp, self.policy["grace_s"])
        return {"balance": balance}

    def _refill(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        tokens = arg["tokens"]
        allowance = self.allowances.get(arg["id"])
        if allowance is None:
            raise Refused("unknown_allowance")
        if allowance.payer != by:
            raise Refused("not_yours")
        if allowance.ended or now >= allowance.exp:
            raise Refused("allowance_ended")
        balance = self._spend(by, tokens)
        allowance.tokens += tokens
        return {"balance": balance, "tokens": allowance.tokens}

    def _void(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        refused: dict[str, str] = {}
        back: defaultdict[str, int] = defaultdict(int)
        voided = 0
        for payer, hold_id in arg["holds"]:
            hold = self.holds.get((payer, hold_id))
            if hold is None:
                refused[f"{payer}/{hold_id}"] = "unknown_hold"
            elif hold.payee != by:
                refused[f"{payer}/{hold_id}"] = "wrong_payee"
            elif hold.state != "open":
                refused[f"{payer}/{hold_id}"] = "hold_ended"
            else:
                hold.state = "void"
                back[payer] += hold.tokens
                voided += 1
        for payer, tokens in back.items():
            self._credit(by, jti, payer, tokens)
        return {"voided": voided, "tokens": sum(back.values()), "refused": refused}

    def _expire(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        refused: dict[str, str] = {}
        back: defaultdict[str, int] = defaultdict(int)
        ended = {"holds": 0, "allowances": 0}
        for payer, hold_id in arg.get("holds", []):
            hold = self.holds.get((payer, hold_id))
            if hold is None:
                refused[f"{payer}/{hold_id}"] = "unknown_hold"
            elif hold.state != "open":
                refused[f"{payer}/{hold_id}"] = "hold_ended"
            elif now < hold.exp + hold.grace_s:
                refused[f"{payer}/{hold_id}"] = "not_expired"
            else:
                hold.state = "expired"
                back[payer] += hold.tokens
                ended["holds"] += 1
        for allowance_id in arg.get("allowances", []):
            allowance = self.allowances.get(allowance_id)
            if allowance is None:
                refused[allowance_id] = "unknown_allowance"
            elif allowance.ended:
                refused[allowance_id] = "allowance_ended"
            elif now < allowance.exp + allowance.grace_s:
                refused[allowance_id] = "not_expired"
            else:
                allowance.ended = True
                back[allowance.payer] += allowance.tokens - allowance.spent
                ended["allowances"] += 1
        for payer, tokens in back.items():
            self._credit(by, jti, payer, tokens)
        return {**ended, "tokens": sum(back.values()), "refused": refused}

    def _settle(self, by: str, jti: str, now: int, arg: Any) -> dict[str, Any]:
        refused: dict[str, str] = {}
        rests: defaultdict[str, int] = defaultdict(int)
        settled = tokens = 0
        for text, charged in arg["items"]:
            signed = self.read(text)
            contract = signed.body
            name = f"{contract['iss']}/{contract['jti']}"
            try:
                rest = self._settle_one(by, now, signed, charged)
            except Refused as error:
                refused.setdefault(name, error.code)
                continue
            rests[contract["iss"]] += rest
            settled += 1
            tokens += charged
            key = (by, contract["iss"], contract["jti"])
            assert key not in self.settled, f"the ledger has settled contract {name} twice"
            self.settled[key] = charged
        detail: dict[str, Any] = {"settled": settled, "tokens": tokens, "refused": refused}
        if arg.get("skipped"):
            detail["skipped"] = sum(self._skip(by, now, *skip) for skip in arg["skipped"])
        for payer, rest in rests.items():
            self._credit(by, jti, payer, rest)
        self._credit(by, jti, by, tokens)
        return detail

    def _settle_one(self, by: str, now: int, signed: Read, charged: int) -> int:
        """Settle a contract; what is left of its hold."""
        contract = signed.body
        if contract["aud"] != by:
            raise Refused("wrong_payee")
        if signed.signer != contract["iss"]:
            raise Refused("wrong_signer")
        if not signed.holds:
            raise Refused("bad_signature")
        if (why := self.why_forbidden(contract)) is not None:
            raise Refused(why)
        if charged > contract["tok"]:
            raise Refused("charged_too_much")
        if contract["via"] == "hold":
            return self._capture(by, now, contract, charged)
        allowance = self._settleable(by, now, contract["via"])
        if allowance.payer != contract["iss"]:
            raise Refused("wrong_payer")
        if contract["exp"] > allowance.exp:
            raise Refused("outlives_funds")
        if contract["iat"] < allowance.opened_at - OLDEST_S:
            raise Refused("before_funds")
        if allowance.spent + charged > allowance.tokens:
            raise Refused("allowance_used_up")
        number = (contract["lane"], contract["seq"])
        if number in allowance.used:
            raise Refused("already_settled")
        allowance.used.add(number)
        allowance.spent += charged
        return 0

    def _settleable(self, by: str, now: int, allowance_id: str) -> Allowance:
        allowance = self.allowances.get(allowance_id)
        if allowance is None:
            raise Refused("unknown_allowance")
        if allowance.payee != by:
            raise Refused("wrong_payee")
        if allowance.ended:
            raise Refused("allowance_ended")
        if now >= allowance.exp + allowance.grace_s:
            raise Refused("too_late")
        return allowance

    def _capture(self, by: str, now: int, contract: Mapping[str, Any], charged: int) -> int:
        hold = self.holds.get((contract["iss"], contract["jti"]))
        if hold is None:
            raise Refused("unknown_hold")
        if hold.payee != by:
            raise Refused("wrong_payee")
        if hold.state != "open":
            raise Refused("already_settled" if hold.state == "captured" else "hold_ended")
        if now >= hold.exp + hold.grace_s:
            raise Refused("too_late")
        if contract["exp"] > hold.exp:
            raise Refused("outlives_funds")
        if contract["iat"] < hold.opened_at - OLDEST_S:
            raise Refused("before_funds")
        if charged > hold.tokens:
            raise Refused("charged_too_much")
        hold.state, hold.charged = "captured", charged
        return hold.tokens - charged

    def _skip(self, by: str, now: int, allowance_id: str, lane: str, seq: int) -> bool:
        try:
            allowance = self._settleable(by, now, allowance_id)
        except Refused:
            return False
        if (lane, seq) in allowance.used:
            return False
        allowance.used.add((lane, seq))
        return True

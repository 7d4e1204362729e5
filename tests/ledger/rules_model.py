"""The token economy in dicts: what each operation should come to, by the protocol's page alone.

No code of the rules is used here. :meth:`Model.submit` gives the code that an operation ends with, and does
to its dicts what the operation does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SINCE_S = 600
"""How much older than its funds a contract may be."""
PROPOSAL_TTL_S = 7 * 86_400
UNRECORDED = frozenset({"bad_argument", "certificate_expired"})


class Refused(Exception):
    """An operation is refused, with this code."""


class Terms(NamedTuple):
    """What counts of a contract that is settled."""

    jti: str
    payer: str
    payee: str
    tok: int
    iat: int
    exp: int
    via: str
    lane: str | None
    seq: int | None


@dataclass
class Wallet:
    role: str
    frozen_at: int | None = None
    frozen_since: int | None = None
    balance: int = 0
    credits: dict[str, int] = field(default_factory=dict)


@dataclass
class Funds:
    """A hold or an allowance."""

    payer: str
    payee: str
    tokens: int
    opened_at: int
    exp: int
    grace_s: int
    state: str = "open"
    closed_at: int | None = None
    spent: int = 0
    used: set[tuple[str, int]] = field(default_factory=set)

    @property
    def left(self) -> int:
        return self.tokens - self.spent if self.state == "open" else 0

    @property
    def end(self) -> int:
        return self.exp if self.closed_at is None else min(self.exp, self.closed_at)


@dataclass
class Proposal:
    act: str
    arg: dict[str, Any]
    by: str
    approved: list[str]
    exp: int
    done: bool = False


GOVERNORS_ONLY = frozenset(
    {"mint", "grant", "register", "freeze", "unfreeze", "set_policy", "enforce", "propose", "approve"}
)
WHEN_FROZEN = frozenset({"sweep", "void", "close", "settle", "expire", "propose", "approve"})
NEED_APPROVAL = frozenset({"mint", "unfreeze", "set_policy"})


@dataclass
class Model:
    """A ledger's whole state. ``now`` is the next transaction's time."""

    now: int
    policy: dict[str, Any]
    wallets: dict[str, Wallet] = field(default_factory=dict)
    holds: dict[tuple[str, str], Funds] = field(default_factory=dict)
    allowances: dict[str, Funds] = field(default_factory=dict)
    proposals: dict[str, Proposal] = field(default_factory=dict)
    supply: int = 0
    done: dict[tuple[str, str], str] = field(default_factory=dict)
    """What became of each operation that was recorded."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the last settlement, void or expire has refused of its items."""
    settled: tuple[int, int] = (0, 0)
    """How many contracts the last settlement has settled, for how many tokens."""

    def submit(self, by: str, jti: str, act: str, arg: dict[str, Any]) -> str:
        """The code of an operation that is submitted for the first time."""
        before = copy.deepcopy({name: vars(self)[name] for name in _STATE})
        self.refused = {}
        try:
            self._check_caller(by, act)
            getattr(self, f"_{act}")(by, jti, **_named(arg))
            code = "ok"
        except Refused as refused:
            code = str(refused)
            vars(self).update(before)
        if code not in UNRECORDED:
            self.done[by, jti] = code
        return code

    def balance(self, name: str) -> tuple[int, int, int, int]:
        """What a wallet can spend, its credits, and what its open holds and allowances have left."""
        wallet = self.wallets[name]
        held = sum(one.left for one in self.holds.values() if one.payer == name)
        allowed = sum(one.left for one in self.allowances.values() if one.payer == name)
        return wallet.balance, sum(wallet.credits.values()), held, allowed

    def accounted(self) -> int:
        """Every token, wherever it is."""
        return sum(sum(self.balance(name)) for name in self.wallets)

    def _check_caller(self, by: str, act: str) -> None:
        wallet = self.wallets[by]
        if act in GOVERNORS_ONLY and wallet.role != "governor":
            raise Refused("not_governor")
        if wallet.frozen_at is not None and act not in WHEN_FROZEN:
            raise Refused("frozen")
        if self.policy["threshold"] > 1 and act in NEED_APPROVAL:
            raise Refused("needs_approval")

    # Tokens

    def _credit(self, to: str, by: str, jti: str, tokens: int) -> None:
        if tokens:
            row = jti if to == by else f"{by}:{jti}"
            rows = self.wallets[to].credits
            rows[row] = rows.get(row, 0) + tokens

    def _spend(self, by: str, tokens: int) -> None:
        if self.wallets[by].balance < tokens:
            raise Refused("insufficient_funds")
        self.wallets[by].balance -= tokens

    def _mint(self, by: str, jti: str, tokens: int, proposer: str = "") -> None:
        self.supply += tokens
        if proposer in ("", by):
            self.wallets[by].balance += tokens
        else:
            self._credit(proposer, by, jti, tokens)

    def _burn(self, by: str, _jti: str, tokens: int) -> None:
        self._spend(by, tokens)
        self.supply -= tokens

    def _transfer(self, by: str, jti: str, to: str, tokens: int) -> None:
        if to == by:
            raise Refused("bad_argument")
        if to not in self.wallets:
            raise Refused("unknown_wallet")
        self._spend(by, tokens)
        self._credit(to, by, jti, tokens)

    _grant = _transfer

    def _sweep(self, by: str, _jti: str, rows: list[str]) -> None:
        wallet = self.wallets[by]
        wallet.balance += sum(wallet.credits.pop(row, 0) for row in rows)

    # Funds

    def _check_terms(self, by: str, payee: str, tokens: int, exp: int, ttl_s_max: int) -> None:
        if not self.now < exp <= self.now + ttl_s_max:
            raise Refused("bad_expiry")
        if tokens > self.policy["tokens_max"]:
            raise Refused("too_many_tokens")
        self._check_payee(by, payee)

    def _check_payee(self, by: str, payee: str) -> None:
        if payee == by:
            raise Refused("bad_argument")
        if payee not in self.wallets:
            raise Refused("unknown_wallet")
        if self.wallets[payee].frozen_at is not None:
            raise Refused("payee_frozen")

    def _hold(self, by: str, _jti: str, name: str, payee: str, tokens: int, exp: int) -> None:
        known = self.holds.get((by, name))
        if known is not None:
            if (known.payee, known.tokens, known.exp) != (payee, tokens, exp):
                raise Refused("id_reused")
            if known.state != "open":
                raise Refused("hold_ended")
            return
        self._check_terms(by, payee, tokens, exp, self.policy["hold_ttl_s_max"])
        self._spend(by, tokens)
        self.holds[by, name] = Funds(by, payee, tokens, self.now, exp, self.policy["grace_s"])

    def _open(self, by: str, _jti: str, name: str, payee: str, tokens: int, exp: int) -> None:
        known = self.allowances.get(name)
        if known is not None:
            if (known.payer, known.payee, known.tokens) != (by, payee, tokens):
                raise Refused("id_reused")
            if known.state != "open" or known.closed_at is not None:
                raise Refused("allowance_ended")
            return
        self._check_terms(by, payee, tokens, exp, self.policy["allowance_ttl_s_max"])
        self._spend(by, tokens)
        self.allowances[name] = Funds(by, payee, tokens, self.now, exp, self.policy["grace_s"])

    def _own(self, by: str, name: str) -> Funds:
        known = self.allowances.get(name)
        if known is None:
            raise Refused("unknown_allowance")
        if known.payer != by:
            raise Refused("not_yours")
        return known

    def _refill(self, by: str, _jti: str, name: str, tokens: int) -> None:
        allowance = self._own(by, name)
        if allowance.state != "open" or self.now >= allowance.end:
            raise Refused("allowance_ended")
        if allowance.tokens + tokens > self.policy["tokens_max"]:
            raise Refused("too_many_tokens")
        self._check_payee(by, allowance.payee)
        self._spend(by, tokens)
        allowance.tokens += tokens

    def _close(self, by: str, _jti: str, name: str) -> None:
        allowance = self._own(by, name)
        if allowance.state != "open":
            raise Refused("allowance_ended")
        if allowance.closed_at is None:
            allowance.closed_at = self.now

    # Ends

    def _settle(self, by: str, jti: str, items: list[tuple[Terms, int]]) -> None:
        count, total, rests = 0, 0, dict[str, int]()
        for terms, charged in items:
            try:
                rest = self._settled(by, terms, charged)
            except Refused as refused:
                self.refused.setdefault(f"{terms.payer}/{terms.jti}", str(refused))
                continue
            count += 1
            total += charged
            rests[terms.payer] = rests.get(terms.payer, 0) + rest
        for payer, rest in rests.items():
            self._credit(payer, by, jti, rest)
        self._credit(by, by, jti, total)
        self.settled = count, total

    def _settled(self, by: str, terms: Terms, charged: int) -> int:
        """Settle one contract; what goes back to its payer at once."""
        policy, late = self.policy, self.policy["propagation_s"]
        if terms.payee != by:
            raise Refused("wrong_payee")
        for name, code in ((terms.payer, "frozen"), (by, "payee_frozen")):
            since = self.wallets[name].frozen_since
            if since is not None and terms.iat > since + late:
                raise Refused(code)
        since = policy["since"]
        if policy["default"] == "deny" and since is not None and terms.iat > since + late:
            raise Refused("forbidden")
        if charged > terms.tok:
            raise Refused("charged_too_much")
        if terms.via == "hold":
            return self._captured(by, terms, charged)
        self._drawn(by, terms, charged)
        return 0

    def _usable(self, by: str, funds: Funds, terms: Terms) -> None:
        if self.now >= funds.end + funds.grace_s:
            raise Refused("too_late")
        if funds.payer != terms.payer:
            raise Refused("wrong_payer")
        if terms.exp > funds.exp:
            raise Refused("outlives_funds")
        if terms.iat < funds.opened_at - SINCE_S:
            raise Refused("before_funds")

    def _captured(self, by: str, terms: Terms, charged: int) -> int:
        hold = self.holds.get((terms.payer, terms.jti))
        if hold is None:
            raise Refused("unknown_hold")
        if hold.payee != by:
            raise Refused("wrong_payee")
        if hold.state != "open":
            raise Refused("already_settled" if hold.state == "captured" else "hold_ended")
        self._usable(by, hold, terms)
        if charged > hold.tokens:
            raise Refused("charged_too_much")
        hold.state = "captured"
        return hold.tokens - charged

    def _drawn(self, by: str, terms: Terms, charged: int) -> None:
        allowance = self.allowances.get(terms.via)
        if allowance is None:
            raise Refused("unknown_allowance")
        if allowance.payee != by:
            raise Refused("wrong_payee")
        if allowance.state != "open":
            raise Refused("allowance_ended")
        self._usable(by, allowance, terms)
        if allowance.spent + charged > allowance.tokens:
            raise Refused("allowance_used_up")
        number = (str(terms.lane), int(terms.seq or 0))
        if number in allowance.used:
            raise Refused("already_settled")
        allowance.used.add(number)
        allowance.spent += charged

    def _void(self, by: str, jti: str, holds: list[tuple[str, str]]) -> None:
        for payer, name in holds:
            hold = self.holds.get((payer, name))
            if hold is None:
                self.refused[f"{payer}/{name}"] = "unknown_hold"
            elif hold.payee != by:
                self.refused[f"{payer}/{name}"] = "wrong_payee"
            elif hold.state != "open":
                self.refused[f"{payer}/{name}"] = "hold_ended"
            else:
                hold.state = "void"
                self._credit(payer, by, jti, hold.tokens)

    def _expire(self, by: str, jti: str, holds: list[tuple[str, str]], allowances: list[str]) -> None:
        for payer, name in holds:
            self._expired(by, jti, f"{payer}/{name}", self.holds.get((payer, name)), "hold")
        for name in allowances:
            self._expired(by, jti, name, self.allowances.get(name), "allowance")

    def _expired(self, by: str, jti: str, name: str, funds: Funds | None, kind: str) -> None:
        if funds is None:
            self.refused[name] = f"unknown_{kind}"
        elif funds.state != "open":
            self.refused[name] = f"{kind}_ended"
        elif self.now < funds.end + funds.grace_s:
            self.refused[name] = "not_expired"
        else:
            funds.state = "expired"
            self._credit(funds.payer, by, jti, funds.tokens - funds.spent)

    # Governance

    def _freeze(self, by: str, _jti: str, name: str) -> None:
        if name == by:
            raise Refused("forbidden")
        if self.wallets[name].frozen_at is None:
            self.wallets[name].frozen_at = self.now

    def _unfreeze(self, _by: str, _jti: str, name: str, proposer: str = "") -> None:
        self.wallets[name].frozen_at = self.wallets[name].frozen_since = None

    def _set_policy(self, _by: str, _jti: str, policy: dict[str, Any], proposer: str = "") -> None:
        if policy["threshold"] > sum(one.role == "governor" for one in self.wallets.values()):
            raise Refused("bad_policy")
        self.policy = {**policy, "version": self.policy["version"] + 1, "since": None}

    def _enforce(self, _by: str, _jti: str, policy: int = 0, frozen: tuple[str, int] = ("", 0)) -> None:
        name, frozen_at = frozen
        if name:
            wallet = self.wallets[name]
            if wallet.frozen_at == frozen_at and wallet.frozen_since is None:
                wallet.frozen_since = self.now
        if policy == self.policy["version"] and self.policy["since"] is None:
            self.policy["since"] = self.now

    def _propose(self, by: str, jti: str, act: str, arg: dict[str, Any]) -> None:
        self._check_say(by, act)
        self.proposals[jti] = Proposal(act, arg, by, [by], self.now + PROPOSAL_TTL_S)
        before = copy.deepcopy({name: vars(self)[name] for name in _STATE})
        getattr(self, f"_{act}")(by, jti, **arg)  # what is refused now is refused at once
        vars(self).update(before)
        self._count(by, jti, self.proposals[jti])

    def _approve(self, by: str, jti: str, proposal: str) -> None:
        known = self.proposals.get(proposal)
        if known is None:
            raise Refused("unknown_proposal")
        self._check_say(by, known.act)
        if known.done or self.now >= known.exp:
            raise Refused("proposal_ended")
        if by in known.approved:
            raise Refused("already_approved")
        known.approved.append(by)
        self._count(by, jti, known)

    def _check_say(self, by: str, act: str) -> None:
        if self.wallets[by].frozen_at is not None and act != "unfreeze":
            raise Refused("frozen")

    def _count(self, by: str, jti: str, proposal: Proposal) -> None:
        unfreezes = proposal.act == "unfreeze"
        votes = sum(unfreezes or self.wallets[name].frozen_at is None for name in proposal.approved)
        if votes >= self.policy["threshold"]:
            proposal.done = True
            getattr(self, f"_{proposal.act}")(by, jti, **proposal.arg, proposer=proposal.by)


def _named(arg: dict[str, Any]) -> dict[str, Any]:
    """An argument as the methods take it: without Python's own names."""
    return {{"id": "name", "credits": "rows"}.get(field, field): value for field, value in arg.items()}


_STATE = ("policy", "wallets", "holds", "allowances", "proposals", "supply")

"""Wallets do what they like, in any order, while time passes; a ledger and the model go through the same.

After each step both must agree: on the outcome, on every balance, on the supply. Whatever was submitted may
be submitted again, and comes to what it came to then. At the end all holds and allowances are compared, and
whoever inherits this may verify the whole.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger.rules_model import UNRECORDED, Funds, Model, Terms, Wallet

from support.ledgers import GOVERNANCE, Domain, now_of
from support.wallets import Clock
from tokenmesh_chaincode.documents import new_id, parse_contract
from tokenmesh_chaincode.rules import default_policy

SERVICES = ("alice", "bob", "carol")
WALLETS = (GOVERNANCE, "second", *SERVICES)
NAMES = st.sampled_from(WALLETS)
PAYERS = st.sampled_from(SERVICES)
PAYEES = st.one_of(PAYERS, PAYERS, NAMES)
IDS = st.sampled_from(("a", "b", "c"))
TOKENS = st.one_of(st.integers(1, 30), st.integers(30, 60), st.integers(90, 120))
SECONDS = st.sampled_from((50, 500, 1_000, 2_000, 3_600, 3_600, 3_601, 0))
SHORT = {"grace_s": 60, "propagation_s": 5, "rotation_overlap_s": 100, "tokens_max": 150}


Moment: TypeAlias = tuple[bool, int] | None
MOMENTS = st.one_of(st.none(), st.none(), st.tuples(st.booleans(), st.sampled_from((0, 0, 1))))
Drawn: TypeAlias = tuple[str | None, int, int, int, int, bool]
"""A contract to be: another payer, its tokens, how much more is charged, how old it is, by how much it
outlives its funds, whether its number was used."""


class RulesMachine(RuleBasedStateMachine):
    """Give ``new_domain``: a ledger with ``second`` and the services, whose clock is held, and no tokens."""

    compare_always: ClassVar[bool] = True
    """Whether every balance is asked for after every step."""

    def new_domain(self) -> Domain:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.domain = domain = self.new_domain()
        policy = {**default_policy(), **SHORT}
        domain.do(GOVERNANCE, "set_policy", {"policy": policy})
        second = domain.wallets.new("second", "governor")
        domain.do(
            GOVERNANCE, "register", {"name": "second", "cert": second.certificate_pem, "role": "governor"}
        )
        self.clock: Any = domain.clock
        assert isinstance(self.clock, Clock)
        self.model = Model(domain.now, now_of(domain.ledger.policy()))
        for name in WALLETS:
            self.model.wallets[name] = Wallet("governor" if name in WALLETS[:2] else "service")
        self.sent: list[tuple[str, str, str]] = []
        self.old: dict[str, Any] = {}
        self.seq = 0
        for name in SERVICES:
            self.ask(GOVERNANCE, "mint", {"tokens": 100})
            granted = self.ask(GOVERNANCE, "grant", {"to": name, "tokens": 100})
            self.ask(name, "sweep", {"credits": [granted["credit"]]})
        for at, name in enumerate(SERVICES):
            terms = {"id": "abc"[at], "payee": SERVICES[at - 1], "exp": domain.now + 600 * (at + 1)}
            self.ask(name, "open", {**terms, "tokens": 60})
            self.ask(name, "hold", {**terms, "tokens": 20})

    # Both go through the same

    def ask(self, by: str, act: str, arg: dict[str, Any], model_arg: Any = None) -> dict[str, Any]:
        """Have an operation done; the ledger's detail."""
        jti, domain, model = new_id(), self.domain, self.model
        model.now = domain.now
        text = domain.operation(by, act, arg, jti=jti, ttl_s=80_000)
        expected = model.submit(by, jti, act, arg if model_arg is None else model_arg)
        outcome = domain.submit(text)[0].outcome
        assert outcome.code == expected, (by, act, arg, outcome)
        if outcome.code not in UNRECORDED:
            self.sent.append((text, by, jti))
        if "refused" in outcome.detail:
            assert outcome.detail["refused"] == model.refused
        return outcome.detail

    @rule(
        by=NAMES,
        act=st.sampled_from(("transfer", "grant", "mint", "burn", "sweep", "sweep")),
        to=NAMES,
        tokens=TOKENS,
    )
    def move(self, by: str, act: str, to: str, tokens: int) -> None:
        if act == "sweep":
            self.ask(by, "sweep", {"credits": [*self.model.wallets[by].credits, "not-there"]})
        elif act in ("mint", "burn"):
            self.ask(by, act, {"tokens": tokens})
        else:
            self.ask(by, act, {"to": to, "tokens": tokens})

    @rule(by=PAYERS, act=st.sampled_from(("hold", "open")), name=IDS, payee=PAYEES, tokens=TOKENS, s=SECONDS)
    def set_aside(self, by: str, act: str, name: str, payee: str, tokens: int, s: int) -> None:
        terms = {"id": name, "payee": payee, "tokens": tokens, "exp": self.domain.now + s}
        self.ask(by, act, terms)

    @rule(
        other=st.one_of(st.none(), st.none(), PAYERS),
        act=st.sampled_from(("refill", "close")),
        which=st.integers(0, 1_000),
        tokens=TOKENS,
        moment=MOMENTS,
    )
    def change(self, other: str | None, act: str, which: int, tokens: int, moment: Moment) -> None:
        """An allowance by its payer, or by somebody else; now and then one that is not there; now and then
        until what was closed ends."""
        known = [(name, one.payer) for name, one in self.model.allowances.items()]
        name, payer = [*known, ("x", "alice")][which % (len(known) + 1)]
        arg = {"id": name, "tokens": tokens} if act == "refill" else {"id": name}
        self.ask(other or payer, act, arg)
        if moment is not None and name in self.model.allowances:
            self.come_to(moment, self.model.allowances[name])
            self.ask("bob", "expire", {"holds": [], "allowances": [name]})

    def come_to(self, moment: Moment, funds: Funds) -> None:
        """Let time pass until the very second in which funds end, or their grace does, or one second less."""
        if moment is not None:
            grace, early = moment
            end = funds.end + (funds.grace_s if grace else 0)
            self.clock.forward(max(0, end - early - self.domain.now))

    def open_funds(self) -> list[tuple[str, Funds]]:
        """What is open: holds by their ids, then allowances by theirs."""
        holds = [(name, one) for (_, name), one in self.model.holds.items()]
        found = [*holds, *self.model.allowances.items()]
        return [(name, one) for name, one in found if one.state == "open"] or found

    @rule(
        which=st.integers(0, 1_000),
        other=st.one_of(st.none(), st.none(), PAYERS),
        moment=st.one_of(st.none(), st.none(), st.none(), MOMENTS),
        drawn=st.lists(
            st.tuples(
                st.one_of(st.none(), st.none(), st.none(), PAYERS),
                st.integers(0, 15),
                st.sampled_from((-1, 0, 0, 0, 1)),
                st.sampled_from((0, 0, 0, 3, 6, 700)),
                st.sampled_from((-20, 0, 0, 1)),
                st.sampled_from((False, False, False, True)),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, which: int, other: str | None, moment: Moment, drawn: list[Drawn]) -> None:
        """Contracts by what is set aside, most of them good: some for a little more or of a while ago, some
        with a number that was used, some of another payer, or settled by another payee."""
        name, funds = (found := self.open_funds())[which % len(found)]
        by_hold = self.model.holds.get((funds.payer, name)) is funds
        self.come_to(moment, funds)
        by = other or funds.payee
        items, terms = [], []
        used = sorted(number for _, number in funds.used)
        frozen_since = self.model.wallets[funds.payer].frozen_since
        for stranger, tok, more, ago, beyond, again in drawn[: 2 if by_hold else None]:
            self.seq += 1
            number = used[which % len(used)] if again and used else self.seq
            used.append(number)
            iat = self.domain.now - ago
            if frozen_since is not None:  # about when its payees have heard of it for certain
                iat = frozen_since + SHORT["propagation_s"] + more
            claims: dict[str, Any] = {"tok": tok, "iat": iat, "exp": max(iat + 1, funds.exp + beyond)}
            if by_hold:
                claims |= {"via": "hold", "jti": name, "tok": max(tok, funds.tokens)}
            else:
                claims |= {"via": name, "lane": "lane", "seq": number, "jti": new_id()}
            text = self.domain.contract(stranger or funds.payer, by, **claims)
            body = parse_contract(text).body
            charged = max(0, tok + more)
            items.append([text, charged])
            numbers = (body.via, body.lane, body.seq)
            terms.append((Terms(body.jti, body.iss, by, body.tok, iat, body.exp, *numbers), charged))
        detail = self.ask(by, "settle", {"items": items}, {"items": terms})
        assert (detail["settled"], detail["tokens"]) == self.model.settled

    @rule(
        other=st.one_of(st.none(), NAMES),
        act=st.sampled_from(("void", "expire", "expire")),
        holds=st.lists(st.tuples(PAYERS, IDS), max_size=3, unique=True),
        names=st.lists(IDS, max_size=3, unique=True),
        everything=st.booleans(),
        which=st.integers(0, 1_000),
        moment=MOMENTS,
    )
    def end_some(
        self,
        other: str | None,
        act: str,
        holds: list[tuple[str, str]],
        names: list[str],
        everything: bool,
        which: int,
        moment: Moment,
    ) -> None:
        _, funds = (found := self.open_funds())[which % len(found)]
        self.come_to(moment, funds)
        if everything:
            holds = [key for key, one in self.model.holds.items() if one.state == "open"]
            names = [name for name, one in self.model.allowances.items() if one.state == "open"]
        payees = [self.model.holds[key].payee for key in holds if key in self.model.holds]
        arg: dict[str, Any] = {"holds": [list(one) for one in holds]}
        if act == "expire":
            arg["allowances"] = names
        self.ask(other or (payees or ["alice"])[0], act, arg)

    @rule(
        by=st.sampled_from(WALLETS[:3]),
        act=st.sampled_from(("freeze", "unfreeze", "set_policy", "mint")),
        name=NAMES,
        tokens=TOKENS,
        threshold=st.sampled_from((1, 1, 2, 3)),
        default=st.sampled_from(("allow", "allow", "deny")),
        grace_s=st.sampled_from((30, 60)),
        proposed=st.booleans(),
    )
    def govern(
        self,
        by: str,
        act: str,
        name: str,
        tokens: int,
        threshold: int,
        default: str,
        grace_s: int,
        proposed: bool,
    ) -> None:
        policy = {**self.model.policy, "threshold": threshold, "default": default, "grace_s": grace_s}
        arg: dict[str, Any] = (
            {"policy": policy}
            if act == "set_policy"
            else {"tokens": tokens}
            if act == "mint"
            else {"name": name}
        )
        if proposed and act != "freeze":
            self.ask(by, "propose", {"act": act, "arg": arg})
        else:
            self.ask(by, act, arg)

    @rule(by=st.sampled_from(WALLETS[:3]), name=PAYERS, early=st.sampled_from((0, 0, 0, 1)))
    def enforce(self, by: str, name: str, early: int) -> None:
        """A policy and a freeze that may be there; now and then others than those that are."""
        frozen_at = self.model.wallets[name].frozen_at or self.domain.now
        arg = {"policy": self.model.policy["version"] + early, "frozen": [name, frozen_at + early]}
        self.ask(by, "enforce", arg)

    @precondition(lambda self: self.model.proposals)
    @rule(by=st.sampled_from(WALLETS[:3]), which=st.integers(0, 100))
    def approve(self, by: str, which: int) -> None:
        names = list(self.model.proposals)
        self.ask(by, "approve", {"proposal": names[which % len(names)]})

    @rule(name=PAYERS, to=NAMES)
    def rotate(self, name: str, to: str) -> None:
        """A new certificate, once; from then on, what the old key can still do."""
        if not self.old:
            if self.model.wallets[name].frozen_at is None:
                old, fresh = self.domain[name], self.domain.wallets.new(name)
                self.domain.do(old, "rotate", {"name": name, "cert": fresh.certificate_pem})
                self.old[name] = (old, self.domain.now + SHORT["rotation_overlap_s"])
            return
        ((name, (old, until)),) = self.old.items()
        arg = {"to": to, "tokens": 1}
        text = self.domain.operation(old, "transfer", arg, jti=(jti := new_id()), ttl_s=80_000)
        self.model.now = self.domain.now
        late = self.domain.now > until
        expected = "certificate_expired" if late else self.model.submit(name, jti, "transfer", arg)
        assert self.domain.submit(text)[0].outcome.code == expected

    @rule(which=st.integers(0, 1_000), other=st.booleans())
    def repeat(self, which: int, other: bool) -> None:
        """What was submitted before comes to the same, whatever has happened since; another operation under a
        known id is refused, and changes nothing."""
        text, by, jti = self.sent[which % len(self.sent)]
        if other:
            assert self.domain.ask(by, "burn", {"tokens": 77}, jti=jti).code == "id_reused"
        else:
            assert self.domain.submit(text)[0].outcome.code == self.model.done[by, jti]

    @rule(seconds=st.sampled_from((1, 4, 5, 6, 30, 130)))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds)

    # And agree

    @invariant()
    def balances_agree(self) -> None:
        if hasattr(self, "model"):
            assert self.model.accounted() == self.model.supply
            if self.compare_always:
                self.compare_balances()

    def compare_balances(self) -> None:
        for name in self.model.wallets:
            assert self.domain.balance(name) == self.model.balance(name), name

    def compare_funds(self) -> None:
        ledger = self.domain.ledger
        for (payer, name), mine in self.model.holds.items():
            hold = now_of(ledger.hold(payer, name))
            assert hold is not None
            assert (hold.payee, hold.tokens, hold.exp, hold.state) == (
                mine.payee,
                mine.tokens,
                mine.exp,
                mine.state,
            )
        for name, mine in self.model.allowances.items():
            found = now_of(ledger.allowance(name))
            assert found is not None
            assert (found.payer, found.tokens, found.spent, found.closed_at, found.ended) == (
                mine.payer,
                mine.tokens,
                mine.spent,
                mine.closed_at,
                mine.state != "open",
            )
        supply = now_of(ledger.supply())
        assert supply.minted - supply.burned == supply.accounted == self.model.supply

    def teardown(self) -> None:
        if not hasattr(self, "domain"):
            return
        try:
            if hasattr(self, "model"):
                self.compare_balances()
                self.compare_funds()
        finally:
            self.domain.ledger.close()
            self.end()

    def end(self) -> None:
        """The ledger is closed: look at it, and clean up."""

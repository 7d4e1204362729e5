"""Wallets do what they like, in any order, while time passes; a ledger and the model go through the same.

After each step both must agree: on the outcome, on every balance, on the supply. Whatever was submitted may
be submitted again, and comes to what it came to then. At the end all holds and allowances are compared, and
whoever inherits this may verify the whole.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger.rules_model import UNRECORDED, Model, Terms, Wallet

from support.ledgers import GOVERNANCE, Domain, now_of
from support.wallets import Clock
from tokenmesh_chaincode.documents import new_id, parse_contract
from tokenmesh_chaincode.rules import default_policy

SERVICES = ("alice", "bob", "carol")
WALLETS = (GOVERNANCE, "second", *SERVICES)
NAMES = st.sampled_from(WALLETS)
PAYERS = st.sampled_from(SERVICES)
IDS = st.sampled_from(("a", "b", "c"))
TOKENS = st.one_of(st.integers(1, 30), st.integers(90, 120))
SECONDS = st.one_of(st.integers(1, 90), st.sampled_from((0, 3_600, 3_601)))
SHORT = {"grace_s": 60, "propagation_s": 5, "rotation_overlap_s": 100, "tokens_max": 150}


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

    @rule(by=NAMES, to=NAMES, tokens=TOKENS)
    def transfer(self, by: str, to: str, tokens: int) -> None:
        self.ask(by, "transfer", {"to": to, "tokens": tokens})

    @rule(by=NAMES, to=NAMES, tokens=TOKENS)
    def grant(self, by: str, to: str, tokens: int) -> None:
        self.ask(by, "grant", {"to": to, "tokens": tokens})

    @rule(by=NAMES, act=st.sampled_from(("mint", "burn")), tokens=TOKENS)
    def issue(self, by: str, act: str, tokens: int) -> None:
        self.ask(by, act, {"tokens": tokens})

    @rule(by=NAMES)
    def sweep(self, by: str) -> None:
        self.ask(by, "sweep", {"credits": [*self.model.wallets[by].credits, "not-there"]})

    @rule(by=PAYERS, act=st.sampled_from(("hold", "open", "open")), id=IDS, payee=NAMES, tokens=TOKENS, s=SECONDS)
    def set_aside(self, by: str, act: str, id: str, payee: str, tokens: int, s: int) -> None:
        terms = {"id": id, "payee": payee, "tokens": tokens, "exp": self.domain.now + s}
        self.ask(by, act, terms)

    @rule(by=PAYERS, id=IDS, tokens=TOKENS)
    def refill(self, by: str, id: str, tokens: int) -> None:
        self.ask(by, "refill", {"id": id, "tokens": tokens})

    @rule(by=PAYERS, id=IDS)
    def close(self, by: str, id: str) -> None:
        self.ask(by, "close", {"id": id})

    @rule(
        by=PAYERS,
        drawn=st.lists(
            st.tuples(
                PAYERS, IDS, st.booleans(), st.integers(0, 40), st.integers(0, 45), SECONDS, st.integers(0, 3)
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, by: str, drawn: list[tuple[str, str, bool, int, int, int, int]]) -> None:
        """Contracts good and bad, some with a number that was used, some that were made a while ago."""
        items, terms = [], []
        for payer, id, by_hold, tok, charged, seconds, repeats in drawn:
            self.seq += not repeats
            iat = self.domain.now - (seconds if repeats == 1 else 0)
            claims: dict[str, Any] = {"tok": tok, "iat": iat, "exp": iat + 1 + seconds % 50, "via": id}
            claims |= (
                {"via": "hold", "jti": id} if by_hold else {"lane": "lane", "seq": self.seq, "jti": new_id()}
            )
            text = self.domain.contract(payer, by, **claims)
            body = parse_contract(text).body
            items.append([text, charged])
            terms.append(
                (
                    Terms(
                        body.jti, payer, by, body.tok, body.iat, body.exp, body.via, body.lane, body.seq
                    ),
                    charged,
                )
            )
        detail = self.ask(by, "settle", {"items": items}, {"items": terms})
        assert (detail["settled"], detail["tokens"]) == self.model.settled

    @rule(by=NAMES, holds=st.lists(st.tuples(PAYERS, IDS), max_size=3, unique=True))
    def void(self, by: str, holds: list[tuple[str, str]]) -> None:
        self.ask(by, "void", {"holds": [list(one) for one in holds]})

    @rule(
        by=NAMES,
        holds=st.lists(st.tuples(PAYERS, IDS), max_size=3, unique=True),
        ids=st.lists(IDS, max_size=3, unique=True),
    )
    def expire(self, by: str, holds: list[tuple[str, str]], ids: list[str]) -> None:
        self.ask(by, "expire", {"holds": [list(one) for one in holds], "allowances": ids})

    @rule(by=st.sampled_from(WALLETS[:3]), act=st.sampled_from(("freeze", "unfreeze")), name=NAMES)
    def freeze(self, by: str, act: str, name: str) -> None:
        self.ask(by, act, {"name": name})

    @rule(
        by=st.sampled_from(WALLETS[:3]),
        threshold=st.sampled_from((1, 1, 2, 3)),
        default=st.sampled_from(("allow", "allow", "deny")),
        grace_s=st.sampled_from((30, 60)),
        tokens_max=st.sampled_from((100, 150)),
        proposed=st.booleans(),
    )
    def set_policy(
        self, by: str, threshold: int, default: str, grace_s: int, tokens_max: int, proposed: bool
    ) -> None:
        new = {"threshold": threshold, "default": default, "grace_s": grace_s, "tokens_max": tokens_max}
        self.govern(by, "set_policy", {"policy": {**self.model.policy, **new}}, proposed=proposed)

    @rule(by=st.sampled_from(WALLETS[:3]), tokens=TOKENS, name=NAMES, act=st.sampled_from(("mint", "unfreeze")))
    def propose(self, by: str, tokens: int, name: str, act: str) -> None:
        self.govern(by, act, {"tokens": tokens} if act == "mint" else {"name": name}, proposed=True)

    def govern(self, by: str, act: str, arg: dict[str, Any], *, proposed: bool) -> None:
        if proposed:
            self.ask(by, "propose", {"act": act, "arg": arg})
        else:
            self.ask(by, act, arg)

    @precondition(lambda self: self.model.proposals)
    @rule(by=st.sampled_from(WALLETS[:3]), which=st.integers(0, 100))
    def approve(self, by: str, which: int) -> None:
        ids = list(self.model.proposals)
        self.ask(by, "approve", {"proposal": ids[which % len(ids)]})

    @precondition(lambda self: not self.old)
    @rule(name=PAYERS)
    def rotate(self, name: str) -> None:
        """A new certificate; contracts of the old one are good only if they were made in time."""
        if self.model.wallets[name].frozen_at is not None:
            return
        old = self.domain[name]
        fresh = self.domain.wallets.new(name)
        self.domain.do(old, "rotate", {"name": name, "cert": fresh.certificate_pem})
        self.old[name] = (old, self.domain.now + SHORT["rotation_overlap_s"])

    @precondition(lambda self: self.old)
    @rule(to=NAMES)
    def use_an_old_key(self, to: str) -> None:
        ((name, (old, until)),) = self.old.items()
        arg = {"to": to, "tokens": 1}
        text = self.domain.operation(old, "transfer", arg, jti=(jti := new_id()), ttl_s=80_000)
        self.model.now = self.domain.now
        late = self.domain.now > until
        expected = "certificate_expired" if late else self.model.submit(name, jti, "transfer", arg)
        assert self.domain.submit(text)[0].outcome.code == expected

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 1_000))
    def repeat(self, which: int) -> None:
        """What was submitted before comes to the same, whatever has happened since."""
        text, by, jti = self.sent[which % len(self.sent)]
        assert self.domain.submit(text)[0].outcome.code == self.model.done[by, jti]

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 1_000))
    def reuse_an_id(self, which: int) -> None:
        """Another operation under a known id is refused, and changes nothing."""
        _, by, jti = self.sent[which % len(self.sent)]
        outcome = self.domain.ask(by, "burn", {"tokens": 77}, jti=jti)
        assert outcome.code == "id_reused"

    @rule(seconds=st.one_of(st.integers(1, 40), st.sampled_from((60, 130, 700, 4_000))))
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
        for (payer, id), mine in self.model.holds.items():
            hold = now_of(ledger.hold(payer, id))
            assert hold is not None
            assert (hold.payee, hold.tokens, hold.exp, hold.state) == (
                mine.payee,
                mine.tokens,
                mine.exp,
                mine.state,
            )
        for id, mine in self.model.allowances.items():
            found = now_of(ledger.allowance(id))
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

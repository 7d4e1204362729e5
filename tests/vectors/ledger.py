"""operations.json: a ledger's life, operation by operation, each with its time and its outcome.

``setup`` leads to the state in which contracts.json is judged; ``then`` goes on from there.
"""

from __future__ import annotations

from typing import Any

from vectors.parties import (
    ALICE,
    ALICE_BEFORE,
    BOB,
    CAROL,
    DOMAIN,
    GENESIS,
    GOVERNANCE,
    ICE,
    MALLORY,
    NOBODY,
    NOW,
    Impostor,
    Party,
    segment,
)

from tokenmesh_chaincode.documents import Contract, Operation, conceal, digest, sign
from tokenmesh_chaincode.rules import Context, apply, genesis
from tokenmesh_chaincode.state import MemoryState

HOUR = 3600


class Story:
    """Operations one after another on a state of their own; what came of each is noted."""

    def __init__(self) -> None:
        self.state = MemoryState()
        genesis(self.state, **GENESIS)
        self.now = NOW
        self.told: list[dict[str, Any]] = []
        self.beside: dict[str, str] = {}
        """The disclosures that travel beside operations from now on."""

    def tell(self, why: str, by: Party | Impostor, act: str, **claims: Any) -> str:
        """One operation; claims of the document begin with an underscore. Returns its text."""
        argument = {name: value for name, value in claims.items() if not name.startswith("_")}
        body = Operation(
            dom=claims.get("_dom", DOMAIN),
            iss=claims.get("_iss", by.name),
            jti=claims.get("_jti", f"op-{len(self.told):03}"),
            iat=claims.get("_iat", self.now),
            exp=claims.get("_exp", self.now + 300),
            act=act,
            arg=argument,
        )
        return self.repeat(why, sign(body, by))

    def repeat(self, why: str, text: str) -> str:
        beside = self.beside
        outcome = apply(self.state, text, Context(self.now), disclosures=beside)
        told = {"why": why, "now": self.now, "text": text, "outcome": outcome.to_json()}
        self.told.append({**told, "disclosures": dict(beside)} if beside else told)
        return text


def contract(jti: str, **claims: Any) -> Contract:
    """What alice offers bob for a quote, by the allowance that ``setup`` opens; give what shall differ."""
    body = Contract(
        dom=DOMAIN,
        iss="alice",
        aud="bob",
        op="GET /quote/{symbol}",
        htm="GET",
        htu="/quote/ACME?full=1",
        dig=digest(b""),
        tok=5,
        jti=jti,
        iat=NOW + 20,
        exp=NOW + 80,
        via="allowance-1",
        lane="lane-1",
        seq=0,
        tp="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return body._replace(**claims)


def _setup(story: Story) -> None:
    for party in (ALICE_BEFORE, BOB, CAROL, ICE, MALLORY):
        why = f"governance registers {party.name}"
        story.tell(why, GOVERNANCE, "register", name=party.name, cert=party.pem, role="service")
    story.tell("new tokens", GOVERNANCE, "mint", tokens=10_000)
    for name in ("alice", "carol", "ice", "mallory"):
        story.tell(f"tokens for {name}", GOVERNANCE, "grant", _jti=f"grant-{name}", to=name, tokens=1000)
    for party in (ALICE_BEFORE, CAROL, ICE, MALLORY):
        why = f"{party.name} takes them into its balance"
        story.tell(why, party, "sweep", credits=[f"governance:grant-{party.name}"])
    allowances = [
        (ALICE_BEFORE, "allowance-1", 100),
        (ALICE_BEFORE, "allowance-small", 3),
        (ALICE_BEFORE, "allowance-closed", 50),
        (CAROL, "allowance-carol", 50),
        (ICE, "allowance-ice", 50),
        (MALLORY, "allowance-mallory", 50),
    ]
    for party, allowance, tokens in allowances:
        why = f"{party.name} sets tokens aside for bob"
        story.tell(why, party, "open", id=allowance, payee="bob", tokens=tokens, exp=NOW + HOUR)
    holds = {"by-hold": 5, "by-small-hold": 3, "hold-voided": 5}
    for hold, tokens in holds.items():
        why = "tokens for one contract"
        story.tell(why, ALICE_BEFORE, "hold", id=hold, payee="bob", tokens=tokens, exp=NOW + 600)
    story.tell("bob gives one back", BOB, "void", holds=[["alice", "hold-voided"]])
    story.tell("alice closes an allowance", ALICE_BEFORE, "close", id="allowance-closed")
    story.tell("alice has a new key", ALICE_BEFORE, "rotate", name="alice", cert=ALICE.pem)
    story.tell("governance freezes ice", GOVERNANCE, "freeze", name="ice")
    story.tell("a service puts that in force", BOB, "enforce", frozen=["ice", story.now])
    story.tell("another freeze than there is", GOVERNANCE, "enforce", frozen=["ice", story.now - 1])
    story.tell(
        "governance puts it in force, having seen it", GOVERNANCE, "enforce", frozen=["ice", story.now]
    )


def _refusals(story: Story) -> None:
    """Documents that do not hold, and operations that are refused."""
    text = story.tell("more than the balance", BOB, "transfer", to="alice", tokens=1)
    story.repeat("the same again has the same outcome", text)
    jti = f"op-{len(story.told) - 2:03}"
    story.tell("another operation of the same id", BOB, "transfer", _jti=jti, to="alice", tokens=2)
    story.tell("a service mints", BOB, "mint", tokens=1)
    story.tell("a frozen wallet spends", ICE, "transfer", to="bob", tokens=1)
    story.tell("nobody is registered", NOBODY, "transfer", to="bob", tokens=1)
    story.tell("mallory as alice", MALLORY, "transfer", _iss="alice", to="mallory", tokens=1)
    story.tell("mallory under alice's name", Impostor(ALICE, MALLORY), "transfer", to="mallory", tokens=1)
    story.tell("for another ledger", ALICE, "transfer", _dom="x" * 43, to="bob", tokens=1)
    story.tell("from the future", ALICE, "transfer", _iat=story.now + 11, to="bob", tokens=1)
    story.tell("expired", ALICE, "transfer", _iat=NOW - 60, _exp=NOW - 1, to="bob", tokens=1)
    story.tell("valid for too long", ALICE, "transfer", _exp=story.now + 86_401, to="bob", tokens=1)
    story.tell("a field too many", ALICE, "transfer", to="bob", tokens=1, memo="x")
    story.tell("no tokens at all", ALICE, "transfer", to="bob", tokens=0)
    story.tell("more than can be counted", ALICE, "transfer", to="bob", tokens=2**53)
    story.tell("to nobody", ALICE, "transfer", to="nobody", tokens=1)
    story.tell("no such act", ALICE, "steal", tokens=1)
    story.tell("another's allowance", MALLORY, "close", id="allowance-1")
    story.tell(
        "an allowance that lasts too long", ALICE, "open", id="a2", payee="bob", tokens=1, exp=NOW + 10**6
    )
    story.tell("somebody else voids", MALLORY, "void", holds=[["alice", "by-hold"]])
    story.repeat("not an operation", "not an operation")


def _settlements(story: Story) -> None:
    story.now = NOW + 30
    good = [[sign(contract(f"c-{seq}", seq=seq), ALICE), 5] for seq in range(3)]
    forged = sign(contract("forged", seq=9), Impostor(ALICE, MALLORY))
    copied = sign(contract("c-0", iss="mallory", via="allowance-1", seq=7), MALLORY)
    before = sign(contract("before-rotation", seq=5), ALICE_BEFORE)
    by_hold = sign(contract("by-hold", via="hold", lane=None, seq=None), ALICE)
    items = [*good, [forged, 5], [copied, 5], [before, 4], [by_hold, 3], ["nonsense", 5], [good[0][0], 5]]
    text = story.tell("bob settles what holds", BOB, "settle", _jti="settle-1", items=items)
    story.repeat("and once only", text)
    frozen = sign(contract("ice-1", iss="ice", via="allowance-ice", seq=1), ICE)
    forbidden = sign(contract("carol-1", iss="carol", via="allowance-carol", seq=1), CAROL)
    small = sign(contract("small", via="allowance-small", seq=1), ALICE)
    closed = sign(contract("closed", via="allowance-closed", seq=1), ALICE)
    more = [[frozen, 5], [forbidden, 5], [small, 5], [closed, 5], [sign(contract("c-8", seq=8), ALICE), 6]]
    story.tell("each judged by itself", BOB, "settle", items=more, skipped=[["allowance-1", "lane-1", 3]])
    story.tell("bob's earnings", BOB, "sweep", credits=["settle-1"])


def _private(story: Story) -> None:
    order = {"op": "POST /orders", "htm": "POST", "htu": "/orders"}
    concealed = [
        conceal(contract("private-1", seq=20), segment(b"salt of private1")),
        conceal(contract("private-2", seq=21, **order), segment(b"salt of private2")),
        conceal(
            contract("private-3", iss="carol", via="allowance-carol", seq=1), segment(b"salt of private3")
        ),
    ]
    items = [[sign(body, CAROL if body.iss == "carol" else ALICE), 5] for body, _ in concealed]
    text = story.tell(
        "private contracts without their disclosures", BOB, "settle", _jti="settle-p", items=items
    )
    story.beside = {body.sd or "": disclosure for body, disclosure in concealed}
    story.repeat("the same with them: policy judges by what they say", text)
    story.beside = {}
    story.repeat("and once only, with or without", text)


def _revocations(story: Story) -> None:
    revoked = {"name": "alice", "x5t": ALICE_BEFORE.x5t}
    story.tell("a service revokes", BOB, "revoke", **revoked)
    story.tell("a certificate that the wallet does not have", GOVERNANCE, "revoke", name="bob", x5t=ALICE.x5t)
    own = {"name": "governance", "x5t": GOVERNANCE.x5t}
    story.tell("a governor revokes its own last certificate", GOVERNANCE, "revoke", **own)
    story.tell("alice's old key is in other hands", GOVERNANCE, "revoke", **revoked)
    enforced = {"revoked": ["alice", ALICE_BEFORE.x5t]}
    story.tell("and the ledger has it: from now on that counts", GOVERNANCE, "enforce", **enforced)
    story.tell("it signs no operation any more", ALICE_BEFORE, "transfer", to="bob", tokens=1)
    story.tell("whenever it says that it was", ALICE_BEFORE, "transfer", _iat=NOW, to="bob", tokens=1)
    story.tell("the new key does", ALICE, "transfer", _jti="after-revoke", to="bob", tokens=1)
    story.now += 10
    made = {"in-time": story.now - 5, "too-late": story.now - 4}
    items = [
        [sign(contract(name, seq=30 + at, iat=iat), ALICE_BEFORE), 5]
        for at, (name, iat) in enumerate(made.items())
    ]
    story.tell("what was done before anyone could know is paid", BOB, "settle", items=items)


def _endings(story: Story) -> None:
    ends = {"holds": [["alice", "by-small-hold"]], "allowances": ["allowance-closed", "allowance-1"]}
    story.now = NOW + 299
    story.tell("too early", MALLORY, "expire", **ends)
    story.now = NOW + 300
    story.tell("the closed one is over", MALLORY, "expire", **ends)
    story.now = NOW + 900
    story.tell("and the hold", MALLORY, "expire", **ends)
    story.now = NOW + HOUR + 300
    story.tell("and the allowance", MALLORY, "expire", **ends)
    story.now = NOW + HOUR + 901
    story.tell("what nobody needs is forgotten", BOB, "forget", operations=[["bob", "settle-1"]], **ends)
    holds = [["held-1", "bob", 2], ["held-2", "bob", 10**6], ["held-3", "bob", 1], ["held-4", "alice", 1]]
    together = [[*hold, story.now + 600] for hold in holds]
    story.tell("many holds, each judged by itself", ALICE, "holds", holds=together)


def operations() -> dict[str, Any]:
    """operations.json."""
    story = Story()
    _setup(story)
    setup = story.told[:]
    _refusals(story)
    _settlements(story)
    _private(story)
    _revocations(story)
    _endings(story)
    return {
        "about": (
            "From the genesis in keys.json: each operation at its time, and its outcome; `disclosures` are "
            "what travels beside it, if anything does."
        ),
        "setup": setup,
        "then": story.told[len(setup) :],
        "state": dict(story.state.items()),
    }

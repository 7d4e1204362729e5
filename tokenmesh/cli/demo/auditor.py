"""The auditor: what must hold after the demo, judged from evidence that the services cannot touch up.

Four sources are laid side by side: the ledger's history (signed settlements, read from its transactions),
the notes that each handler made when it ran, what the wire saw, and the journals. It is given data only,
so that the tests can lie to it and see whether it notices.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tokenmesh.cli.demo.tally import Passage

EXAMPLES_MAX = 5
Key: TypeAlias = tuple[str, str, str]
"""A contract among all: payer, payee, contract id."""


class Settled(NamedTuple):
    """A contract as a settlement on the ledger has it; ``offered`` is the most that its payer signed."""

    payer: str
    payee: str
    jti: str
    op: str
    offered: int
    charged: int
    tx_id: str = ""
    """The ledger transaction that the settlement is in."""

    @property
    def key(self) -> Key:
        return self.payer, self.payee, self.jti


class Run(NamedTuple):
    """A handler ran, says its own note."""

    service: str
    payer: str
    jti: str

    @property
    def key(self) -> Key:
        return self.payer, self.service, self.jti


class Account(NamedTuple):
    """A wallet at the end. ``granted`` is all it was given from outside."""

    granted: int
    spendable: int
    credits: int
    held: int
    allowed: int


class Evidence(NamedTuple):
    """All that the auditor is shown."""

    settled: Sequence[Settled]
    runs: Sequence[Run]
    passages: Sequence[Passage]
    forged: Sequence[str]
    """Receipts whose signature does not hold."""
    claims: Mapping[Key, int | None]
    """For each settled contract: what the payee's journal says it charged, None if it fulfilled nothing."""
    unsettled: Mapping[str, int]
    """For each service: contracts fulfilled in its journal, but not settled (waiting or refused)."""
    offers: Mapping[tuple[str, str], int]
    """The tokens a payee asks at most, by service and operation, as far as it published a number."""
    accounts: Mapping[str, Account]
    minted: int
    supply: int
    accounted: int
    verify: Sequence[str]
    """What ``tokenmesh verify`` found."""


class Check(NamedTuple):
    """One invariant: ``figure`` is how often it does not hold, ``findings`` are examples."""

    name: str
    promise: str
    figure: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.figure == 0


def audit(evidence: Evidence) -> list[Check]:
    """Judge the evidence."""
    return [
        _check(
            "overcharged",
            "no contract was charged twice, above its offer, or for no work",
            _overcharged(evidence),
        ),
        _check("double_runs", "no handler ran twice for one contract", _double_runs(evidence)),
        _check("unsettled", "whatever was fulfilled was settled, to the token", _unsettled(evidence)),
        _stranded(evidence),
        _check("supply", "not one token appeared or disappeared", _supply(evidence)),
        _check("books", "receipts, balances and the ledger agree", _books(evidence)),
        _check("verify", "the ledger's history replays to the same state", list(evidence.verify)),
    ]


def _check(name: str, promise: str, findings: list[str]) -> Check:
    return Check(name, promise, len(findings), tuple(findings[:EXAMPLES_MAX]))


def _overcharged(evidence: Evidence) -> list[str]:
    findings = []
    ran = {run.key for run in evidence.runs}
    void = {_key(passage) for passage in evidence.passages if passage.out == "void"}
    times = Counter(settled.key for settled in evidence.settled)
    for key, count in times.items():
        if count > 1:
            findings.append(f"{_name(key)} was settled {count} times")
    for settled in evidence.settled:
        most = min(settled.offered, evidence.offers.get((settled.payee, settled.op), settled.offered))
        if settled.charged > most:
            findings.append(f"{_name(settled.key)} was charged {settled.charged}, offered were {most}")
        if settled.key not in ran:
            findings.append(f"{_name(settled.key)} was charged, but its handler never ran")
        if evidence.claims.get(settled.key) != settled.charged:
            claim = evidence.claims.get(settled.key)
            findings.append(f"{_name(settled.key)} was charged {settled.charged}; its claim says {claim}")
        if settled.key in void:
            findings.append(f"{_name(settled.key)} was charged, though a receipt called it void")
    return findings


def _double_runs(evidence: Evidence) -> list[str]:
    times = Counter(run.key for run in evidence.runs)
    return [f"{_name(key)} ran {count} times" for key, count in times.items() if count > 1]


def _unsettled(evidence: Evidence) -> list[str]:
    findings = [
        f"the journal of {service} has {count} fulfilled contracts that are not settled"
        for service, count in evidence.unsettled.items()
        if count
    ]
    charged = {settled.key: settled.charged for settled in evidence.settled}
    for key, tokens in _receipts(evidence).items():
        if len(tokens) > 1:
            findings.append(f"{_name(key)} has receipts for different amounts: {sorted(tokens)}")
        elif charged.get(key, 0) not in tokens:
            findings.append(
                f"{_name(key)} has a receipt for {max(tokens)}, settled were {charged.get(key, 0)}"
            )
    return findings


def _stranded(evidence: Evidence) -> Check:
    aside = {name: account.held + account.allowed for name, account in evidence.accounts.items()}
    findings = tuple(
        f"{tokens} tokens of {name} are still set aside" for name, tokens in aside.items() if tokens
    )
    return Check("stranded_tokens", "no token stayed set aside", sum(aside.values()), findings)


def _supply(evidence: Evidence) -> list[str]:
    findings = []
    if evidence.supply != evidence.minted:
        findings.append(f"{evidence.minted} tokens were made, there are {evidence.supply}")
    if evidence.accounted != evidence.supply:
        findings.append(f"there are {evidence.supply} tokens, accounted for are {evidence.accounted}")
    return findings


def _books(evidence: Evidence) -> list[str]:
    """Every wallet's arithmetic, and every payer's: what its receipts say is what the ledger took."""
    findings = [f"a receipt's signature does not hold: {text[:60]}" for text in evidence.forged]
    change: Counter[str] = Counter()
    paid: defaultdict[tuple[str, str], int] = defaultdict(int)
    for settled in evidence.settled:
        change[settled.payee] += settled.charged
        change[settled.payer] -= settled.charged
        paid[settled.payer, settled.payee] += settled.charged
    for name, account in evidence.accounts.items():
        expected = account.granted + change[name]
        found = account.spendable + account.credits + account.held + account.allowed
        if found != expected:
            findings.append(f"{name} should have {expected} tokens and has {found}")
    believed: defaultdict[tuple[str, str], int] = defaultdict(int)
    for (payer, payee, _), amounts in _receipts(evidence, delivered_only=True).items():
        believed[payer, payee] += max(amounts)
    for (payer, payee), tokens in believed.items():
        if tokens > paid[payer, payee]:
            findings.append(
                f"{payer} has receipts of {payee} for {tokens}, the ledger took {paid[payer, payee]}"
            )
    return findings


def _receipts(evidence: Evidence, *, delivered_only: bool = False) -> dict[Key, set[int]]:
    """The amounts in the fulfilled receipts of each contract: one, if all is well."""
    amounts: defaultdict[Key, set[int]] = defaultdict(set)
    for passage in evidence.passages:
        if passage.out == "fulfilled" and not (delivered_only and passage.lost):
            amounts[_key(passage)].add(passage.charged)
    return amounts


def _key(passage: Passage) -> Key:
    return passage.payer or "", passage.service, passage.jti or ""


def _name(key: Key) -> str:
    payer, payee, jti = key
    return f"contract {jti} ({payer} to {payee})"

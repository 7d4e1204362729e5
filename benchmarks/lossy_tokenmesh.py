"""tokenmesh on the lossy scoreboard: the same cases on the embedded ledger and on Fabric; for ``lossy.py``.

Each case has a payer's wallet of its own. When all cases are done the time comes at which everything set
aside has expired: on the embedded ledger by a clock that is ahead, on Fabric, where time is the endorsers',
by waiting for allowances that were opened for a minute. Then every token must be somebody's to spend, and the
ledger must verify.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tokenmesh.cli.demo.ground import EMBEDDED, FABRIC, Ground, no_passphrase, prepare
from tokenmesh.cli.demo.plan import GOVERNANCE
from tokenmesh.config import Settings
from tokenmesh.errors import LedgerOutcomeUnknown, LedgerUnavailable
from tokenmesh.identity import Wallet
from tokenmesh.ledger import Ledger, open_ledger
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh_benchmarks.lossy_cases import Case, Tally
from tokenmesh_benchmarks.lossy_stage import ask, free_port, note_ends, pay, stage, start, wire_of
from tokenmesh_benchmarks.lossy_tokenmesh_service import PAYEE, TOKENS
from tokenmesh_chaincode.documents import Operation, new_id, parse_contract, parse_operation, sign
from tokenmesh_chaincode.rules import default_policy

SERVICE = [sys.executable, "-m", "tokenmesh_benchmarks.lossy_tokenmesh_service"]
PAYMENT = "token-contract"
GRANT = 100_000
ANSWER_S = 300.0
EXPIRE_MAX = 500
TTL_S = 600
ASK_MAX = 5
SHORT = {"grace_s": 20}
"""The policy on Fabric, where it differs from the default."""
SHORT_ENVIRONMENT = {"TOKENMESH_ALLOWANCE_TTL_S": "60"}
"""The payer's settings on Fabric, where they differ from the default."""
EXPIRY_S_MAX = 300.0
AHEAD_S = 2 * 86_400


def govern(
    ledger: Ledger, governance: Wallet, act: str, arg: dict[str, Any], clock: Callable[[], float] = time.time
) -> None:
    """Have governance's operation done. An answer that is lost is asked for again: it happens once."""
    now = int(clock())
    text = sign(Operation(ledger.domain, GOVERNANCE, new_id(), now, now + TTL_S, act, arg), governance)
    for _ in range(ASK_MAX):
        with suppress(LedgerOutcomeUnknown, LedgerUnavailable):
            (result,) = ledger.submit([text]).result(ANSWER_S)
            assert result.outcome.ok, result.outcome
            return
        time.sleep(1)
    raise LedgerUnavailable(f"no answer to {act}, asked {ASK_MAX} times")


class Bench(NamedTuple):
    """A ledger that was begun, and governance at it."""

    kind: str
    home: Path
    ground: Ground
    ledger: Ledger
    governance: Wallet

    def wallet(self, name: str, tokens: int = 0) -> None:
        """A new wallet that has so many tokens coming."""
        issuer = self.ground.issuer("service")
        wallet = Wallet.create(self.home, name, issuer, "service", passphrase=no_passphrase)
        record = {"name": name, "cert": wallet.certificate_pem, "role": "service", "url": None}
        govern(self.ledger, self.governance, "register", record)
        if tokens:
            govern(self.ledger, self.governance, "grant", {"to": name, "tokens": tokens})

    def environment(self, name: str) -> dict[str, str]:
        """What a service finds in its environment."""
        given = {"TOKENMESH_SERVICE": name, "TOKENMESH_HOME": str(self.home)}
        given["TOKENMESH_LEDGER"] = self.ground.url
        return given if self.kind == EMBEDDED else {**given, **SHORT_ENVIRONMENT}


def run_tokenmesh(
    kind: str, chosen: list[Case], seed: int, home: Path, tell: Callable[[str], None]
) -> list[Tally]:
    """All cases on one ledger, ``embedded`` or ``fabric``."""
    home.mkdir(parents=True, exist_ok=True)
    with _begin(kind, home, tell) as bench:
        bench.wallet(PAYEE)
        tallies = []
        for case in chosen:
            tell(f"tokenmesh on {kind}: {_title(case)}")
            bench.wallet(payer_of(case), GRANT)
            tallies.append(_run_case(bench, case, seed))
        tell(f"tokenmesh on {kind}: everything expires")
        _expire(bench)
        for tally in tallies:
            _count_tokens(bench, tally)
        report = bench.ground.verify(lambda _done, _all: None)
        assert not report.findings, report.findings
    return tallies


def payer_of(case: Case) -> str:
    """The wallet that pays in a case."""
    return "payer-" + _title(case).replace("_", "-")


def _title(case: Case) -> str:
    return case.name + ("_bare" if case.bare else "")


@contextmanager
def _begin(kind: str, home: Path, tell: Callable[[str], None]) -> Iterator[Bench]:
    with prepare(kind, home, tell, keep=False) as ground:
        issuer = ground.issuer("governor")
        wallet = Wallet.create(home, GOVERNANCE, issuer, "governor", passphrase=no_passphrase)
        ground.begin(wallet, {**default_policy(), **(SHORT if kind == FABRIC else {})})
        ledger = open_ledger(ground.url, wallet, Settings(home=home, ledger=ground.url))
        try:
            govern(ledger, wallet, "mint", {"tokens": 100 * GRANT})
            yield Bench(kind, home, ground, ledger, wallet)
        finally:
            ledger.close()


def _run_case(bench: Bench, case: Case, seed: int) -> Tally:
    """One case. What the payee earned is on the ledger when its process has ended."""
    tally = Tally(case)
    before = _newest(bench.ledger)
    port, home = free_port(), bench.home / "cases" / _title(case)
    with stage(home) as children:
        spec = json.dumps({"port": port, "forgetful": case.forgetful})
        start(children, "payee", [*SERVICE, "payee", spec], port, "/seen", bench.environment(PAYEE))
        with wire_of(case, port, PAYMENT, seed) as wire:
            environment = {
                **bench.environment(payer_of(case)),
                "TOKENMESH_URL_PAYEE": f"http://127.0.0.1:{wire.port}",
            }
            found = pay(children, case, [*SERVICE, "payer"], {}, home, environment)
            tally.went_out = wire.went_out
        if case.forgetful:
            _await_lost_settlement(port)
        tally.runs = Counter(ask(port, "/seen")["runs"])
        children.stop("payee", seconds=ANSWER_S)
    note_ends(tally, found["ends"])
    tally.charged = _charged(bench.ledger, before, payer_of(case))
    return tally


def _await_lost_settlement(port: int) -> None:
    """Let a settlement lose its answer before the payee is told to end."""
    deadline = time.monotonic() + ANSWER_S
    while not ask(port, "/seen")["lost_settlements"]:
        assert time.monotonic() < deadline, "no settlement was sent"
        time.sleep(0.05)


def _newest(ledger: Ledger) -> int:
    number = 0
    while listed := ledger.transactions(after=number).result(ANSWER_S):
        number = listed[-1].number
    return number


def _charged(ledger: Ledger, after: int, payer: str) -> Counter[str]:
    """How often each request of a payer was charged, from the ledger's history."""
    charged: Counter[str] = Counter()
    while listed := ledger.transactions(after=after).result(ANSWER_S):
        after = listed[-1].number
        for one in listed:
            whole = ledger.transaction(one.tx_id).result(ANSWER_S)
            assert whole is not None
            for operation in whole.operations:
                if operation.act == "settle" and operation.document is not None:
                    items = parse_operation(operation.document).body.arg["items"]
                    refused = operation.outcome.detail["refused"]
                    assert not refused, refused
                    bodies = [(parse_contract(text).body, tokens) for text, tokens in items]
                    charged.update(body.htu for body, tokens in bodies if body.iss == payer and tokens)
    return charged


def _expire(bench: Bench) -> None:
    """Give back what is set aside, once its time is over."""
    if bench.kind == EMBEDDED:
        ledger = EmbeddedLedger(bench.home / "ledger.db", bench.governance, clock=_ahead)
        try:
            while _give_back(ledger, bench.governance, _ahead):
                pass
        finally:
            ledger.close()
        return
    deadline = time.monotonic() + EXPIRY_S_MAX
    while _give_back(bench.ledger, bench.governance, time.time) or _set_aside(bench.ledger):
        if time.monotonic() > deadline:
            return  # what is left is stranded
        time.sleep(1)


def _ahead() -> float:
    return time.time() + AHEAD_S


def _give_back(ledger: Ledger, governance: Wallet, clock: Callable[[], float]) -> bool:
    due = ledger.expirable(int(clock()), EXPIRE_MAX).result(ANSWER_S)
    if any(due.values()):
        govern(ledger, governance, "expire", due, clock)
    return any(due.values())


def _set_aside(ledger: Ledger) -> int:
    balances = [ledger.balance(one.name) for one in ledger.wallets().result(ANSWER_S)]
    return sum(one.result(ANSWER_S).held + one.result(ANSWER_S).allowed for one in balances)


def _count_tokens(bench: Bench, tally: Tally) -> None:
    """What the payer had is charged, or is its own to spend; the rest is stranded."""
    balance = bench.ledger.balance(payer_of(tally.case)).result(ANSWER_S)
    own = balance.spendable + balance.credits
    tally.stranded = GRANT - own - TOKENS * sum(tally.charged.values())

"""The summary: who paid whom, how long it took, what went wrong on purpose, and what held nevertheless."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenmesh.cli.demo.auditor import Check, Evidence
from tokenmesh.cli.demo.plan import GOVERNANCE, NAMES, SHOPPER
from tokenmesh.cli.demo.scenes import Deed
from tokenmesh.cli.demo.tally import Tally, percentile
from tokenmesh.cli.demo.traced import Traced

PAYERS = (SHOPPER, "frontend", "recommendation", "checkout")


class Visit(NamedTuple):
    """One page that a shopper asked for. ``outcome`` is "ok" or the error that the shopper got."""

    page: str
    ms: float
    outcome: str


class Summary:
    """Everything there is to say about one run."""

    def __init__(
        self,
        *,
        options: Mapping[str, Any],
        evidence: Evidence,
        checks: Sequence[Check],
        tally: Tally,
        visits: Sequence[Visit],
        deeds: Sequence[Deed],
        happenings: Counter[tuple[str, str, str]],
        shopping_s: float,
        total_s: float,
        traced: Traced | None = None,
    ) -> None:
        self._options = options
        self._evidence = evidence
        self._checks = {check.name: check for check in checks}
        self._tally = tally
        self._visits = visits
        self._deeds = deeds
        self._happenings = happenings
        self._shopping_s = shopping_s
        self._total_s = total_s
        self._traced = traced
        self._flows: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for settled in evidence.settled:
            self._flows[settled.payer, settled.payee].append(settled.charged)

    @property
    def ok(self) -> bool:
        """All invariants hold, and there was something for them to hold in."""
        return all(check.ok for check in self._checks.values()) and len(self._evidence.settled) > 0

    def to_json(self) -> dict[str, Any]:
        """The summary as one object."""
        took = [visit.ms for visit in self._visits]
        return {
            "ok": self.ok,
            **self._options,
            "calls": self._tally.calls.total(),
            "paid": len(self._evidence.settled),
            "tokens": sum(settled.charged for settled in self._evidence.settled),
            "retries": self._tally.retries,
            "responses_lost": self._tally.lost.total(),
            "overcharged": self._checks["overcharged"].figure,
            "double_runs": self._checks["double_runs"].figure,
            "stranded_tokens": self._checks["stranded_tokens"].figure,
            "verify": self._checks["verify"].ok,
            "p50_ms": round(percentile(took, 0.50), 1),
            "p95_ms": round(percentile(took, 0.95), 1),
            "p99_ms": round(percentile(took, 0.99), 1),
            "visits": dict(Counter(visit.outcome for visit in self._visits)),
            "services": {name: self._service(name) for name in NAMES},
            "wallets": {name: self._wallet(name) for name in (SHOPPER, *NAMES, GOVERNANCE)},
            "who_paid_whom": [
                {"payer": payer, "payee": payee, "contracts": len(charges), "tokens": sum(charges)}
                for (payer, payee), charges in sorted(self._flows.items())
            ],
            "trouble": [deed._asdict() for deed in self._deeds],
            "invariants": {
                check.name: {"ok": check.ok, "figure": check.figure, "findings": list(check.findings)}
                for check in self._checks.values()
            },
            "traces": None if self._traced is None else self._traced.to_json(),
            "shopping_s": round(self._shopping_s, 1),
            "total_s": round(self._total_s, 1),
        }

    def _service(self, name: str) -> dict[str, Any]:
        took = self._tally.ms[name]
        return {
            "calls": self._tally.calls[name],
            "tries": self._tally.tries[name],
            "lost": self._tally.lost[name],
            "p50_ms": round(percentile(took, 0.50), 1),
            "p95_ms": round(percentile(took, 0.95), 1),
            "p99_ms": round(percentile(took, 0.99), 1),
        }

    def _wallet(self, name: str) -> dict[str, int]:
        account = self._evidence.accounts[name]
        return {
            "balance": account.spendable + account.credits,
            "granted": account.granted,
            "earned": sum(sum(charges) for (_, payee), charges in self._flows.items() if payee == name),
            "spent": sum(sum(charges) for (payer, _), charges in self._flows.items() if payer == name),
        }

    def print(self, console: Console) -> None:
        """For people."""
        console.print()
        console.print(self._matrix())
        console.print(self._times())
        traces = [] if self._traced is None else [*self._traced.lines(), Text()]
        for line in (*self._trouble(), Text(), *self._invariants(), Text(), *traces, self._verdict()):
            console.print(line, soft_wrap=True)

    def _invariants(self) -> list[Text]:
        lines = []
        for check in self._checks.values():
            mark = ("✓ ", "bold green") if check.ok else ("✗ ", "bold red")
            lines.append(Text.assemble(mark, check.promise, (f"  ({check.name}: {check.figure})", "dim")))
            lines += [Text(f"    {finding}", "red") for finding in check.findings]
        return lines

    def _verdict(self) -> Text:
        contracts = len(self._evidence.settled)
        tokens = sum(settled.charged for settled in self._evidence.settled)
        if self.ok:
            verdict = Text(f"All held: {contracts:,} calls paid with {tokens:,} tokens", "bold green")
        elif contracts == 0:
            verdict = Text("Not one call was paid: nothing was shown", "bold red")
        else:
            verdict = Text("Something did not hold: see above", "bold red")
        return Text.assemble(verdict, (f"  ({self._total_s:.0f} s, seed {self._options['seed']})", "dim"))

    def _matrix(self) -> Table:
        table = _table("Who paid whom (tokens, on the ledger)")
        table.add_column("payee")
        for payer in PAYERS:
            table.add_column(payer, justify="right")
        table.add_column("earned", justify="right", style="bold")
        for payee in NAMES:
            sums = [sum(self._flows.get((payer, payee), ())) for payer in PAYERS]
            table.add_row(payee, *(f"{tokens:,}" if tokens else "" for tokens in sums), f"{sum(sums):,}")
        totals = [self._wallet(payer)["spent"] for payer in PAYERS]
        table.add_section()
        table.add_row("spent", *(f"{tokens:,}" for tokens in totals), f"{sum(totals):,}", style="bold")
        return table

    def _times(self) -> Table:
        table = _table("How long it took (ms)")
        for column in ("", "calls", "tries", "lost", "p50", "p95", "p99"):
            table.add_column(column, justify="left" if not column else "right")
        took = [visit.ms for visit in self._visits]
        points = [f"{percentile(took, part):,.1f}" for part in (0.50, 0.95, 0.99)]
        table.add_row("a page, as shoppers see it", f"{len(took):,}", "", "", *points, end_section=True)
        for name in NAMES:
            service = self._service(name)
            figures = [f"{service[key]:,}" for key in ("calls", "tries", "lost")]
            table.add_row(name, *figures, *(f"{service[key]:,.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")))
        return table

    def _trouble(self) -> list[Text]:
        lines = [Text("Trouble, made on purpose", "bold")]
        lost, tries = self._tally.lost.total(), sum(len(took) for took in self._tally.ms.values())
        lines.append(
            Text(f"  {lost:,} of {tries:,} responses lost on the wire; {self._tally.retries:,} retries")
        )
        lines += [
            Text(f"  {deed.who} {deed.what} (from {deed.at_s:.1f} s to {deed.until_s:.1f} s)")
            for deed in self._deeds
        ]
        if self._happenings:
            lines.append(Text("What it did to the shop", "bold"))
        for (service, what, why), count in self._happenings.most_common(8):
            lines.append(Text(f"  {count:>5,} x {service} {what} ({why})"))
        failed = Counter(visit.outcome for visit in self._visits if visit.outcome != "ok")
        shown = ", ".join(f"{count} {outcome}" for outcome, count in failed.most_common()) or "none"
        lines.append(
            Text(f"  pages that shoppers did not get: {failed.total():,} of {len(self._visits):,} ({shown})")
        )
        return lines


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")

"""The checker: at the end of a run, does everything add up, to the token and to the last acknowledged word?

As a bank's auditor would: an account of its own is drawn up from what the payers were answered, what the
handlers have noted and what the ledger's history says, and compared with the balances. The demo's auditor
judges the tokens; here stands what a run of kills adds to that: nothing acknowledged is lost, no job is paid
twice under two contracts, an answer is the answer of the run that was charged. It is given data only, so that
the tests can lie to it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokenmesh.cli.demo.auditor import Evidence, Key, audit

FOUND_MAX = 20


class Run(NamedTuple):
    """A handler's own two notes of one run; ``charged`` is None if the second never came."""

    run: str
    payer: str
    jti: str
    job: str
    charged: int | None


class Answer(NamedTuple):
    """What a paying process has noted of a call that ended."""

    process: str
    payer: str
    way: str
    number: int
    jti: str
    run: str
    status: int
    charged: int


class Asked(NamedTuple):
    """An operation that governance has noted before it sent it; ``code`` and ``tx_id`` as it was answered,
    None if it never was."""

    jti: str
    act: str
    code: str | None
    tx_id: str | None


class Recorded(NamedTuple):
    """An operation of governance in the ledger's history."""

    jti: str
    act: str
    code: str
    tx_id: str


class Books(NamedTuple):
    """All that is known at the end of a run."""

    payee: str
    evidence: Evidence
    """What the demo's auditor is shown."""
    runs: Sequence[Run]
    answers: Sequence[Answer]
    ends: Mapping[Key, str]
    """For each contract that a handler ran for: its state in the payee's journal."""
    asked: Sequence[Asked]
    recorded: Sequence[Recorded]
    """What governance did after the founding."""
    forgetful: Sequence[str]
    """The ways of calling in which a payer may never learn what became of a contract."""


def check(books: Books) -> list[str]:
    """Everything that is wrong; nothing, if all is well."""
    found = []
    for one in audit(books.evidence):
        found += [f"{one.name}: {finding}" for finding in one.findings]
        if one.figure > len(one.findings):
            found.append(f"{one.name}: {one.figure} in all")
    for name, judge in _JUDGES.items():
        findings = judge(books)
        found += [f"{name}: {finding}" for finding in findings[:FOUND_MAX]]
        if len(findings) > FOUND_MAX:
            found.append(f"{name}: {len(findings)} in all")
    return found


def _charged(books: Books) -> dict[Key, int]:
    return {settled.key: settled.charged for settled in books.evidence.settled}


def _fulfilled(books: Books) -> list[str]:
    """Charged if and only if fulfilled, and what the handler said it is worth."""
    charged, payee = _charged(books), books.payee
    findings = [
        f"contract {key[2]} of {key[0]} is {end} in the journal, and charged {charged.get(key, 'nothing')}"
        for key, end in books.ends.items()
        if (end == "fulfilled") != (key in charged)
    ]
    for run in books.runs:
        tokens = charged.get((run.payer, payee, run.jti))
        if tokens is not None and tokens != run.charged:
            findings.append(
                f"contract {run.jti} of {run.payer} is charged {tokens}; its handler said {run.charged}"
            )
    return findings


def _answered(books: Books) -> list[str]:
    """What a payer was answered is true: charged so much, for that very run, and nothing for what failed."""
    charged, payee = _charged(books), books.payee
    by_run = {run.run: run for run in books.runs}
    findings = []
    for answer in books.answers:
        name = f"{answer.process} {answer.way} {answer.number} (contract {answer.jti})"
        tokens = charged.get((answer.payer, payee, answer.jti), 0)
        if tokens != answer.charged:
            findings.append(f"{name} was answered {answer.charged} tokens, the ledger took {tokens}")
        run = by_run.get(answer.run)
        if run is None or run.jti != answer.jti:
            findings.append(f"{name} was answered by a run of {run.jti if run else 'nobody'}")
        if (answer.status == 200) != (answer.charged > 0):
            findings.append(f"{name} was charged {answer.charged} for status {answer.status}")
    return findings


def _jobs(books: Books) -> list[str]:
    """Each job that has a key is done once: no number is missing, no job is charged under two contracts, and
    nothing is charged of which its payer never heard."""
    findings = []
    numbers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    heard = {(answer.payer, answer.jti) for answer in books.answers}
    for answer in books.answers:
        if answer.way not in books.forgetful:
            numbers[answer.process, answer.way].append(answer.number)
    for (process, way), found in numbers.items():
        if found != list(range(len(found))):
            findings.append(f"{process} has noted other {way} jobs than 0 to {len(found) - 1}, each once")
    charged, payee = _charged(books), books.payee
    paid = {(run.job, run.jti): run for run in books.runs if (run.payer, payee, run.jti) in charged}
    for job, times in Counter(job for job, _ in paid).items():
        if times > 1 and not _may_forget(books, job):
            findings.append(f"job {job} is charged under {times} contracts")
    findings += [
        f"job {job} is charged under {jti}, and its payer never heard of it"
        for (job, jti), run in paid.items()
        if (run.payer, jti) not in heard and not _may_forget(books, job)
    ]
    return findings


def _may_forget(books: Books, job: str) -> bool:
    return any(f"-{way}-" in job for way in books.forgetful)


def _acts(books: Books) -> list[str]:
    """What governance was answered stands in the history, once and in that transaction; what it has never
    asked for does not; and what it asked for was answered in the end."""
    findings = []
    history: defaultdict[str, list[Recorded]] = defaultdict(list)
    for one in books.recorded:
        history[one.jti].append(one)
    for asked in books.asked:
        entries = history.pop(asked.jti, [])
        if asked.code is None:
            findings.append(f"{asked.act} {asked.jti} was never answered")
        elif [(one.code, one.tx_id) for one in entries] != [(asked.code, asked.tx_id)]:
            said = ", ".join(f"{one.code} in {one.tx_id}" for one in entries) or "nothing"
            findings.append(
                f"{asked.act} {asked.jti} was answered {asked.code} in {asked.tx_id}, history has {said}"
            )
    findings += [
        f"{entries[0].act} {jti} is in the history, and nobody asked for it"
        for jti, entries in history.items()
    ]
    return findings


def _something(books: Books) -> list[str]:
    """A run in which nothing happened proves nothing."""
    counts = {
        "contract was settled": len(books.evidence.settled),
        "operation of governance was recorded": len(books.recorded),
        "answer was noted": len(books.answers),
    }
    return [f"no {what}" for what, count in counts.items() if count == 0]


_JUDGES = {
    "fulfilled": _fulfilled,
    "answers": _answered,
    "jobs": _jobs,
    "governance": _acts,
    "at all": _something,
}

"""Draws up the books of a run that has come to rest: from notes, journal and the ledger's history.

It also lets the time of everything that is set aside run out, and sweeps in what comes back.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from chaos.cast import PAYERS
from chaos.checker import Answer, Asked, Books, Recorded, Run
from chaos.governor import GOVERNANCE
from chaos.grounds import Ground, later
from chaos.notes import Folder, read
from chaos.offers import DRAWN, HELD_MOST, LOOK
from chaos.payer import LOOK as FORGETFUL
from chaos.payer import PAYEE

from tokenmesh.cli.demo import auditor
from tokenmesh.cli.demo.evidence import claimed, forged, read_history
from tokenmesh.cli.demo.tally import Passage
from tokenmesh.cli.desk import Desk
from tokenmesh.identity import Wallet
from tokenmesh.journal import Journal, open_journal
from tokenmesh.ledger.base import Ledger
from tokenmesh.steps import run, wait
from tokenmesh_chaincode.documents import parse_receipt
from tokenmesh_chaincode.limits import SWEEP_ITEMS_MAX

PAGE = 100
EXPIRE_MAX = 500
ANSWER_S = 60.0
VERIFY_S_MAX = 300
OFFERS = {
    (PAYEE, "POST /drawn/{job}"): DRAWN,
    (PAYEE, "POST /held/{job}"): HELD_MOST,
    (PAYEE, "GET /look/{job}"): LOOK,
}


def journal_of(folder: Folder) -> Journal:
    return open_journal(f"sqlite:///{folder.home / f'journal-{PAYEE}.db'}")


def expire_and_sweep(ground: Ground) -> None:
    """Hours later: what is set aside comes back, as governance asks; each wallet sweeps in its credits."""
    home = ground.folder.home
    governance = Wallet.load(home, GOVERNANCE)
    with ground.later(governance) as ledger:
        desk = Desk(ledger, governance, later)
        while any((due := ledger.expirable(int(later()), EXPIRE_MAX).result(ANSWER_S)).values()):
            desk.do("expire", due)
        names = [wallet.name for wallet in ledger.wallets().result(ANSWER_S)]
    for name in names:
        wallet = Wallet.load(home, name)
        with ground.later(wallet) as ledger:
            desk = Desk(ledger, wallet, later)
            while waiting := ledger.credits(name, SWEEP_ITEMS_MAX).result(ANSWER_S):
                desk.do("sweep", {"credits": [credit.id for credit in waiting]})


def books(ground: Ground, minted: int, founded: int) -> Books:
    """The books of a run. ``minted`` tokens were made at the founding, which ends with the transaction
    ``founded``."""
    folder = ground.folder
    answers = list(_answers(folder))
    runs = _runs(folder)
    journal = journal_of(folder)
    with ground.later(Wallet.load(folder.home, GOVERNANCE)) as ledger:
        passages = [passage for _, passage in answers]
        history = read_history(ledger)
        supply = ledger.supply().result(ANSWER_S)
        journals = {PAYEE: journal}
        stats = run(wait(journal.stats()))
        evidence = auditor.Evidence(
            settled=history.settled,
            runs=[auditor.Run(PAYEE, one.payer, one.jti) for one in runs],
            passages=passages,
            forged=forged(ledger, passages),
            claims={settled.key: claimed(journals, settled) for settled in history.settled},
            unsettled={PAYEE: stats.unsettled + stats.lost + stats.open},
            offers=OFFERS,
            accounts={
                wallet.name: auditor.Account(
                    history.granted[wallet.name], *ledger.balance(wallet.name).result(ANSWER_S)
                )
                for wallet in ledger.wallets().result(ANSWER_S)
            },
            minted=minted,
            supply=supply.minted - supply.burned,
            accounted=supply.accounted,
            verify=_verify(ground),
        )
        recorded = list(_recorded(ledger, founded))
    found = {(one.payer, PAYEE, one.jti): run(wait(journal.find(one.payer, one.jti))) for one in runs}
    journal.close()
    return Books(
        payee=PAYEE,
        evidence=evidence,
        runs=runs,
        answers=[answer for answer, _ in answers],
        ends={key: "forgotten" if claim is None else claim.state for key, claim in found.items()},
        asked=_asked(folder),
        recorded=recorded,
        forgetful=(FORGETFUL,),
    )


def newest(ledger: Ledger) -> int:
    """The number of the ledger's newest transaction."""
    return ledger.transactions(limit=1, newest_first=True).result(ANSWER_S)[0].number


def _answers(folder: Folder) -> Iterator[tuple[Answer, Passage]]:
    """What the payers have noted, as the checker and as the demo's auditor want it."""
    for process, payer in PAYERS.items():
        for note in read(folder.answers(process)):
            answer = Answer(
                process,
                payer,
                note["way"],
                note["number"],
                note["jti"],
                note["run"],
                note["status"],
                note["charged"],
            )
            out = parse_receipt(note["receipt"]).body.out
            passage = Passage(
                service=PAYEE,
                request=note["way"],
                payer=payer,
                jti=answer.jti,
                status=answer.status,
                ms=0.0,
                lost=False,
                receipt=note["receipt"],
                out=out,
                charged=answer.charged,
            )
            yield answer, passage


def _runs(folder: Folder) -> list[Run]:
    runs: dict[str, Run] = {}
    for note in read(folder.runs):
        if "begun" in note:
            runs[note["begun"]] = Run(note["begun"], note["payer"], note["jti"], note["job"], None)
        else:
            runs[note["done"]] = runs[note["done"]]._replace(charged=note["charged"])
    return list(runs.values())


def _asked(folder: Folder) -> list[Asked]:
    asked: dict[str, Asked] = {}
    for note in read(folder.acts):
        if "asked" in note:
            asked[note["asked"]] = Asked(note["asked"], note["act"], None, None)
        else:
            asked[note["answered"]] = asked[note["answered"]]._replace(code=note["code"], tx_id=note["tx_id"])
    return list(asked.values())


def _recorded(ledger: Ledger, founded: int) -> Iterator[Recorded]:
    """What governance did while it ran; what gives back what has expired is the run's own."""
    after = founded
    while page := ledger.transactions(after=after, limit=PAGE).result(ANSWER_S):
        after = page[-1].number
        for transaction in page:
            for one in transaction.operations:
                if one.issuer == GOVERNANCE and one.act not in ("expire", "sweep"):
                    yield Recorded(one.id, one.act, one.outcome.code, transaction.tx_id)


def _verify(ground: Ground) -> list[str]:
    """What ``tokenmesh verify`` finds, the command itself."""
    command = [str(Path(sys.executable).with_name("tokenmesh")), "--home", str(ground.folder.home)]
    done = subprocess.run(
        [*command, "verify", "--ledger", ground.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=VERIFY_S_MAX,
    )
    return [] if done.returncode == 0 else [f"it ended with {done.returncode}: {done.stdout}{done.stderr}"]

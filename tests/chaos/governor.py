"""Governance at work while everything breaks: it grants, freezes and unfreezes, and changes the policy.

``python -m chaos.governor URL FOLDER PAYER...``. Each operation is noted with its whole document before it is
sent, and with its outcome once there is one. A new process, after a kill, first sends again what has no
outcome: the same document, which happens once. At the end nobody is frozen and the policy allows everything.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from chaos.notes import DurableNotes, Folder, mend, read

from tokenmesh.cli.demo.chance import seeded
from tokenmesh.config import Settings
from tokenmesh.errors import LedgerError
from tokenmesh.identity import Wallet
from tokenmesh.ledger import open_ledger
from tokenmesh_chaincode.documents import Operation, new_id, sign

GOVERNANCE = "governance"
DOCUMENT_TTL_S = 3_600
ANSWER_S = 60.0
AGAIN_S = 0.1
REST_S = (0.1, 0.6)
FROZEN_S = (0.1, 1.0)
GRANT_MAX = 50


class Governor:
    """Governance at the ledger, with a memory."""

    def __init__(self, url: str, folder: Folder, payers: list[str]) -> None:
        self._wallet = Wallet.load(folder.home, GOVERNANCE)
        self._ledger = open_ledger(url, self._wallet, Settings(home=folder.home, ledger=url))
        mend(folder.acts)
        self._earlier = read(folder.acts)
        self._notes = DurableNotes(folder.acts)
        self._payers = payers
        self._stop = folder.stop
        self._pause = threading.Event()
        # What it does need not come from the seed; but no two lives of it do the same.
        self._dice = seeded("governor", len(self._earlier), time.time_ns())

    def run(self) -> None:
        self._finish_earlier()
        self._restore()
        while not self._stop.exists():
            self._dice.choice((self._grant, self._freeze, self._forbid))()
            self._rest(REST_S)
        self._restore()
        self._ledger.close()

    def _grant(self) -> None:
        self._do("grant", {"to": self._dice.choice(self._payers), "tokens": self._dice.randint(1, GRANT_MAX)})

    def _freeze(self) -> None:
        name = self._dice.choice(self._payers)
        self._do("freeze", {"name": name})
        self._rest(FROZEN_S)
        self._do("unfreeze", {"name": name})

    def _forbid(self) -> None:
        """For a while one payer may not do one thing; and every contract ends a little sooner."""
        rule = {
            "payer": self._dice.choice(self._payers),
            "payee": "*",
            "operation": self._dice.choice(("* /drawn/*", "* /held/*", "* /look/*")),
            "effect": "deny",
        }
        self._set_policy(rules=[rule], contract_ttl_s_max=self._dice.randint(60, 300))
        self._rest(FROZEN_S)
        self._set_policy(rules=[])

    def _set_policy(self, **changes: Any) -> None:
        policy = self._ask(self._ledger.policy)
        self._do("set_policy", {"policy": {**policy, **changes}})

    def _restore(self) -> None:
        """Undo what a life before this one has begun."""
        for name in self._payers:
            if self._ask(lambda name=name: self._ledger.wallet(name)).frozen_at is not None:
                self._do("unfreeze", {"name": name})
        if self._ask(self._ledger.policy)["rules"]:
            self._set_policy(rules=[])

    def _finish_earlier(self) -> None:
        answered = {note["answered"] for note in self._earlier if "answered" in note}
        for note in self._earlier:
            if "asked" in note and note["asked"] not in answered:
                self._send(note["asked"], note["document"])

    def _do(self, act: str, arg: dict[str, Any]) -> None:
        now, jti = int(time.time()), new_id()
        operation = Operation(self._ledger.domain, GOVERNANCE, jti, now, now + DOCUMENT_TTL_S, act, arg)
        document = sign(operation, self._wallet)
        self._notes.write(asked=jti, act=act, document=document)
        self._send(jti, document)

    def _send(self, jti: str, document: str) -> None:
        outcome, tx_id, _ = self._ask(lambda: self._ledger.submit([document]))[0]
        self._notes.write(answered=jti, code=outcome.code, tx_id=tx_id)
        if "enforce" in outcome.detail:
            self._do("enforce", outcome.detail["enforce"])

    def _ask(self, question: Any) -> Any:
        """What the ledger answers, however often it has to be asked."""
        while True:
            try:
                return question().result(ANSWER_S)
            except (LedgerError, TimeoutError) as error:
                print(f"{type(error).__name__}: {error}"[:300], flush=True)
                self._pause.wait(AGAIN_S)

    def _rest(self, between: tuple[float, float]) -> None:
        self._pause.wait(self._dice.uniform(*between))


if __name__ == "__main__":
    Governor(sys.argv[1], Folder(Path(sys.argv[2])), sys.argv[3:]).run()

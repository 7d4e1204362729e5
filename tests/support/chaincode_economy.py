"""The economy of :mod:`support.economy`, with the rules run as chaincode on a peer in memory."""

from __future__ import annotations

import json
from typing import Any

from support.economy import START, Economy, authority, wallet
from support.peers import MemoryPeer
from tokenmesh_chaincode.contract import TokenmeshContract
from tokenmesh_chaincode.documents import canonical
from tokenmesh_chaincode.rules import Outcome, default_policy, genesis_document

INDEX = "open/"


def first_document(
    governors: tuple[str, ...] = ("root",), *, now: int = START, nonce: str = "test", **policy: Any
) -> bytes:
    """A genesis document as the chaincode takes it."""
    document = genesis_document(
        ca=[authority().pem],
        governors={name: wallet(name).pem for name in governors},
        policy={**default_policy(), **policy},
        now=now,
        nonce=nonce,
    )
    return canonical(document)


class ChaincodeEconomy(Economy):
    """Each operation is a transaction of its own; ``results`` gives what several in one transaction come to.

    ``state`` is what the rules see of the peer's: without the index, and without what Fabric's ledger notes
    in the record of an operation. A test may change it; the peer's follows.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.peer = MemoryPeer(TokenmeshContract(lambda: self.now), lambda: self.now)
        self._recorded: dict[str, dict[str, Any]] = {}
        """What was noted besides, by key."""

    def apply(self, text: str) -> Outcome:
        ((ok, code, detail, _, _),) = self.results(text)
        return Outcome(ok, code, detail)

    def results(self, *texts: str) -> list[Any]:
        """Apply these in one transaction; the chaincode's answer."""
        self._hand_over()
        answer: list[Any] = json.loads(
            self.peer.submit("apply", *texts, transient={"disclosures": canonical(self.disclosures)})
        )
        self._take_over()
        return answer

    def ask(self, question: str, *arguments: Any) -> Any:
        """The chaincode's answer to a question."""
        self._hand_over()
        _, answer = self.peer.simulate("ask", question, canonical(list(arguments)))
        return json.loads(answer)

    def _hand_over(self) -> None:
        kept = {key: value for key, value in self.peer.state.items() if key.startswith(INDEX)}
        values = self.state.values
        self.peer.state.clear()
        self.peer.state.update(kept)
        self.peer.state.update(
            (key, canonical({**value, **self._recorded.get(key, {})})) for key, value in values.items()
        )

    def _take_over(self) -> None:
        values = {key: json.loads(data) for key, data in self.peer.state.items() if not key.startswith(INDEX)}
        for key, value in values.items():
            if key.startswith("op/"):
                self._recorded[key] = {name: value.pop(name) for name in ("tx", "time") if name in value}
        self.state.values.clear()
        self.state.values.update(values)

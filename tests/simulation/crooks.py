"""Those who want something for nothing: what they send to payees, and what they ask of the ledger.

None of it may have any effect. What a crooked payer sends is signed by a wallet of the simulation, so only
the checks that are meant to find it can; what a crooked wallet asks of the ledger, the rules must refuse in
the very words that the auditor predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.home import PAYEES, home
from simulation.plan import OPERATIONS
from tokenmesh_chaincode import documents
from tokenmesh_chaincode.documents import Operation, parse_contract

if TYPE_CHECKING:
    from simulation.auditor import Known
    from simulation.simulation import Simulation

TTL_S = 60


class Incoming(NamedTuple):
    """A request as a payee gets it. ``number`` tells it from others; a copy has the same."""

    number: int
    method: str
    target: str
    body: bytes
    contract: str | None


def stray(service: str, incoming: Incoming) -> tuple[str, Incoming]:
    """The request goes to another payee, which has the same operations."""
    return next(payee for payee in PAYEES if payee != service), incoming


def forge(service: str, incoming: Incoming) -> tuple[str, Incoming]:
    """The contract comes with another body."""
    return service, incoming._replace(body=incoming.body + b" and more")


def same_id(service: str, incoming: Incoming) -> tuple[str, Incoming]:
    """The payer signs the same id for another request, to have it answered for nothing."""
    assert incoming.contract is not None
    contract = parse_contract(incoming.contract).body
    target = f"{incoming.target}?another"
    number = None if contract.seq is None else contract.seq + 100
    other = contract._replace(htu=target, seq=number)
    return service, incoming._replace(target=target, contract=documents.sign(other, home()[contract.iss]))


def stale(service: str, incoming: Incoming) -> tuple[str, Incoming]:
    """The payer signs a contract that has expired, and that nobody has seen."""
    assert incoming.contract is not None
    contract = parse_contract(incoming.contract).body
    number = None if contract.seq is None else contract.seq + 200
    began = contract.iat - 2 * TTL_S
    other = contract._replace(jti=f"{contract.jti}-stale", iat=began, exp=began + 10, seq=number)
    return service, incoming._replace(contract=documents.sign(other, home()[contract.iss]))


CROOKED: dict[str, Callable[[str, Incoming], tuple[str, Incoming]]] = {
    "stray": stray,
    "forge": forge,
    "same id": same_id,
    "stale": stale,
}
"""Makes of a request the one that a crook sends, and says to whom."""


def ask(simulation: Simulation, what: str) -> None:
    """Ask the ledger for something that it must refuse, in the name of whoever would profit."""
    worker = next((one for one in simulation.workers if one.listening), None)
    if worker is None:
        return
    now = int(worker.clock())
    for number, (by, act, arg) in enumerate(_wishes(simulation, what)):
        jti = f"crook-{what.replace(' ', '-').replace(chr(39), '')}-{now}-{number}"
        operation = Operation(simulation.home.domain, by, jti, now, now + TTL_S, act, arg)
        worker.ledger.submit([documents.sign(operation, simulation.home[by])])
    if what == "send again":
        texts = simulation.auditor.books.documents
        if texts:
            worker.ledger.submit([Random(now).choice(texts)])


def _wishes(simulation: Simulation, what: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Operations: by whom, which, and its argument."""
    auditor, wishes = simulation.auditor, []
    economy = auditor.books.economy
    for payee in PAYEES:
        other = next(each for each in PAYEES if each != payee)
        mine = [known for known in auditor.contracts.values() if known.payee == payee]
        theirs = [known for known in auditor.contracts.values() if known.payee == other]
        if what == "settle again":
            wishes.append((payee, "settle", {"items": _items(mine, 0)}))
        elif what == "settle dear":
            wishes.append((payee, "settle", {"items": _items(mine, 1, only_fulfilled=False)}))
        elif what == "settle another's":
            wishes.append((payee, "settle", {"items": _items(theirs, 0)}))
        elif what == "void again":
            holds = [
                list(key)
                for key, hold in economy.holds.items()
                if hold.state != "open" or hold.payee != payee
            ]
            wishes.append((payee, "void", {"holds": holds}))
    if what == "expire early":
        arg = {"holds": [list(key) for key in economy.holds], "allowances": list(economy.allowances)}
        wishes.append((PAYEES[0], "expire", arg))
    return [wish for wish in wishes if any(wish[2].values())]


def _items(contracts: list[Known], more: int, *, only_fulfilled: bool = True) -> list[list[Any]]:
    """Settle these for what they owe, or for more than they offer."""
    items = []
    for known in contracts:
        sent = known.runs[-1].incoming if known.runs else known.texts[-1]
        text = sent.contract
        fulfilled = known.end is not None and known.end.out == "fulfilled"
        if text is not None and known.end is not None and (fulfilled or not only_fulfilled):
            items.append([text, parse_contract(text).body.tok + more if more else known.end.charged])
    return items


__all__ = ["CROOKED", "OPERATIONS", "Incoming", "ask"]

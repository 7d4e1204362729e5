"""Governance in a simulation: it freezes a payer, or forbids it something, and takes that back after a while.

Each change is made as the product says: recorded first, and put in force by another operation of one who has
seen it recorded. Now and then the second never comes, and now and then the first bears a time long past when
it is recorded, as on Fabric while whoever orders is away. What was sent is remembered over the process's own
end, and sent again as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.home import GOVERNANCE
from simulation.plan import Decree
from simulation.services import Service
from tokenmesh.errors import LedgerError
from tokenmesh.steps import Sleep, Steps, Within
from tokenmesh_chaincode.documents import Operation, sign

if TYPE_CHECKING:
    from simulation.simulation import Simulation

ANSWER_S = 5.0
AGAIN_S = 0.5
TTL_S = 3_600


class Governor(Service):
    """The process that governs."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation, GOVERNANCE, GOVERNANCE)
        self.decrees = simulation.plan.decrees
        self.ended: set[Decree] = set()
        self._sent: dict[str, str] = {}
        """The operations that were sent, by what they are for."""

    def open(self) -> None:
        for number, decree in enumerate(self.decrees):
            if decree not in self.ended:
                steps = self._carry_out(str(number), decree)
                self.after(max(0.0, decree.at - self.world.elapsed), lambda steps=steps: self.task(steps))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be decreed."""
        return len(self.ended) == len(self.decrees)

    def _carry_out(self, name: str, decree: Decree) -> Steps[None]:
        change = yield from self._change(name, decree)
        if "enforce" in change and not decree.cut_short:  # not of a freeze that is in force already
            yield from self._do(f"{name}-enforce", "enforce", change["enforce"])
        yield Sleep(decree.for_s)
        if decree.operation is None:
            yield from self._do(f"{name}-undo", "unfreeze", {"name": decree.payer})
        else:
            undone = yield from self._set_rules(f"{name}-undo", decree, forbidden=False)
            yield from self._do(f"{name}-undo-enforce", "enforce", undone["enforce"])
        self.ended.add(decree)

    def _change(self, name: str, decree: Decree) -> Steps[dict[str, Any]]:
        self.skew = -decree.late_s  # the time that its transaction bears
        if decree.operation is None:
            change = yield from self._do(name, "freeze", {"name": decree.payer})
        else:
            change = yield from self._set_rules(name, decree, forbidden=True)
        self.skew = 0.0
        return change

    def _set_rules(self, name: str, decree: Decree, *, forbidden: bool) -> Steps[dict[str, Any]]:
        policy = yield from self._asked(self.ledger.policy)
        rule = {"payer": decree.payer, "payee": "*", "operation": decree.operation, "effect": "deny"}
        rules = [one for one in policy["rules"] if one != rule] + [rule] * forbidden
        return (yield from self._do(name, "set_policy", {"policy": {**policy, "rules": rules}}))

    def _do(self, name: str, act: str, arg: dict[str, Any]) -> Steps[dict[str, Any]]:
        """Have an operation done, however often it has to be sent; what it came to."""
        text = self._sent.get(name)
        if text is None:
            now = int(self.clock())
            operation = Operation(
                self.ledger.domain, GOVERNANCE, f"decree-{name}", now, now + TTL_S, act, arg
            )
            text = self._sent[name] = sign(operation, self.wallet)
        (result,) = yield from self._asked(lambda: self.ledger.submit([text]))
        self.simulation.auditor.troubled()
        return dict(result.outcome.detail)

    def _asked(self, question: Any) -> Steps[Any]:
        while True:
            try:
                return (yield Within(question(), ANSWER_S))
            except (LedgerError, TimeoutError):
                yield Sleep(AGAIN_S)

"""The rules as chaincode on a real network against a model in dicts: see :mod:`ledger.rules_machine`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger.rules_machine import SERVICES, RulesMachine

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import Domain
from support.wallets import Clock

EXAMPLES = 6
STEPS = 20


class OnFabric(RulesMachine):
    """A chaincode definition for each example. What takes a question to the peer is asked at the end."""

    compare_always = False
    make: ClassVar[Callable[[], Domain]]

    def new_domain(self) -> Domain:
        return type(self).make()


def test_the_rules_on_fabric_do_as_the_model_does(rules: Rules, tmp_path: Path) -> None:
    """The very machine that the embedded ledger goes through, in a few examples: each step is a
    transaction, endorsed by both organisations, at the time of the test's clock."""
    made: list[Domain] = []

    def make() -> Domain:
        directory = tmp_path / f"domain-{len(made)}"
        wallets = dict.fromkeys(SERVICES, 0)
        made.append(make_fabric_domain(rules, directory, wallets, clock=Clock(), supply=0))
        return made[-1]

    class Machine(OnFabric):
        pass

    Machine.make = staticmethod(make)
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(Machine, settings=chosen)
    assert len(made) >= EXAMPLES

"""The rules on the embedded ledger against a model in dicts: see :mod:`ledger.rules_machine`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger.rules_machine import SERVICES, RulesMachine

from support.ledgers import Domain, make_ledger
from support.wallets import Clock
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.verify import verify_ledger
from tokenmesh_chaincode.rules import ending
from tokenmesh_chaincode.rules.spent import Spent


class OnEmbedded(RulesMachine):
    """A file for each example; at its end all of it is verified."""

    def new_domain(self) -> Domain:
        self.directory = tempfile.TemporaryDirectory(prefix="tokenmesh-model-")
        wallets = dict.fromkeys(SERVICES, 0)
        return make_ledger(Path(self.directory.name), wallets, clock=Clock(), supply=0)

    def end(self) -> None:
        with self.directory:
            ledger = self.domain.ledger
            assert isinstance(ledger, EmbeddedLedger)
            assert verify_ledger(ledger.path).findings == []


TestOnEmbedded = OnEmbedded.TestCase
TestOnEmbedded.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def _use_again(monkeypatch: pytest.MonkeyPatch) -> None:
    use = Spent.use

    def used(self: Spent, lane: str, seq: int) -> str | None:
        code = use(self, lane, seq)
        return None if code == "already_settled" else code

    monkeypatch.setattr(Spent, "use", used)


def _end_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "end_of", lambda allowance: allowance["exp"])


@pytest.mark.parametrize("break_it", [_use_again, _end_late])
def test_a_rule_that_is_broken_is_found(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that pays twice; an allowance whose early close does not count: the machine gets there."""
    break_it(monkeypatch)
    chosen = settings(
        TestOnEmbedded.settings, max_examples=400, phases=(Phase.generate,), derandomize=True, database=None
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(OnEmbedded, settings=chosen)

"""The rules on the embedded ledger against a model in dicts: see :mod:`ledger.rules_machine`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from ledger.rules_machine import SERVICES, RulesMachine

from support.ledgers import Domain, make_ledger
from support.wallets import Clock
from tokenmesh.ledger.embedded import EmbeddedLedger
from tokenmesh.ledger.verify import verify_ledger


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

"""The embedded ledger: all that every ledger must do, and what comes with one file and many processes."""

from __future__ import annotations

import pytest
from ledger.ledger_suite import LedgerSuite

from support.ledgers import make_ledger
from support.wallets import Clock


class TestEmbedded(LedgerSuite):
    """The shared suite, on a file, with a clock that the test holds."""

    @pytest.fixture
    def new_domain(self, tmp_path):
        domains = []

        def new(tokens=None, policy=None):
            directory = tmp_path / f"domain-{len(domains)}"
            directory.mkdir()
            domains.append(make_ledger(directory, tokens, policy=policy, clock=Clock()))
            return domains[-1]

        yield new
        for domain in domains:
            domain.ledger.close()

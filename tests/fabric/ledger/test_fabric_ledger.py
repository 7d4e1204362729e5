"""The ledger on Fabric: all that every ledger must do, on a real network, endorsed by both organisations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger.ledger_suite import LedgerSuite
from ledger.suite_tools import NewDomain

from support.fabric_domain import Rules, make_fabric_domain
from support.ledgers import Domain
from support.wallets import Clock


class TestFabric(LedgerSuite):
    """The shared suite, with a clock that the test holds: that of the transactions and of the endorsers."""

    @pytest.fixture
    def new_domain(self, rules: Rules, tmp_path: Path) -> Iterator[NewDomain]:
        domains: list[Domain] = []

        def new(tokens: dict[str, int] | None = None, policy: dict[str, object] | None = None) -> Domain:
            directory = tmp_path / f"domain-{len(domains)}"
            domains.append(make_fabric_domain(rules, directory, tokens, policy=policy, clock=Clock()))
            return domains[-1]

        yield new
        for domain in domains:
            domain.ledger.close()

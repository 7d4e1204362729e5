"""Fixtures of the verification's tests: one ledger with something of everything, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ledger.suite_tools import PAYEE, PAYER, contracts, open_allowance, place_hold, settle
from ledger.verify_tools import Written

from support.ledgers import GOVERNANCE, make_ledger, now_of
from support.wallets import Clock
from tokenmesh_chaincode.rules import default_policy


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """One of everything, closed, so that all of it lies in one file."""
    clock = Clock()
    domain = make_ledger(tmp_path_factory.mktemp("original"), clock=clock)
    domain.do(PAYER, "transfer", {"to": PAYEE, "tokens": 11})
    hold, other = place_hold(domain, 20), place_hold(domain, 30)
    allowance = open_allowance(domain, 200)
    settle(domain, *((text, 5) for text in contracts(domain, allowance, 10)))
    settle(domain, (domain.contract(PAYER, PAYEE, jti=hold, tok=20), 13), ("nonsense", 1))
    domain.do(PAYEE, "void", {"holds": [[PAYER, other]]})
    domain.ask(PAYER, "transfer", {"to": PAYEE, "tokens": 10**9})
    domain.do(GOVERNANCE, "set_policy", {"policy": {**default_policy(), "tokens_max": 1_000}})
    new = domain.wallets.new(PAYER)
    domain.do(GOVERNANCE, "rotate", {"name": PAYER, "cert": new.certificate_pem})
    domain.do(PAYER, "close", {"id": allowance})
    texts = [domain.operation(PAYER, "transfer", {"to": PAYEE, "tokens": n}) for n in range(1, 6)]
    domain.submit(*texts)
    clock.forward(100_000)
    domain.do(PAYEE, "expire", now_of(domain.ledger.expirable(domain.now, 100)))
    domain.do(PAYEE, "forget", now_of(domain.ledger.forgettable(domain.now, 100)))
    place_hold(domain, 3)
    transactions = now_of(domain.ledger.transactions(limit=1_000))
    domain.ledger.close()
    return Written(domain.ledger.path, domain, transactions)


@pytest.fixture
def written(original, tmp_path):
    """A copy to be tampered with."""
    return original._replace(path=Path(shutil.copy(original.path, tmp_path)))

"""What every ledger must do, whatever it is: a test class to be inherited.

A test module for a ledger has a class that inherits :class:`LedgerSuite` and gives the fixture
``new_domain``: a callable ``(tokens, policy) -> Domain`` that makes a fresh ledger with ``governance`` and
those wallets. Where the ledger's clock cannot be held (``domain.clock`` is no ``Clock``), the tests that
need time to pass are skipped. Nothing else may be skipped or overridden.
"""

from __future__ import annotations

from ledger.suite_operations import Operations
from ledger.suite_questions import Questions
from ledger.suite_results import Results


class LedgerSuite(Operations, Results, Questions):
    """To be inherited; see the module."""

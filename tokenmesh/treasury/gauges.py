"""What a treasury shows of itself: what is left of its allowances, and how many holds are open."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from tokenmesh.telemetry import Reading, hide, names, show
from tokenmesh.treasury.allowances import Account, Ticket


class Gauges:
    """Counts holds, and reads ``accounts`` under their ``lock``, for the gauges of one treasury."""

    def __init__(self, domain: str, accounts: Mapping[str, Account], lock: threading.Lock) -> None:
        self._domain = domain[: names.DOMAIN_LENGTH]
        self._accounts = accounts
        self._lock = lock
        self._holds: Counter[str] = Counter()
        show(self)

    def close(self) -> None:
        """Show nothing any more."""
        hide(self)

    def held(self, ticket: Ticket) -> Ticket:
        """A call has a hold, by this ticket, which is given back."""
        with self._lock:
            self._holds[ticket.payee] += 1
        return ticket

    def ended(self, ticket: Ticket) -> None:
        """That call is over."""
        with self._lock:
            self._holds[ticket.payee] -= 1
            if not self._holds[ticket.payee]:
                del self._holds[ticket.payee]

    def readings(self) -> list[Reading]:
        """See :class:`tokenmesh.telemetry.instruments.Source`."""
        with self._lock:
            standing = [
                (account.payee, [(one.left, one.tokens) for one in account.allowances])
                for account in self._accounts.values()
            ]
            holds = list(self._holds.items())
        found = [Reading("tokenmesh.hold.open", count, self._about(payee)) for payee, count in holds]
        for payee, allowances in standing:
            about = self._about(payee)
            left, limit = sum(left for left, _ in allowances), sum(tokens for _, tokens in allowances)
            found.append(Reading("tokenmesh.allowance.left", left, about))
            found.append(Reading("tokenmesh.allowance.limit", limit, about))
        return found

    def _about(self, payee: str) -> dict[str, str]:
        return {names.PAYEE: payee, names.DOMAIN: self._domain}

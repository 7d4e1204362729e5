"""What settlement says in the log: each record with the ids of what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenmesh.errors import TokenmeshError
from tokenmesh.journal import Item
from tokenmesh.journal.base import Key
from tokenmesh.telemetry import SettleWatch, about, log

_log = log("tokenmesh.settlement")


def say_judged(
    payee: str, items: Sequence[Item], lost: Mapping[Key, str], tx_id: str, watch: SettleWatch | None
) -> None:
    """The ledger has judged these contracts; of a lost one the record is in its call's trace."""
    paid = [item for item in items if (item.payer, item.jti) not in lost]
    if paid:
        trace = {} if watch is None else watch.ids
        _log.info(
            "settled: %d contracts, %d tokens",
            *(len(paid), sum(item.charged for item in paid)),
            extra=about(payee=payee, tx_id=tx_id, **trace),
        )
    for item in items:
        code = lost.get((item.payer, item.jti))
        if code is not None:
            _log.warning(
                "the ledger refused to settle contract %s of %s: %s",
                *(item.jti, item.payer, code),
                extra=about(item.contract, contract_id=item.jti, payer=item.payer, payee=payee, tx_id=tx_id),
            )


def say_waiting(payee: str, error: TokenmeshError, watch: SettleWatch | None) -> None:
    """A round has failed for a reason that may pass."""
    trace = {} if watch is None else watch.ids
    _log.warning("settlement waits, and tries again: %s", error, extra=about(payee=payee, **trace))


def say_fault(payee: str) -> None:
    """A round has failed in a way that it should not: said with the error that is being handled."""
    _log.exception("settlement failed", extra=about(payee=payee))

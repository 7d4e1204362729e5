"""What stands on spans, metrics and log records: OpenTelemetry's names where it has one, ours where not.

The reference is docs/reference/telemetry.md.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "tokenmesh"
"""The instrumentation scope of everything here."""

CALL: Final = "tokenmesh call"
FULFIL: Final = "tokenmesh fulfil"
SETTLE: Final = "tokenmesh settle"

CONTRACT_ID: Final = "tokenmesh.contract.id"
CONTRACT_TOKENS: Final = "tokenmesh.contract.tokens"
VIA: Final = "tokenmesh.via"
CONTRACTS: Final = "tokenmesh.contracts"
TOKENS: Final = "tokenmesh.tokens"
PAYER: Final = "tokenmesh.payer"
PAYEE: Final = "tokenmesh.payee"
OPERATION: Final = "tokenmesh.operation"
DOMAIN: Final = "tokenmesh.domain"
TX_ID: Final = "tokenmesh.tx.id"
CODE: Final = "tokenmesh.code"
OUTCOME: Final = "tokenmesh.outcome"
LEDGER_KIND: Final = "tokenmesh.ledger.kind"
ACT: Final = "tokenmesh.act"

ERROR_TYPE: Final = "error.type"
RESEND_COUNT: Final = "http.request.resend_count"
STATUS_CODE: Final = "http.response.status_code"

RETRY: Final = "tokenmesh.retry"
SETTLED: Final = "tokenmesh.settled"

DOMAIN_LENGTH: Final = 16
"""A ledger's id is named by so many characters."""

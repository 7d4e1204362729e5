"""The payer's side of a call, without a transport: offers, contracts, sending, retries, receipts."""

from tokenmesh.consumer.answers import Pending
from tokenmesh.consumer.consumer import Consumer
from tokenmesh.consumer.messages import (
    CONTRACT_HEADER,
    IDEMPOTENCY_HEADER,
    OWN_BYTES_MAX,
    RECEIPT_HEADER,
    CallInfo,
    CallOptions,
    InResponse,
    OutRequest,
    ReadBody,
    Send,
    TransportFailed,
)

__all__ = [
    "CONTRACT_HEADER",
    "IDEMPOTENCY_HEADER",
    "OWN_BYTES_MAX",
    "RECEIPT_HEADER",
    "CallInfo",
    "CallOptions",
    "Consumer",
    "InResponse",
    "OutRequest",
    "Pending",
    "ReadBody",
    "Send",
    "TransportFailed",
]

"""Every bound of the documents and the rules, by name.

They are part of the protocol: all who run the rules must agree on them, so none of them can be configured.
What governance may change is in the policy (:mod:`tokenmesh_chaincode.rules.policy`). Units stand last in
the names; times are Unix seconds, tokens whole numbers.
"""

from __future__ import annotations

from typing import Final

# Documents: bytes of the whole compact form, judged before anything in them is read.
CONTRACT_BYTES_MAX: Final = 8192
"""With its disclosure, if it is private and accompanies a request."""
DISCLOSURE_BYTES_MAX: Final = 8192
RECEIPT_BYTES_MAX: Final = 4096
OPERATION_BYTES_MAX: Final = 4 * 1024 * 1024
HEADER_BYTES_MAX: Final = 512
DEPTH_MAX: Final = 8
"""Objects and arrays inside one another."""
INTEGER_DIGITS_MAX: Final = 16
"""Digits (and sign) of a number; what passes is bounded again by the claim it stands in."""

# Values in documents.
TOKENS_MAX: Final = 2**53 - 1
"""The largest whole number that every JSON implementation reads alike."""
SEQ_MAX: Final = 2**53 - 1
TIME_S_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""
NAME_LENGTH_MAX: Final = 63
ID_LENGTH_MAX: Final = 64
OPERATION_NAME_LENGTH_MAX: Final = 256
TARGET_LENGTH_MAX: Final = 4096
TX_LENGTH_MAX: Final = 128
URL_LENGTH_MAX: Final = 256
CERTIFICATE_BYTES_MAX: Final = 8192

# Time.
CLOCK_SKEW_S_MAX: Final = 10
"""How far in the future a document's ``iat`` may lie."""
OPERATION_TTL_S_MAX: Final = 86_400
PROPOSAL_TTL_S: Final = 7 * 86_400
RECORD_KEEP_S: Final = 600
"""How long a record stays after its documents have ceased to be valid. A contract may be this much older
than the hold or allowance that pays for it, and not more: an id that was forgotten and opened again can
therefore never pay for an old contract."""

# What a Fabric transaction of the rules may be.
TX_TIME_SKEW_S_MAX: Final = 30
"""How far the time of a proposal may lie from the clock of who endorses it: its sender has chosen it."""
APPLY_OPERATIONS_MAX: Final = 1000
"""Operations in one transaction."""

# What one operation, and one record of state, may hold.
SETTLE_ITEMS_MAX: Final = 2000
SKIPPED_ITEMS_MAX: Final = 4096
SWEEP_ITEMS_MAX: Final = 1000
HOLD_ITEMS_MAX: Final = 1000
VOID_ITEMS_MAX: Final = 1000
EXPIRE_ITEMS_MAX: Final = 1000
FORGET_ITEMS_MAX: Final = 1000
RANGES_MAX: Final = 4096
"""Ranges of used ``seq`` in one allowance, over all its lanes."""
LANES_MAX: Final = 256
CERTIFICATES_MAX: Final = 8
"""Certificates of one wallet that can still be needed."""
GOVERNORS_MAX: Final = 64
CERTIFICATE_AUTHORITIES_MAX: Final = 16
POLICY_RULES_MAX: Final = 256
POLICY_SECONDS_MAX: Final = 366 * 86_400

# Caches of what never changes; they bound memory and decide nothing.
HEADER_CACHE_MAX: Final = 1024
KEY_CACHE_MAX: Final = 4096

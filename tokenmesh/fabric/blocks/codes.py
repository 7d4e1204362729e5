"""The validation codes that transactions get, by Fabric's numbers (``peer.TxValidationCode``)."""

from __future__ import annotations

from typing import Final

from fabric_protos.peer import transaction_pb2

VALID: Final = 0
BAD_PAYLOAD: Final = 2
BAD_COMMON_HEADER: Final = 3
BAD_CREATOR_SIGNATURE: Final = 4
INVALID_ENDORSER_TRANSACTION: Final = 5
INVALID_CONFIG_TRANSACTION: Final = 6
UNSUPPORTED_TX_PAYLOAD: Final = 7
BAD_PROPOSAL_TXID: Final = 8
DUPLICATE_TXID: Final = 9
ENDORSEMENT_POLICY_FAILURE: Final = 10
MVCC_READ_CONFLICT: Final = 11
PHANTOM_READ_CONFLICT: Final = 12
TARGET_CHAIN_NOT_FOUND: Final = 14
ILLEGAL_WRITESET: Final = 23
INVALID_CHAINCODE: Final = 25
INVALID_OTHER_REASON: Final = 255


def code_name(code: int) -> str:
    """Fabric's name of a code, or its number where it has none."""
    try:
        return str(transaction_pb2.TxValidationCode.Name(code))
    except ValueError:
        return str(code)

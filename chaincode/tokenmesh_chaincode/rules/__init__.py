"""The rules of the token economy: what each operation does to state, and who may do it."""

from tokenmesh_chaincode.rules.base import Context, Outcome, end_of
from tokenmesh_chaincode.rules.codes import MEANING, NOT_RECORDED, OK
from tokenmesh_chaincode.rules.engine import ACTS, apply
from tokenmesh_chaincode.rules.genesis import genesis, genesis_document
from tokenmesh_chaincode.rules.policy import PolicyError, allows, check_policy, default_policy

__all__ = [
    "ACTS",
    "MEANING",
    "NOT_RECORDED",
    "OK",
    "Context",
    "Outcome",
    "PolicyError",
    "allows",
    "apply",
    "check_policy",
    "default_policy",
    "end_of",
    "genesis",
    "genesis_document",
]

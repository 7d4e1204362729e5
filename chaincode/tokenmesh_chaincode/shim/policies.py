"""Key-level endorsement policies: who has to endorse a change of one key, whatever holds for the others."""

from __future__ import annotations

from collections.abc import Sequence

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

VALIDATION_PARAMETER = "VALIDATION_PARAMETER"
"""The name under which a peer keeps the policy in a key's metadata."""

ROLES = {"member": 0, "admin": 1, "client": 2, "peer": 3, "orderer": 4}


def key_policy(msp_ids: Sequence[str], *, role: str = "peer", needed: int | None = None) -> bytes:
    """A policy for :meth:`Stub.set_state_validation_parameter`: ``needed`` of these organisations, or all."""
    names = sorted(set(msp_ids))
    count = len(names) if needed is None else needed
    if not 0 < count <= len(names):
        raise ValueError(
            f"a policy of {count} out of {len(names)} organisations can never be met or is empty"
        )
    principals = [
        msp_principal_pb2.MSPPrincipal(
            principal_classification=msp_principal_pb2.MSPPrincipal.ROLE,
            principal=msp_principal_pb2.MSPRole(msp_identifier=name, role=ROLES[role]).SerializeToString(),
        )
        for name in names
    ]
    rules = [policies_pb2.SignaturePolicy(signed_by=number) for number in range(len(names))]
    policy = policies_pb2.SignaturePolicyEnvelope(
        version=0,
        rule=policies_pb2.SignaturePolicy(n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=count, rules=rules)),
        identities=principals,
    )
    return bytes(policy.SerializeToString(deterministic=True))

"""The beginning of a ledger: its domain, its policy and its governors.

The id of the domain is the digest of the genesis document, so a document meant for one ledger is worth
nothing on any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenmesh_chaincode.certificates import check_authority, check_certificate
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.limits import CERTIFICATE_AUTHORITIES_MAX, GOVERNORS_MAX
from tokenmesh_chaincode.rules.policy import Policy, PolicyError, check_policy
from tokenmesh_chaincode.rules.wallets import new_wallet
from tokenmesh_chaincode.state import State

FORMAT = 1
"""The version of the rules that a ledger is begun with."""


def genesis_document(
    *, ca: Sequence[str], governors: Mapping[str, str], policy: Policy, now: int, nonce: str
) -> dict[str, Any]:
    """What a ledger begins with. ``governors`` maps wallet names to certificates in PEM."""
    return {
        "tokenmesh": FORMAT,
        "ca": list(ca),
        "governors": dict(governors),
        "policy": {**policy, "since": now},
        "now": now,
        "nonce": nonce,
    }


def genesis(
    state: State, *, ca: Sequence[str], governors: Mapping[str, str], policy: Policy, now: int, nonce: str
) -> str:
    """Write the first records of a ledger; return its domain's id.

    Raises ``ValueError`` (:class:`~tokenmesh_chaincode.certificates.CertificateError`,
    :class:`~tokenmesh_chaincode.rules.policy.PolicyError`) if the ledger could not be governed so, or if
    ``state`` holds a ledger already.
    """
    if state.get("domain") is not None:
        raise ValueError("a ledger has begun here already")
    if not 1 <= len(ca) <= CERTIFICATE_AUTHORITIES_MAX:
        raise ValueError(f"a ledger has 1 to {CERTIFICATE_AUTHORITIES_MAX} certificate authorities")
    if not 1 <= len(governors) <= GOVERNORS_MAX:
        raise ValueError(f"a ledger has 1 to {GOVERNORS_MAX} governors")
    document = genesis_document(ca=ca, governors=governors, policy=policy, now=now, nonce=nonce)
    check_policy(document["policy"])
    if document["policy"]["threshold"] > len(governors):
        raise PolicyError("threshold is above the number of governors")
    for pem in ca:
        check_authority(pem)
    wallets = [
        new_wallet(check_certificate(pem, ca, name, now), "governor", None, now)
        for name, pem in sorted(governors.items())
    ]
    domain_id = thumbprint(canonical(document))
    state.put("domain", {"id": domain_id, "ca": list(ca), "created": now})
    state.put("policy", document["policy"])
    state.put("governors", {"names": sorted(governors)})
    for wallet in wallets:
        state.put(f"wallet/{wallet['name']}", wallet)
    return domain_id

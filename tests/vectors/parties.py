"""Who stands in the test vectors: keys that follow from names, certificates, and the ledger's beginning.

Everything here is the same each time it is made, the signatures too (RFC 6979), so the vectors can be made
again and compared byte by byte. The keys are published: never use them for anything else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tokenmesh_chaincode.certificates import x5t_s256
from tokenmesh_chaincode.documents import canonical, thumbprint
from tokenmesh_chaincode.rules import default_policy, genesis_document

NOW = 1_800_000_000
"""When the ledger of the vectors begins, in Unix seconds."""
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
YEARS = 10


def segment(data: bytes | dict[str, Any]) -> str:
    """base64url without padding; an object as compact JSON."""
    if isinstance(data, dict):
        data = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def private_key(seed: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(hashlib.sha256(f"tokenmesh test vectors: {seed}".encode()).digest())
    return ec.derive_private_key(number % (P256_ORDER - 1) + 1, ec.SECP256R1())


@cache
def certificate(name: str, seed: str, *, authority: bool = False) -> str:
    """A certificate for ``name`` with the key of ``seed``, issued by the vectors' authority."""
    begin = datetime.fromtimestamp(NOW - 3600, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vectors-ca")]))
        .public_key(private_key(seed).public_key())
        .serial_number(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]))
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    signed = builder.sign(private_key("vectors-ca"), hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.PEM).decode()


class Party:
    """A wallet of the vectors: a signer. ``seed`` tells its key from another key of the same wallet."""

    def __init__(self, name: str, seed: str | None = None) -> None:
        self.name = name
        self.seed = seed or name
        self.key = private_key(self.seed)
        self.pem = certificate(name, self.seed)
        self.x5t = x5t_s256(self.pem)

    def sign(self, data: bytes) -> bytes:
        der = self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32) + s.to_bytes(32)

    def jwk(self) -> dict[str, str]:
        """The private key as a JWK (RFC 7517)."""
        private = self.key.private_numbers()
        public = private.public_numbers
        numbers = {"x": public.x, "y": public.y, "d": private.private_value}
        return {"kty": "EC", "crv": "P-256"} | {
            name: segment(number.to_bytes(32)) for name, number in numbers.items()
        }


GOVERNANCE = Party("governance")
ALICE = Party("alice")
ALICE_BEFORE = Party("alice", "alice, before her rotation")
ALICE_STRANGER = Party("alice", "a key that is not alice's on the ledger")
BOB = Party("bob")
CAROL = Party("carol")
ICE = Party("ice")
MALLORY = Party("mallory")
NOBODY = Party("nobody")
PARTIES = {
    "governance": GOVERNANCE,
    "alice": ALICE,
    "alice-before": ALICE_BEFORE,
    "alice-stranger": ALICE_STRANGER,
    "bob": BOB,
    "carol": CAROL,
    "ice": ICE,
    "mallory": MALLORY,
    "nobody": NOBODY,
}
CA = certificate("vectors-ca", "vectors-ca", authority=True)

POLICY: dict[str, Any] = {
    **default_policy(),
    "rules": [{"payer": "carol", "payee": "bob", "operation": "GET /quote/*", "effect": "deny"}],
}
GENESIS: dict[str, Any] = {
    "ca": [CA],
    "governors": {"governance": GOVERNANCE.pem},
    "policy": POLICY,
    "now": NOW,
    "nonce": "test-vectors",
}
DOCUMENT = genesis_document(**GENESIS)
DOMAIN = thumbprint(canonical(DOCUMENT))


class Impostor:
    """Signs with one key under the name and certificate of another wallet."""

    def __init__(self, as_if: Party, really: Party) -> None:
        self.name, self.x5t, self.sign = as_if.name, as_if.x5t, really.sign


def keys() -> dict[str, Any]:
    """keys.json."""
    return {
        "about": "Keys and certificates of the test vectors. The private keys are published: never use them.",
        "authority": CA,
        "genesis": DOCUMENT,
        "domain": DOMAIN,
        "wallets": [
            {
                "id": seed,
                "name": party.name,
                "certificate": party.pem,
                "x5t#S256": party.x5t,
                "private": party.jwk(),
            }
            for seed, party in PARTIES.items()
        ],
    }

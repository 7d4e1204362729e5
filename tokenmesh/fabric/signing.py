"""Signatures as Fabric wants them: ECDSA over SHA-256, in ASN.1 DER, with the smaller of the two values of s.

Fabric refuses a signature whose ``s`` is above half the curve's order (``bccsp/utils/ecdsa.go``), because
otherwise anyone could turn one valid signature into another.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

CURVE_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign ``message`` (hashed here with SHA-256); DER with low s."""
    return low_s(key.sign(message, ec.ECDSA(hashes.SHA256())), key.curve)


def low_s(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    """The same DER signature, with the smaller of the two values of s."""
    order = CURVE_ORDERS[curve.name]
    r, s = decode_dss_signature(signature)
    return signature if s <= order // 2 else encode_dss_signature(r, order - s)

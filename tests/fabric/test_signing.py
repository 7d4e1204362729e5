"""Signatures that Fabric takes: they verify, and s is the smaller of its two values."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tokenmesh.fabric.signing import CURVE_ORDERS, low_s, sign

CURVES = [ec.SECP256R1(), ec.SECP384R1()]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_every_signature_verifies_and_is_low(curve: ec.EllipticCurve) -> None:
    """Half of all signatures come out of the library high, so 50 would not be low by chance."""
    key = ec.generate_private_key(curve)
    for number in range(50):
        message = b"message %d" % number
        signature = sign(key, message)
        key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
        assert decode_dss_signature(signature)[1] <= CURVE_ORDERS[curve.name] // 2


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_high_signature_becomes_its_low_twin(curve: ec.EllipticCurve) -> None:
    order = CURVE_ORDERS[curve.name]
    low, high = encode_dss_signature(7, 5), encode_dss_signature(7, order - 5)
    assert low_s(high, curve) == low
    assert low_s(low, curve) == low


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_orders_are_those_of_the_curves(curve: ec.EllipticCurve) -> None:
    """Order minus one is the largest private key there is: it is minus the generator."""
    order = CURVE_ORDERS[curve.name]
    last = ec.derive_private_key(order - 1, curve).public_key().public_numbers()
    first = ec.derive_private_key(1, curve).public_key().public_numbers()
    assert last.x == first.x
    assert last.y != first.y

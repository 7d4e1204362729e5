"""Signatures are what Fabric takes; keys and certificates that cannot do it are refused with a reason."""

from __future__ import annotations

from hashlib import sha256, sha384
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from fabric_protos.msp import identities_pb2

from tokenmesh.fabric.errors import IdentityError
from tokenmesh.fabric.gateway import (
    Identity,
    hash_none,
    hash_sha256,
    new_private_key_signer,
    read_identity,
    read_signer,
)
from tokenmesh.fabric.signing import CURVE_ORDERS


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_a_signature_is_der_with_low_s_and_holds(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    sign = new_private_key_signer(key)
    for number in range(64):  # half of them would have a high s
        digest = hash_sha256(f"{number}".encode())
        signature = sign(digest)
        assert decode_dss_signature(signature)[1] <= CURVE_ORDERS[curve.name] // 2
        key.public_key().verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))


def test_sha384_digests_are_signed_as_such() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    digest = sha384(b"x").digest()
    key.public_key().verify(new_private_key_signer(key)(digest), digest, ec.ECDSA(Prehashed(hashes.SHA384())))


def test_ed25519_signs_the_message_itself() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    key.public_key().verify(new_private_key_signer(key)(hash_none(b"message")), b"message")


def test_what_is_no_digest_is_not_signed() -> None:
    with pytest.raises(IdentityError, match="check `hash`"):
        new_private_key_signer(ec.generate_private_key(ec.SECP256R1()))(b"the message itself")


def test_a_curve_that_fabric_does_not_know_is_refused() -> None:
    with pytest.raises(IdentityError, match="P-256 or P-384"):
        new_private_key_signer(ec.generate_private_key(ec.SECP256K1()))


def test_an_identity_is_carried_as_msp_id_and_pem() -> None:
    parsed = identities_pb2.SerializedIdentity.FromString(Identity("Org1MSP", b"PEM").serialized)
    assert (parsed.mspid, parsed.id_bytes) == ("Org1MSP", b"PEM")


def test_keys_come_from_pem_files(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "key.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    digest = sha256(b"x").digest()
    signature = read_signer(file, b"password")(digest)
    key.public_key().verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    with pytest.raises(IdentityError, match=r"key\.pem"):
        read_signer(file)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = tmp_path / "wrong.pem"
    file.write_text("nothing")
    with pytest.raises(IdentityError, match=r"wrong\.pem"):
        read_identity("Org1MSP", file)
    with pytest.raises(IdentityError, match=r"absent\.pem"):
        read_signer(tmp_path / "absent.pem")
    key = rsa.generate_private_key(65537, 2048)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(IdentityError, match="EC or Ed25519"):
        read_signer(file)

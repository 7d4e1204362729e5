"""Certificates: only one that the domain's authority issued for this name, on P-256 and in time, is taken."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.economy import START, Authority, authority, certificate, wallet
from tokenmesh_chaincode.certificates import (
    CertificateError,
    check_authority,
    check_certificate,
    parse_certificate,
    public_key,
    x5t_s256,
)


def test_a_certificate_of_the_domain_is_taken() -> None:
    alice = wallet("alice")
    info = check_certificate(alice.pem, [Authority().pem, authority().pem], "alice", START)
    assert info.name == "alice"
    assert info.x5t == alice.x5t
    assert info.key.public_numbers() == alice.key.public_key().public_numbers()
    assert info.not_before <= START < info.not_after


def test_x5t_is_the_digest_of_the_der() -> None:
    der = x509.load_pem_x509_certificate(wallet("alice").pem.encode()).public_bytes(Encoding.DER)
    expected = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert x5t_s256(wallet("alice").pem) == expected


def test_only_the_certificate_itself_is_kept_of_a_pem() -> None:
    alice = wallet("alice")
    chatty = f"Bag attributes: none\n{alice.pem}trailing words\n"
    assert check_certificate(chatty, [authority().pem], "alice", START).pem == alice.pem


@pytest.mark.parametrize("name", ["bob", "Alice", "", "alice\n"])
def test_a_certificate_for_another_name(name: str) -> None:
    with pytest.raises(CertificateError, match="is for 'alice'"):
        check_certificate(wallet("alice").pem, [authority().pem], name, START)


def test_a_certificate_of_another_authority_even_of_the_same_name() -> None:
    with pytest.raises(CertificateError, match="no authority"):
        check_certificate(wallet("alice").pem, [Authority(authority().name).pem], "alice", START)
    with pytest.raises(CertificateError, match="no authority"):
        check_certificate(wallet("alice").pem, [], "alice", START)


def test_a_wallet_is_no_authority() -> None:
    """A wallet that signs a certificate for somebody else gains nothing, even if its own is trusted."""
    alice = wallet("alice")
    key = ec.generate_private_key(ec.SECP256R1())
    forged = certificate("bob", key.public_key(), "alice", alice.key)
    with pytest.raises(CertificateError, match="no authority"):
        check_certificate(forged, [authority().pem, alice.pem], "bob", START)
    with pytest.raises(CertificateError, match="not an authority's"):
        check_authority(alice.pem)
    check_authority(authority().pem)


def test_validity_includes_its_first_and_its_last_second() -> None:
    alice = authority().wallet("alice", start=START, days=1)
    end = START + 86_400
    for now in (START, end):
        check_certificate(alice.pem, [authority().pem], "alice", now)
    for now in (START - 1, end + 1):
        with pytest.raises(CertificateError, match="not valid now"):
            check_certificate(alice.pem, [authority().pem], "alice", now)


def test_keys_that_es256_cannot_use() -> None:
    ca = authority()
    p384 = certificate("alice", ec.generate_private_key(ec.SECP384R1()).public_key(), ca.name, ca.key)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    for pem in (p384, certificate("alice", rsa_key, ca.name, ca.key)):
        with pytest.raises(CertificateError, match="P-256"):
            check_certificate(pem, [ca.pem], "alice", START)


@pytest.mark.parametrize(
    "pem", ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(pem: str) -> None:
    with pytest.raises(CertificateError, match="not a certificate"):
        parse_certificate(pem)


def test_a_certificate_that_is_too_large_or_not_ascii() -> None:
    with pytest.raises(CertificateError, match="longer than"):
        parse_certificate(wallet("alice").pem + " " * 8192)
    with pytest.raises(CertificateError, match="not a certificate"):
        parse_certificate("\u00e9" + wallet("alice").pem)


def test_a_key_is_parsed_once() -> None:
    assert public_key(wallet("alice").pem) is public_key(wallet("alice").pem)
